"""Clipping of gradients, and the norm of those of which ranks hold parts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn

from treenail.kernel import TrainingError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor


def clip_grad_norm(
    parameters: Iterable[nn.Parameter],
    max_norm: float | None,
    norm_type: float = 2.0,
    *,
    error_if_nonfinite: bool = False,
    only_finite: bool = False,
) -> Tensor:
    """Scale gradients so that their norm over all parameters is at most `max_norm`, as one process would.

    `torch.nn.utils.clip_grad_norm_` does so where all gradients are plain, or DTensors on one mesh; where layers are
    split by a plan, some are and some are not.

    Args:
        parameters: All that the norm is over, the same on every rank.
        max_norm: The largest norm to leave; None measures only.
        norm_type: p of the p-norm; may be inf.
        error_if_nonfinite: Refuse a norm that is not finite.
        only_finite: Leave gradients as they are where their norm is not finite; that waits for a GPU.

    Returns:
        float[]: The norm as it was, a plain tensor, equal on all ranks.

    Raises:
        RuntimeError: The norm is not finite, and `error_if_nonfinite`.
        TrainingError: A gradient is sparse.
    """
    meshes: dict[DeviceMesh | None, list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            _refuse_sparse(parameter.grad)
            meshes.setdefault(getattr(parameter.grad, "device_mesh", None), []).append(parameter)
    if not meshes:
        return torch.zeros(())
    groups = [[p.grad for p in group if p.grad is not None] for group in meshes.values()]
    if norm_type == math.inf:
        total = _largest([gradient for group in groups for gradient in group])
    else:
        norms = [_whole(torch.nn.utils.get_total_norm(group, norm_type)) for group in groups]
        total = norms[0]
        if len(norms) > 1:
            total = torch.linalg.vector_norm(torch.stack([norm.to(total.device) for norm in norms]), norm_type)
    if error_if_nonfinite and not total.isfinite():
        raise RuntimeError(f"the norm of the gradients is {float(total)}")
    if max_norm is not None and not (only_finite and not total.isfinite()):
        for group in meshes.values():
            torch.nn.utils.clip_grads_with_norm_(group, max_norm, total)
    return total


def clip_grad_value(parameters: Iterable[nn.Parameter], clip_value: float) -> None:
    """Let no number of the gradients be larger than a value, nor smaller than its negative.

    Args:
        parameters: Those whose gradients are changed.
        clip_value: The largest absolute value to leave.

    Raises:
        TrainingError: A gradient is sparse.
    """
    clipped = [parameter for parameter in parameters if parameter.grad is not None]
    for parameter in clipped:
        _refuse_sparse(parameter.grad)
    torch.nn.utils.clip_grad_value_(clipped, clip_value)


def _refuse_sparse(gradient: Tensor | None) -> None:
    if gradient is not None and gradient.is_sparse:
        raise TrainingError(
            f"a parameter of shape {list(gradient.shape)} has a sparse gradient, which torch neither clips nor measures",
            mend="make its embedding with sparse=False, or leave gradients as they are",
        )


def _largest(gradients: list[Tensor]) -> Tensor:
    """Return the largest absolute value.

    On a rank that holds nothing of a tensor torch's own norm fails, while the other ranks wait for it.
    """
    own = [gradient.to_local() if _is_dtensor(gradient) else gradient for gradient in gradients]
    largest = torch.stack([part.abs().max() if part.numel() else part.new_zeros(()) for part in own]).max()
    if any(map(_is_dtensor, gradients)):
        dist.all_reduce(largest, dist.ReduceOp.MAX)  # what several ranks hold counts no more than once
    return largest


def _whole(norm: Tensor) -> Tensor:
    return norm.full_tensor() if _is_dtensor(norm) else norm


def _is_dtensor(tensor: Tensor) -> TypeGuard[DTensor]:
    return hasattr(tensor, "to_local")  # the class is not imported for those that have none
