"""Files of local disks."""

from treenail.adapters.files.local.backend import LocalFiles

__all__ = ["LocalFiles"]
