"""Files in S3 and stores that speak its language, Google Cloud Storage and Azure Blob Storage."""

from treenail.adapters.files.objects.backend import ObjectFiles

__all__ = ["ObjectFiles"]
