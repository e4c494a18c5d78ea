"""Adam by torch's fused kernels, where a config leaves the choice."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from treenail.kernel import BuildError, Late

_FUSED = (Adam, AdamW)
"""Of the optimizers with fused kernels those that take no sparse gradients, which no parameter announces."""

_CHOICES = ("fused", "foreach", "differentiable", "capturable")


def fastest(
    make: Late[Iterable[nn.Parameter], Optimizer], parameters: Iterable[nn.Parameter]
) -> Late[Iterable[nn.Parameter], Optimizer]:
    """Return an optimizer with ``fused=True`` where it is Adam or AdamW, its config says nothing of it and torch can do it.

    The fused kernels go once over memory where torch's default on CPUs is a loop of a dozen operations a parameter, on
    GPUs one of as many for all of them (foreach). They round otherwise: after a step a weight may differ in its last bit.

    Args:
        make: Any optimizer; others than those come back as they are. One that takes another as its ``optimizer`` has
            that one looked at.
        parameters: What it is made for; nothing changes them.
    """
    parameters = list(parameters)
    inner = make.kwargs.get("optimizer")
    if isinstance(inner, Late):  # of one around another, such as ZeRO's
        chosen = {**make.kwargs, "optimizer": fastest(inner, parameters)}
        return Late(make.target, make.args, chosen, awaited=make.awaited, where=make.where)
    if make.target not in _FUSED or any(name in make.kwargs for name in _CHOICES):
        return make
    if len({getattr(each, "device_mesh", None) for each in parameters}) > 1:
        return make  # one kernel takes no mixture of DTensors and others
    fused = make.filled(fused=True)
    kinds = {(each.device, each.dtype) for each in parameters}
    return fused if all(_steps(fused, device, dtype) for device, dtype in kinds) else make


def _steps(make: Late[Iterable[nn.Parameter], Optimizer], device: torch.device, dtype: torch.dtype) -> bool:
    """Try a step: which devices and dtypes the kernels serve, torch says in no other public way."""
    parameter = nn.Parameter(torch.zeros(1, device=device, dtype=dtype))
    parameter.grad = torch.zeros_like(parameter)
    try:
        make.build([parameter]).step()
    except (BuildError, RuntimeError):
        return False
    return True
