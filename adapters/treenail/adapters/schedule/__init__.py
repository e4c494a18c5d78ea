"""Schedules of the learning rate, momentum and any other parameter of an optimizer's groups.

Each is a closed-form function of the step; those on the same parameter multiply. All have the interface of torch's
schedulers, and may act beside them. `treenail.adapters.schedule.compat` has mmengine's names and arguments.
"""

from treenail.adapters.schedule.curves import Annealing, Curve, DecayShape
from treenail.adapters.schedule.plateau import ReduceOnPlateau
from treenail.adapters.schedule.schedule import Interval, Schedule
from treenail.adapters.schedule.shapes import (
    constant,
    cosine,
    cosine_restarts,
    exponential,
    linear,
    multi_step,
    one_cycle,
    polynomial,
    step,
    wsd,
)

__all__ = [
    "Annealing",
    "Curve",
    "DecayShape",
    "Interval",
    "ReduceOnPlateau",
    "Schedule",
    "constant",
    "cosine",
    "cosine_restarts",
    "exponential",
    "linear",
    "multi_step",
    "one_cycle",
    "polynomial",
    "step",
    "wsd",
]
