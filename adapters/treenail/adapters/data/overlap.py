"""Batches that are copied to a GPU while it works on the one before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from treenail.adapters.data.indexed import IndexedBatch
from treenail.adapters.optim import moved


def copied_ahead(batches: Iterator[object], device: torch.device) -> Iterator[object]:
    """Yield batches on a CUDA device, each copied while the one before it is at work.

    The copies run on a stream of their own, which only what lies in page-locked memory does beside the work. The stream that
    is current when a batch is asked for waits for its copy. What an iterator raises comes when that batch is asked for.

    Args:
        batches: Tensors at any depth of tuples, lists and mappings.
        device: Where they are wanted.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-streams (on streams and `Tensor.record_stream`).
    """
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch has not annotated it
    current = _copy(batches, device, stream)
    while current is not None:
        following = None if isinstance(current, Exception) else _copy(batches, device, stream)
        if isinstance(current, Exception):
            raise current
        working = torch.cuda.current_stream(device)
        working.wait_event(current.done)
        for tensor in _tensors(current.batch):
            if tensor.is_cuda:
                tensor.record_stream(
                    working
                )  # its memory is the copying stream's, and must not go back there too early
        yield current.batch
        current = following


class _Copied(NamedTuple):
    batch: object
    done: torch.cuda.Event


def _copy(batches: Iterator[object], device: torch.device, stream: torch.cuda.Stream) -> _Copied | Exception | None:
    """Begin to copy the next batch; None where there is none."""
    try:
        batch = next(batches)
    except StopIteration:
        return None
    except Exception as error:  # it belongs to a step that is not yet to be made
        return error
    with torch.cuda.stream(stream):
        # What tells samples is for the host.
        copied = (
            batch._replace(batch=moved(batch.batch, device))
            if isinstance(batch, IndexedBatch)
            else moved(batch, device)
        )
        return _Copied(copied, stream.record_event())


def _tensors(batch: object) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping | list | tuple):
        for value in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _tensors(value)
