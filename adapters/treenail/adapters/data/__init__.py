"""Data for training: batches that resume exactly, and example datasets."""

from treenail.adapters.data.collating import collate_lists
from treenail.adapters.data.digits import Digits
from treenail.adapters.data.failures import DataError
from treenail.adapters.data.indexed import Indexed, IndexedBatch
from treenail.adapters.data.loader import Batches, Loader
from treenail.adapters.data.overlap import copied_ahead
from treenail.adapters.data.stream import StreamedBatches

__all__ = [
    "Batches",
    "DataError",
    "Digits",
    "Indexed",
    "IndexedBatch",
    "Loader",
    "StreamedBatches",
    "collate_lists",
    "copied_ahead",
]
