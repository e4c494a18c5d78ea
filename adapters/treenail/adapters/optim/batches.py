"""Batches: what is in them, where they lie, and their parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from treenail.kernel import TrainingError


class MicroBatch(NamedTuple):
    """A part of a batch.

    Args:
        inputs: [samples, …].
        targets: [samples, …].
        samples: How many of them count; 0 where a rank has fewer samples than there are parts, and repeats one.
        last: Whether it is the last part.
    """

    inputs: Tensor
    targets: Tensor
    samples: int
    last: bool


def micro_batches(inputs: Tensor, targets: Tensor, samples: int, parts: int) -> Iterator[MicroBatch]:
    """Split a batch, without copying, into parts that differ by one sample at most; the larger ones come first.

    Args:
        inputs: [at least 1, …].
        targets: [as many, …].
        samples: How many of them count.
        parts: How many.

    Raises:
        TrainingError: Inputs and targets are of different lengths.
    """
    if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets):
        raise TrainingError(
            f"inputs of shape {list(inputs.shape)} and targets of shape {list(targets.shape)} cannot be split alike",
            mend="the first dimension of both is the batch; else leave out accumulative_counts",
        )
    begin = 0
    for index in range(parts):
        size = samples // parts + (index < samples % parts)
        rows = slice(begin, begin + size) if size else slice(0, 1)
        yield MicroBatch(inputs[rows], targets[rows], size, last=index == parts - 1)
        begin += size


def as_pair(batch: object, device: torch.device | None) -> tuple[Tensor, Tensor]:
    """Check that a batch is (inputs, targets) and move it.

    Raises:
        TrainingError: It is something else.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise TrainingError(f"a batch is a {describe(batch)}", mend="let the dataset return (input, target) pairs")
    inputs, targets = batch
    if not isinstance(inputs, Tensor) or not isinstance(targets, Tensor):
        raise TrainingError(
            f"a batch is ({describe(inputs)}, {describe(targets)})",
            mend="let the dataset return pairs that collate to two tensors",
        )
    if device is not None:
        return inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
    return inputs, targets


def moved(batch: object, device: torch.device) -> object:
    """Return a batch with its tensors on a device, at any depth of tuples, lists and mappings."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {name: moved(value, device) for name, value in batch.items()}
    if isinstance(batch, list):
        return [moved(value, device) for value in batch]
    if isinstance(batch, tuple):
        make = getattr(batch, "_make", tuple)  # of a named tuple
        return make(moved(value, device) for value in batch)
    return batch


def batch_size(batch: object) -> int:
    """Return how many samples a batch has: the length of the first tensor in it, 1 where there is none.

    Lists in a mapping without tensors hold a sample in each place.
    """
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.ndim else 1
    values = list(batch.values()) if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else []
    if isinstance(batch, Mapping) and not any(isinstance(value, Tensor) for value in values):
        listed = next((len(value) for value in values if isinstance(value, list)), None)
        if listed is not None:
            return listed
    return next((batch_size(value) for value in values if isinstance(value, Tensor | Mapping | tuple | list)), 1)


def equal_parts(batch: object, parts: int) -> list[object]:
    """Split a batch of any structure, without copying its tensors, into parts of as many samples.

    Samples are the rows of tensors, and the entries of lists in mappings or beside tensors; single values go to each part.

    Args:
        batch: A tensor, or tuples, lists and mappings of tensors and lists.
        parts: How many.

    Raises:
        TrainingError: Its tensors and lists are of different lengths, or of one that is no multiple of `parts`.
    """
    lengths = set(_lengths(batch, listed=False))
    if len(lengths) != 1:
        found = " and ".join(map(str, sorted(lengths))) or "no"
        raise TrainingError(
            f"a {describe(batch)} with {found} samples cannot be split into micro-batches",
            mend="let all its tensors and lists have a row for each sample, or leave out accumulative_counts",
        )
    (samples,) = lengths
    if samples % parts:
        raise TrainingError(
            f"{samples} samples are no equal parts of {parts} micro-batches, which a train_step averages as equals",
            mend=f"let each rank's share of batch_size be a multiple of {parts}, with drop_last: true",
        )
    size = samples // parts
    return [_rows(batch, slice(begin, begin + size), listed=False) for begin in range(0, samples, size)]


def _lengths(value: object, *, listed: bool) -> Iterator[int]:
    if isinstance(value, Tensor):
        if value.ndim:
            yield len(value)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _lengths(each, listed=True)
    elif isinstance(value, tuple | list):
        if listed:
            yield len(value)
        else:
            for each in value:
                yield from _lengths(each, listed=_holds_samples(each))


def _rows(value: object, rows: slice, *, listed: bool) -> object:
    if isinstance(value, Tensor):
        return value[rows] if value.ndim else value
    if isinstance(value, Mapping):
        return {name: _rows(each, rows, listed=True) for name, each in value.items()}
    if not isinstance(value, tuple | list):
        return value
    if listed:
        return value[rows]
    parts = [_rows(each, rows, listed=_holds_samples(each)) for each in value]
    return getattr(value, "_make", type(value))(parts)


def _holds_samples(value: object) -> bool:
    """Tell a list of samples beside tensors from a pair of tensors."""
    return isinstance(value, list) and not any(isinstance(each, Tensor) for each in value)


def describe(value: object) -> str:
    """Name a value's type, with the length of a sequence."""
    size = f" of {len(value)}" if isinstance(value, tuple | list | dict) else ""
    return type(value).__name__ + size
