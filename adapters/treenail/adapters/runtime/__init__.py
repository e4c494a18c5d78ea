"""A whole run from its config: training, test, export."""

from treenail.adapters.runtime.assemble import Assembly, assemble
from treenail.adapters.runtime.changes import RESTARTABLE
from treenail.adapters.runtime.converting import SKIPPABLE, Conversion
from treenail.adapters.runtime.converting import convert as convert_checkpoint
from treenail.adapters.runtime.limits import LIMIT
from treenail.adapters.runtime.locks import locked
from treenail.adapters.runtime.predict import Predicted, predict
from treenail.adapters.runtime.ranks import RankRng, StopVote, failures_told, on_rank_0
from treenail.adapters.runtime.rollback import RollbackLoop
from treenail.adapters.runtime.run import Summary, fast_dev_run, train
from treenail.adapters.runtime.trained import export, open_checkpoint, test
from treenail.adapters.runtime.tuning import train_two_steps, tune_batch_size, tune_lr
from treenail.adapters.runtime.updates import build_groups, build_optimizer
from treenail.adapters.runtime.workdir import (
    CHECKPOINTS,
    Place,
    choose_place,
    choose_work_dir,
    has_checkpoint,
    is_path,
    own_name,
)

__all__ = [
    "CHECKPOINTS",
    "LIMIT",
    "RESTARTABLE",
    "SKIPPABLE",
    "Assembly",
    "Conversion",
    "Place",
    "Predicted",
    "RankRng",
    "RollbackLoop",
    "StopVote",
    "Summary",
    "assemble",
    "build_groups",
    "build_optimizer",
    "choose_place",
    "choose_work_dir",
    "convert_checkpoint",
    "export",
    "failures_told",
    "fast_dev_run",
    "has_checkpoint",
    "is_path",
    "locked",
    "on_rank_0",
    "open_checkpoint",
    "own_name",
    "predict",
    "test",
    "train",
    "train_two_steps",
    "tune_batch_size",
    "tune_lr",
]
