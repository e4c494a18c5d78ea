"""Files of HTTP servers, read only."""

from treenail.adapters.files.http.backend import HttpFiles

__all__ = ["HttpFiles"]
