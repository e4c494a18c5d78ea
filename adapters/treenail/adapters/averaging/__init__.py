"""Averages of a model's weights: exponential, annealed and uniform, seen through views that leave the training alone."""

from treenail.adapters.averaging.batchnorm import layers_with_statistics, update_bn
from treenail.adapters.averaging.kinds import (
    Curve,
    annealed_average,
    annealed_rule,
    constant_rule,
    exponential_average,
    uniform_average,
    uniform_rule,
)
from treenail.adapters.averaging.state import load_averages, read_averages
from treenail.adapters.averaging.weights import Buffers, Rule, WeightAverages

__all__ = [
    "Buffers",
    "Curve",
    "Rule",
    "WeightAverages",
    "annealed_average",
    "annealed_rule",
    "constant_rule",
    "exponential_average",
    "layers_with_statistics",
    "load_averages",
    "read_averages",
    "uniform_average",
    "uniform_rule",
    "update_bn",
]
