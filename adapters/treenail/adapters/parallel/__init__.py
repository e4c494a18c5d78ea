"""Ways to train one model on many ranks; each takes the bare module and returns what to call in training."""

from treenail.adapters.parallel.batchnorm import BatchNorm, SyncBatchNorm, convert_sync_batchnorm, revert_sync_batchnorm
from treenail.adapters.parallel.clipping import clip_grad_norm, clip_grad_value
from treenail.adapters.parallel.closures import needs_closure
from treenail.adapters.parallel.compiling import compiled
from treenail.adapters.parallel.data import data_parallel, separate_data_parallel
from treenail.adapters.parallel.recompute import recompute
from treenail.adapters.parallel.sharding import fully_sharded
from treenail.adapters.parallel.tensor import Plan, Split, tensor_parallel
from treenail.adapters.parallel.world import data_share, device_mesh
from treenail.adapters.parallel.wrappers import bare, without_gradient_sync
from treenail.adapters.parallel.zero import zero_redundancy

__all__ = [
    "BatchNorm",
    "Plan",
    "Split",
    "SyncBatchNorm",
    "bare",
    "clip_grad_norm",
    "clip_grad_value",
    "compiled",
    "convert_sync_batchnorm",
    "data_parallel",
    "data_share",
    "device_mesh",
    "fully_sharded",
    "needs_closure",
    "recompute",
    "revert_sync_batchnorm",
    "separate_data_parallel",
    "tensor_parallel",
    "without_gradient_sync",
    "zero_redundancy",
]
