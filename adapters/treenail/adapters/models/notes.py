"""What initialised which parameter, as the log tells it."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn


class ParameterNote(NamedTuple):
    """What is known of a parameter while weights are initialised.

    Args:
        text: What initialised it last, for people.
        value: Its `fingerprint` then.
    """

    text: str
    value: tuple[float, float]


def fingerprint(tensor: Tensor) -> tuple[float, float]:
    """Return two numbers that change with a tensor's values."""
    values = tensor.detach()
    if values.is_complex():
        values = torch.view_as_real(values)
    return float(values.sum(dtype=torch.float64)), float(values.double().square().sum())


def update_init_info(module: nn.Module, init_info: str) -> None:
    """Note what has initialised those parameters of a module whose values have changed since they were looked at.

    Args:
        module: With ``_params_init_info``, which it has while an `init_weights` above or of its own runs.
        init_info: What did it.

    Raises:
        ValueError: It has none, or a parameter that was not there before.
    """
    notes = cast("dict[nn.Parameter, ParameterNote] | None", module.__dict__.get("_params_init_info"))
    if notes is None:
        raise ValueError(f"no init_weights runs that notes what it does to {type(module).__name__}")
    for name, parameter in module.named_parameters():
        if parameter not in notes:
            raise ValueError(
                f"the parameter '{name}' of {type(module).__name__} was added or replaced by an init_weights, which shall "
                "change values alone"
            )
        if (value := fingerprint(parameter)) != notes[parameter].value:
            notes[parameter] = ParameterNote(init_info, value)
