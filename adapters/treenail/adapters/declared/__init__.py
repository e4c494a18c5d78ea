"""What this package declares for each port, as data; the components are imported when they are named."""

from treenail.adapters.declared.data import DATA
from treenail.adapters.declared.evaluation import EVALUATION
from treenail.adapters.declared.files import FILES
from treenail.adapters.declared.hooks import HOOKS
from treenail.adapters.declared.training import TRAINING

__all__ = ["DATA", "EVALUATION", "FILES", "HOOKS", "TRAINING"]
