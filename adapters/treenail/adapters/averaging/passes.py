"""Averaging many tensors in one pass over memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

# Elements that are converted at a time: few enough to stay in a cache, and a bound on the memory that converting takes.
_CHUNK = 2**18


def is_spread(tensor: Tensor) -> TypeGuard[DTensor]:
    """Tell whether a tensor is a DTensor, without importing its class, which takes a second."""
    return hasattr(tensor, "to_local")


def local(tensor: Tensor) -> Tensor:
    """Return what this rank has of a tensor, sharing its memory."""
    return tensor.to_local() if is_spread(tensor) else tensor


def spread_like(part: Tensor, whole: Tensor) -> Tensor:
    """Return this rank's part as a tensor that is spread over ranks as another one is, if that is spread at all."""
    if not is_spread(whole):
        return part
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        part, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


def part_of(whole: Tensor, target: Tensor) -> Tensor:
    """Return this rank's part of a tensor that is spread over ranks as the target is, or is whole on every rank."""
    if is_spread(target) and not is_spread(whole):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(whole.to(target.device), target.device_mesh, target.placements).to_local()
    return local(whole)


def dtype_of_average(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which tensors are averaged: their own, but numbers of at least 32 bits.

    A step towards new weights is often smaller than the distance of two 16-bit numbers, and would be rounded away.
    """
    if dtype.is_complex:
        return torch.promote_types(dtype, torch.complex64)
    return torch.float32 if dtype.is_floating_point and dtype.itemsize < 4 else dtype


class FusedLerp:
    """Moves averages towards sources: all tensors of a dtype and device in one call of torch's `_foreach_lerp_`.

    The lists are made once and used until the tensors are others. Sources of another dtype or device, and those that are
    spread over ranks, are converted a few at a time.

    Args:
        pairs: (average, source): the average a plain tensor of the shape of what this rank has of the source.
    """

    def __init__(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        direct: dict[tuple[torch.dtype, torch.device], tuple[list[Tensor], list[Tensor]]] = {}
        converted: list[tuple[Tensor, Tensor]] = []
        for average, source in pairs:
            kind = average.dtype, average.device
            if is_spread(source) or (source.dtype, source.device) != kind:
                converted.append((average, source))
                continue
            averages, sources = direct.setdefault(kind, ([], []))
            averages.append(average)
            sources.append(source)
        self._direct = list(direct.values())
        self._chunks = list(_chunks(converted))

    @torch.no_grad()
    def move(self, weight: float) -> None:
        """Make the averages (1 - weight) · averages + weight · sources.

        Args:
            weight: From 0 to 1, of the sources.
        """
        for averages, sources in self._direct:
            torch._foreach_lerp_(averages, sources, weight)
        for averages, sources in self._chunks:
            torch._foreach_lerp_(averages, _converted(averages, sources), weight)

    @torch.no_grad()
    def copy(self) -> None:
        """Make the averages equal to the sources."""
        for averages, sources in self._direct:
            torch._foreach_copy_(averages, sources)
        for averages, sources in self._chunks:
            torch._foreach_copy_(averages, [local(source) for source in sources])


def _converted(averages: list[Tensor], sources: list[Tensor]) -> list[Tensor]:
    pairs = zip(averages, sources, strict=True)
    return [local(source).to(average.device, average.dtype) for average, source in pairs]


def _chunks(pairs: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    averages: list[Tensor] = []
    sources: list[Tensor] = []
    elements = 0
    for average, source in pairs:
        mixed = averages and (average.dtype, average.device) != (averages[0].dtype, averages[0].device)
        if averages and (mixed or elements + average.numel() > _CHUNK):
            yield averages, sources
            averages, sources, elements = [], [], 0
        averages.append(average)
        sources.append(source)
        elements += average.numel()
    if averages:
        yield averages, sources
