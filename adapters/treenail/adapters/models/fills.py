"""Fill the weights and biases of single modules."""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor, nn

Distribution = Literal["normal", "uniform"]
FanMode = Literal["fan_in", "fan_out"]
Nonlinearity = Literal["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]


def _fill(module: nn.Module, weight: Any, bias: float) -> None:  # Any: one of torch.nn.init's, with its arguments
    for name, fill in (("weight", weight), ("bias", lambda tensor: nn.init.constant_(tensor, bias))):
        tensor = getattr(module, name, None)
        if isinstance(tensor, Tensor):
            fill(tensor)


def constant_init(module: nn.Module, val: float, bias: float = 0) -> None:
    """Fill a module's weight and bias, where it has them.

    Args:
        module: What is initialised.
        val: Of the weight.
        bias: Of the bias.
    """
    _fill(module, lambda tensor: nn.init.constant_(tensor, val), bias)


def xavier_init(module: nn.Module, gain: float = 1, bias: float = 0, distribution: Distribution = "normal") -> None:
    """Initialise a module's weight as Glorot and Bengio do (2010, "Understanding the difficulty of training deep …").

    Args:
        module: What is initialised.
        gain: Factor of the standard deviation.
        bias: Of the bias.
        distribution: normal or uniform.

    Raises:
        ValueError: There is no such distribution.
    """
    fill = _either(distribution, nn.init.xavier_normal_, nn.init.xavier_uniform_)
    _fill(module, lambda tensor: fill(tensor, gain=gain), bias)


def normal_init(module: nn.Module, mean: float = 0, std: float = 1, bias: float = 0) -> None:
    """Draw a module's weight from a normal distribution.

    Args:
        module: What is initialised.
        mean: Of the distribution.
        std: Its standard deviation.
        bias: Of the bias.
    """
    _fill(module, lambda tensor: nn.init.normal_(tensor, mean, std), bias)


def trunc_normal_init(
    module: nn.Module, mean: float = 0, std: float = 1, a: float = -2, b: float = 2, bias: float = 0
) -> None:
    """Draw a module's weight from a normal distribution without its tails.

    Args:
        module: What is initialised.
        mean: Of the whole distribution.
        std: Its standard deviation.
        a: The least value.
        b: The greatest value.
        bias: Of the bias.
    """
    _fill(module, lambda tensor: nn.init.trunc_normal_(tensor, mean, std, a, b), bias)


def uniform_init(module: nn.Module, a: float = 0, b: float = 1, bias: float = 0) -> None:
    """Draw a module's weight from a uniform distribution.

    Args:
        module: What is initialised.
        a: The least value.
        b: The greatest value.
        bias: Of the bias.
    """
    _fill(module, lambda tensor: nn.init.uniform_(tensor, a, b), bias)


def kaiming_init(
    module: nn.Module,
    a: float = 0,
    mode: FanMode = "fan_out",
    nonlinearity: Nonlinearity = "relu",
    bias: float = 0,
    distribution: Distribution = "normal",
) -> None:
    """Initialise a module's weight as He et al. do (2015, "Delving deep into rectifiers").

    Args:
        module: What is initialised.
        a: Negative slope of a leaky ReLU behind it.
        mode: Keep variances in the forward pass (fan_in) or in the backward pass.
        nonlinearity: What comes behind it, as torch names it.
        bias: Of the bias.
        distribution: normal or uniform.

    Raises:
        ValueError: There is no such distribution.
    """
    fill = _either(distribution, nn.init.kaiming_normal_, nn.init.kaiming_uniform_)
    _fill(module, lambda tensor: fill(tensor, a=a, mode=mode, nonlinearity=nonlinearity), bias)


def caffe2_xavier_init(module: nn.Module, bias: float = 0) -> None:
    """Initialise a module's weight as Caffe2's XavierFill does: uniform, by the number of inputs.

    Args:
        module: What is initialised.
        bias: Of the bias.
    """
    kaiming_init(module, a=1, mode="fan_in", nonlinearity="leaky_relu", bias=bias, distribution="uniform")


def bias_init_with_prob(prior_prob: float) -> float:
    """Return the bias with which a sigmoid gives a probability at first (Lin et al., 2017, "Focal loss", section 4.1).

    Args:
        prior_prob: The probability.

    Raises:
        ValueError: It is not between 0 and 1.
    """
    if not 0 < prior_prob < 1:
        raise ValueError(f"a prior probability is {prior_prob!r}, must be between 0 and 1")
    return -math.log((1 - prior_prob) / prior_prob)


def _either(distribution: str, normal: Any, uniform: Any) -> Any:  # Any: functions of torch.nn.init
    if distribution not in ("normal", "uniform"):
        raise ValueError(f"distribution is {distribution!r}, must be normal or uniform")
    return normal if distribution == "normal" else uniform
