"""File backends."""

from treenail.adapters.files.local import LocalFiles

__all__ = ["LocalFiles"]
