"""Automatic mixed precision: what is computed in which type, and the scale of losses in float16."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]
ScalerSettings: TypeAlias = Mapping[str, float]


def autocast_dtype(precision: Precision, device: str) -> torch.dtype | None:
    """Return what autocast computes in, or None where it is not used.

    Raises:
        ValueError: There is no such precision, or none on this kind of device.
    """
    dtypes: dict[Precision, torch.dtype | None] = {
        "float32": None,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
    }
    if precision not in dtypes:
        raise ValueError(f"precision is {precision!r}, must be one of {', '.join(dtypes)}")
    if dtypes[precision] is not None and not torch.amp.is_autocast_available(device):
        raise ValueError(f"torch has no automatic mixed precision on {device}; use precision float32")
    return dtypes[precision]


def grad_scaler(loss_scale: str | float | ScalerSettings, device: str) -> torch.amp.GradScaler:
    """Return the scaler of losses in float16.

    Args:
        loss_scale: dynamic for torch's defaults, the scale to begin with, or its arguments.
        device: Kind of device.

    Raises:
        ValueError: The scale is something else, or an argument is out of its range.
    """
    if isinstance(loss_scale, str):
        if loss_scale != "dynamic":
            raise ValueError(f"loss_scale is '{loss_scale}', must be 'dynamic', a number or GradScaler's arguments")
        return torch.amp.GradScaler(device)
    if isinstance(loss_scale, Mapping):
        known = ("init_scale", "growth_factor", "backoff_factor", "growth_interval")
        unknown = [name for name in loss_scale if name not in known]
        if unknown:
            raise ValueError(f"loss_scale has '{unknown[0]}', torch's GradScaler knows {', '.join(known)}")
        for name, value in loss_scale.items():
            _check(f"loss_scale's {name}", name, value)
        settings = {name: int(value) if name == "growth_interval" else value for name, value in loss_scale.items()}
        return torch.amp.GradScaler(device, **settings)  # type: ignore[arg-type]  # names were looked at above
    _check("loss_scale", "init_scale", loss_scale)
    return torch.amp.GradScaler(device, init_scale=float(loss_scale))


def _check(title: str, name: str, value: float) -> None:
    number = float(value) if isinstance(value, float | int) and not isinstance(value, bool) else math.nan
    right, wanted = {
        "init_scale": (0 < number < math.inf, "a positive number"),
        "growth_factor": (1 < number < math.inf, "a number above 1"),
        "backoff_factor": (0 < number < 1, "a number between 0 and 1"),
        "growth_interval": (number >= 1 and number.is_integer(), "a whole number of at least 1"),
    }[name]
    if not right:
        raise ValueError(f"{title} is {value!r}, must be {wanted}")
