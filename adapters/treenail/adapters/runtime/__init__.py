"""A whole run from its config: training, test, export."""

from treenail.adapters.runtime.assemble import Assembly, assemble
from treenail.adapters.runtime.run import Summary, export, test, train
from treenail.adapters.runtime.workdir import CHECKPOINTS, choose_work_dir, has_checkpoint, locked

__all__ = [
    "CHECKPOINTS",
    "Assembly",
    "Summary",
    "assemble",
    "choose_work_dir",
    "export",
    "has_checkpoint",
    "locked",
    "test",
    "train",
]
