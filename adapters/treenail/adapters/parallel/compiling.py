"""torch.compile of a model as it is called in training."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from treenail.adapters.parallel.world import device_of
from treenail.kernel import ConfigError

CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]


def compiled(
    module: nn.Module, *, mode: CompileMode = "default", fullgraph: bool = False, dynamic: bool | None = None
) -> nn.Module:
    """Wrap a module in torch.compile; `bare` gives it back, with the names that it had.

    Forward and backward pass become fewer and larger kernels, whose results are those of the module but for rounding.
    The first batch is compiled, and so is the first of another size, for sizes of any kind; later ones are not, but for
    a batch of one sample.

    Args:
        module: As it is called in training: parallelised first, so that gradients are reduced while the backward pass
            goes on.
        mode: ``reduce-overhead`` replays CUDA graphs, ``max-autotune`` tries kernels for the fastest.
        fullgraph: Refuse what cannot be compiled as a whole, where torch would go on in parts.
        dynamic: True expects sizes to change from the first batch on, False compiles each size for itself; None finds
            out.

    Raises:
        ConfigError: Nothing can be compiled here, for want of a compiler most often.
        ValueError: The module lies on several devices.
    """
    device = device_of(module)
    try:
        torch.compile(_probe)(torch.ones(2, device=device))
    except Exception as error:  # torch's own have no common base
        raise ConfigError(
            f"torch.compile makes no code for {device.type} here: {' '.join(str(error).split())[:200]}",
            mend="install a C++ compiler, for GPUs Triton too; or leave out compile",
        ) from error
    return cast("nn.Module", torch.compile(module, mode=mode, fullgraph=fullgraph, dynamic=dynamic))


def _probe(values: Tensor) -> Tensor:
    return values + 1
