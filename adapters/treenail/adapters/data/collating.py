"""Batches whose samples are not stacked, for images of unlike sizes and whatever else fits into no tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def collate_lists(samples: Sequence[Any]) -> Any:  # Any: the structure of a sample, with a list of values in each place
    """Put samples together as mmengine's `pseudo_collate` does: what is in them is listed, place by place, and not stacked.

    Args:
        samples: All of one structure: of mappings, tuples and lists.

    Raises:
        ValueError: They have different numbers of parts.
    """
    first = samples[0]
    if isinstance(first, Mapping):
        return {key: collate_lists([sample[key] for sample in samples]) for key in first}
    if isinstance(first, tuple | list):
        if len({len(sample) for sample in samples}) > 1:
            raise ValueError(
                f"samples of a chunk have {sorted({len(sample) for sample in samples})} parts; give as many"
            )
        columns: Iterator[Any] = (collate_lists(column) for column in zip(*samples, strict=True))
        make = getattr(first, "_make", list)
        return make(columns)
    return samples
