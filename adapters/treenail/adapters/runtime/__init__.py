"""A whole run from its config: training, test, export."""

from treenail.adapters.runtime.assemble import Assembly, assemble
from treenail.adapters.runtime.ranks import RankRng, StopVote, failures_told, on_rank_0
from treenail.adapters.runtime.rollback import RollbackLoop
from treenail.adapters.runtime.run import Summary, export, open_checkpoint, test, train
from treenail.adapters.runtime.tuning import train_two_steps, tune_batch_size, tune_lr
from treenail.adapters.runtime.updates import build_groups, build_optimizer
from treenail.adapters.runtime.workdir import (
    CHECKPOINTS,
    Place,
    choose_place,
    choose_work_dir,
    has_checkpoint,
    locked,
)

__all__ = [
    "CHECKPOINTS",
    "Assembly",
    "Place",
    "RankRng",
    "RollbackLoop",
    "StopVote",
    "Summary",
    "assemble",
    "build_groups",
    "build_optimizer",
    "choose_place",
    "choose_work_dir",
    "export",
    "failures_told",
    "has_checkpoint",
    "locked",
    "on_rank_0",
    "open_checkpoint",
    "test",
    "train",
    "train_two_steps",
    "tune_batch_size",
    "tune_lr",
]
