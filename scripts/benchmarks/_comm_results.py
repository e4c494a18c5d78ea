"""The benchmark `comm`: results of samples, a dict for each, from all ranks to one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, TypeAlias

import torch
from scripts.benchmarks._comm_peers import ACCELERATE, MMENGINE, bare_gather, gather_object
from scripts.benchmarks._comm_race import Contestant, Times, race
from torch import Tensor

from treenail.adapters.comm.results import collect_results
from treenail.adapters.comm.samples import Samples, gather_samples
from treenail.adapters.comm.structures import gather_list
from treenail.kernel import Communicator

Item: TypeAlias = dict[str, Any]
"""What was found for a sample: tensors, numbers, strings."""

CLASSES = 10


def tensors_of(index: int) -> Item:
    """Return four small tensors."""
    return {
        "logits": torch.arange(CLASSES, dtype=torch.float32) + index,
        "box": torch.tensor([index, index + 1, index + 2, index + 3], dtype=torch.float32),
        "score": torch.tensor(index / 2),
        "label": torch.tensor(index % CLASSES),
    }


def numbers_of(index: int) -> Item:
    """Return four numbers."""
    return {"score": index / 2, "loss": index / 3, "label": index % CLASSES, "area": index * 4}


def mixed_of(index: int) -> Item:
    """Return numbers, a name, and tensors whose number of rows differs from sample to sample."""
    return {
        "boxes": torch.arange(4 * (index % 5), dtype=torch.float32).reshape(-1, 4),
        "labels": torch.arange(index % 5),
        "score": index / 2,
        "name": f"images/{index:06}.png",
    }


KINDS: dict[str, Callable[[int], Item]] = {
    "four tensors": tensors_of,
    "four numbers": numbers_of,
    "uneven tensors, a number, a name": mixed_of,
}


def race_results(communicator: Communicator, kind: str, count: int, rounds: int) -> dict[str, Times]:
    """Gather `count` dicts of each rank.

    Args:
        communicator: The ranks.
        kind: What is in the dicts.
        count: How many each rank has: rank r every world_size-th sample from r on.
        rounds: Rounds that are counted.
    """
    rank, world_size = communicator.rank, communicator.world_size
    make = KINDS[kind]
    indices = list(range(rank, count * world_size, world_size))
    own = [make(index) for index in indices]
    by_rank = list(chain.from_iterable(range(each, count * world_size, world_size) for each in range(world_size)))
    by_sample = list(range(count * world_size))

    def are(order: list[int]) -> Callable[[list[Item] | None], None]:
        def check(found: list[Item] | None) -> None:
            if rank == 0:
                _check(found, [make(index) for index in order])

        return check

    def check_samples(found: Samples[list[Item]] | None) -> None:
        if found is not None:
            assert found.indices.tolist() == by_sample
        are(by_sample)(None if found is None else found.values)

    def torchs(_: object) -> list[Item] | None:
        parts = gather_object(own)
        return None if parts is None else list(chain.from_iterable(parts))

    contestants = [
        Contestant("treenail gather_list", lambda _: gather_list(communicator, own), are(by_rank)),
        Contestant("treenail gather_samples", lambda _: gather_samples(communicator, own, indices), check_samples),
        Contestant(
            "treenail collect_results", lambda _: collect_results(communicator, own, len(by_sample)), are(by_sample)
        ),
        Contestant("torch gather_object", torchs, are(by_rank)),
    ]
    if MMENGINE:
        import mmengine.dist as theirs

        for device, name in (("cpu", "mmengine collect_results"), ("gpu", "mmengine collect_results, gpu way")):
            contestants.append(
                Contestant(
                    name,
                    lambda _, device=device: theirs.collect_results(own, len(by_sample), device),  # type: ignore[misc]
                    are(by_sample),
                )
            )
    if ACCELERATE:
        from accelerate.utils import gather_object as accelerates

        contestants.append(Contestant("accelerate gather_object", lambda _: accelerates(own), are(by_rank)))
    by_hand = {"four tensors": _tensors_by_hand, "four numbers": _numbers_by_hand}.get(kind)
    if by_hand is not None:
        contestants.append(Contestant("packed by hand", lambda _: by_hand(own), are(by_rank)))
    return race(contestants, rounds)


def _tensors_by_hand(items: list[Item]) -> list[Item] | None:
    """Gather what is known to be four tensors of known shapes: as little as can be done for these dicts."""
    columns = {key: torch.stack([item[key] for item in items]) for key in items[0]}
    parts = {key: list(gathered) for key, column in columns.items() if (gathered := bare_gather(column)) is not None}
    if not parts:
        return None
    values = [torch.cat(parts[key]).unbind() for key in columns]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def _numbers_by_hand(items: list[Item]) -> list[Item] | None:
    """Gather what is known to be two floats and two integers: as little as can be done for these dicts."""
    floats = torch.stack(
        [torch.tensor([item[key] for item in items], dtype=torch.float64) for key in ("score", "loss")]
    )
    integers = torch.stack([torch.tensor([item[key] for item in items]) for key in ("label", "area")])
    parts = bare_gather(torch.stack([floats.view(torch.int64), integers]))
    if parts is None:
        return None
    values = torch.cat(parts, dim=2)
    columns = [*values[0].view(torch.float64).tolist(), *values[1].tolist()]
    return [dict(zip(items[0], row, strict=True)) for row in zip(*columns, strict=True)]


def _check(found: list[Item] | None, expected: list[Item]) -> None:
    """Compare what rank 0 has with what it should.

    Raises:
        AssertionError: It is something else.
    """
    assert found is not None
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for key, value in other.items():
            assert type(one[key]) is type(value)
            if isinstance(value, Tensor):
                assert one[key].dtype == value.dtype
                assert torch.equal(one[key], value)
            else:
                assert one[key] == value
