"""Loops: training by epoch and by step, validation, test and prediction."""

from treenail.adapters.loops.evaluate import EvalLoop, EvalSets
from treenail.adapters.loops.intervals import ValidationIntervals
from treenail.adapters.loops.iterations import IterBasedTrainLoop
from treenail.adapters.loops.passes import length_of, train_steps
from treenail.adapters.loops.predict import PredictLoop
from treenail.adapters.loops.steps import StepLoop
from treenail.adapters.loops.train import EpochLoop

__all__ = [
    "EpochLoop",
    "EvalLoop",
    "EvalSets",
    "IterBasedTrainLoop",
    "PredictLoop",
    "StepLoop",
    "ValidationIntervals",
    "length_of",
    "train_steps",
]
