"""Updates of parameters: precision, accumulation, clipping, and the training steps that use them."""

from treenail.adapters.optim.anomalies import parameters_outside
from treenail.adapters.optim.batches import as_pair, moved
from treenail.adapters.optim.freezing import freeze_parameters
from treenail.adapters.optim.fused import fastest
from treenail.adapters.optim.grouped import (
    GroupSummary,
    grouped_optimizer,
    groups_below,
    summarize_frozen,
    summarize_groups,
)
from treenail.adapters.optim.layer_decay import layer_decay
from treenail.adapters.optim.losses import TokenCrossEntropy, check_loss
from treenail.adapters.optim.parameters import KeySettings, parameter_groups, with_loss
from treenail.adapters.optim.precision import Precision
from treenail.adapters.optim.several import OptimizerDict, OptimWrapperDict
from treenail.adapters.optim.step import OwnStep, SupervisedStep
from treenail.adapters.optim.wrapper import OptimWrapper

__all__ = [
    "GroupSummary",
    "KeySettings",
    "OptimWrapper",
    "OptimWrapperDict",
    "OptimizerDict",
    "OwnStep",
    "Precision",
    "SupervisedStep",
    "TokenCrossEntropy",
    "as_pair",
    "check_loss",
    "fastest",
    "freeze_parameters",
    "grouped_optimizer",
    "groups_below",
    "layer_decay",
    "moved",
    "parameter_groups",
    "parameters_outside",
    "summarize_frozen",
    "summarize_groups",
    "with_loss",
]
