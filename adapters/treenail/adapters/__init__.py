"""Treenail's adapters: one subpackage a job. Importing this imports none of them."""

from treenail.adapters.declared import DATA, EVALUATION, FILES, HOOKS, TRAINING
from treenail.kernel import Adapter, Namespace

ADAPTERS: tuple[Adapter | Namespace, ...] = (*DATA, *TRAINING, *HOOKS, *EVALUATION, *FILES)
