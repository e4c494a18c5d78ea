"""Data for training: batches that resume exactly, and example datasets."""

from treenail.adapters.data.digits import Digits
from treenail.adapters.data.loader import Batches, Loader

__all__ = ["Batches", "Digits", "Loader"]
