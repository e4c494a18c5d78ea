"""Averages of a model's weights: exponential, annealed and uniform, seen through views that leave the training alone."""

from treenail.adapters.averaging.batchnorm import update_bn
from treenail.adapters.averaging.kinds import annealed_average, exponential_average, uniform_average
from treenail.adapters.averaging.state import load_averages
from treenail.adapters.averaging.weights import Buffers, Rule, WeightAverages

__all__ = [
    "Buffers",
    "Rule",
    "WeightAverages",
    "annealed_average",
    "exponential_average",
    "load_averages",
    "uniform_average",
    "update_bn",
]
