"""Loops: training by epoch, validation and test."""

from treenail.adapters.loops.evaluate import EvalLoop
from treenail.adapters.loops.train import EpochLoop

__all__ = ["EpochLoop", "EvalLoop"]
