"""Schedules of the learning rate, momentum and any other parameter of an optimizer's groups.

Each is a closed-form function of the step; those on the same parameter multiply. All have the interface of torch's
schedulers, and may act beside them. `treenail.adapters.schedule.compat` has mmengine's names and arguments.
"""

from treenail.adapters.schedule.curves import Annealing, Curve, DecayShape
from treenail.adapters.schedule.params import read_param, scheduled_params, unwrapped
from treenail.adapters.schedule.plateau import ReduceOnPlateau
from treenail.adapters.schedule.schedule import Interval, Schedule, Together
from treenail.adapters.schedule.shapes import (
    Constant,
    Cosine,
    CosineRestarts,
    Exponential,
    Linear,
    MultiStep,
    OneCycle,
    Polynomial,
    Shape,
    Step,
    WarmupStableDecay,
)

__all__ = [
    "Annealing",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Curve",
    "DecayShape",
    "Exponential",
    "Interval",
    "Linear",
    "MultiStep",
    "OneCycle",
    "Polynomial",
    "ReduceOnPlateau",
    "Schedule",
    "Shape",
    "Step",
    "Together",
    "WarmupStableDecay",
    "read_param",
    "scheduled_params",
    "unwrapped",
]
