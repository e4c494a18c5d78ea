"""Settings that are found by trying: learning rates and batch sizes."""

from treenail.adapters.tuning.batch_size import (
    BatchSizes,
    find_batch_size,
    fits_in_process,
    fits_on_device,
    peak_memory,
)
from treenail.adapters.tuning.learning_rate import LrSweep, find_lr
from treenail.adapters.tuning.scaling import scale_lr
from treenail.adapters.tuning.trials import left_unchanged

__all__ = [
    "BatchSizes",
    "LrSweep",
    "find_batch_size",
    "find_lr",
    "fits_in_process",
    "fits_on_device",
    "left_unchanged",
    "peak_memory",
    "scale_lr",
]
