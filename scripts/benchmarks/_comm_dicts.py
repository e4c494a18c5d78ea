"""The benchmark `comm`: many scalars reduced over ranks, and what it costs that ranks agree on a collective."""

from __future__ import annotations

from typing import TypeAlias

import torch
import torch.distributed as dist
from scripts.benchmarks._comm_peers import MMENGINE
from scripts.benchmarks._comm_race import Contestant, Times, race
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from treenail.adapters.comm.reductions import all_reduce_dict
from treenail.kernel import Communicator

Scalars: TypeAlias = dict[str, Tensor]


def race_dicts(communicator: Communicator, count: int, rounds: int, calls: int) -> dict[str, dict[str, Times]]:
    """Sum up `count` scalars over ranks: tensors without a dimension, and Python's floats."""
    rank, world_size = communicator.rank, communicator.world_size
    names = [f"metric/{number}" for number in range(count)]
    total = world_size * (world_size + 1) / 2

    def tensors() -> Scalars:
        return {name: torch.tensor(number * (rank + 1.0)) for number, name in enumerate(names)}

    def floats() -> dict[str, float]:
        return {name: number * (rank + 1.0) for number, name in enumerate(names)}

    def check(found: dict[str, Tensor] | dict[str, float]) -> None:
        assert {name: float(value) for name, value in found.items()} == {
            name: number * total for number, name in enumerate(names)
        }

    def one_by_one(values: Scalars) -> Scalars:
        for value in values.values():
            dist.all_reduce(value)
        return values

    def one_by_one_floats(values: dict[str, float]) -> dict[str, float]:
        return {
            name: float(value) for name, value in one_by_one({k: torch.tensor(v) for k, v in values.items()}).items()
        }

    of_tensors = [
        Contestant("treenail all_reduce_dict", lambda values: all_reduce_dict(communicator, values), check, tensors),
        Contestant("torch, all_reduce in a loop", one_by_one, check, tensors),
    ]
    if MMENGINE:
        import mmengine.dist as theirs

        def mmengines(values: Scalars) -> Scalars:
            theirs.all_reduce_dict(values)
            return values

        of_tensors.append(Contestant("mmengine all_reduce_dict", mmengines, check, tensors))
    of_floats = [
        Contestant("treenail all_reduce_dict", lambda values: all_reduce_dict(communicator, values), check, floats),
        Contestant("torch, all_reduce in a loop", one_by_one_floats, check, floats),
    ]
    return {"tensors": race(of_tensors, rounds, calls), "floats": race(of_floats, rounds, calls)}


def collectives_of_a_dict(communicator: Communicator, count: int) -> list[str]:
    """Return the collectives that torch runs in one `all_reduce_dict` of `count` scalars."""
    values = {f"metric/{number}": torch.tensor(float(number)) for number in range(count)}
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        all_reduce_dict(communicator, values)
    return [event.name for event in profiled.events() or () if event.name.startswith("c10d::")]


def race_agreement(communicator: Communicator, rounds: int, calls: int) -> dict[str, Times]:
    """Sum up four numbers over ranks: ours, which agrees first, torch's, and the all_gather that the agreement is."""
    world_size = communicator.world_size
    content = torch.zeros(2048, dtype=torch.uint8)
    received = [torch.empty_like(content) for _ in range(world_size)]

    def check(found: Tensor) -> None:
        assert found.tolist() == [world_size] * 4

    def make() -> Tensor:
        return torch.ones(4)

    def torchs(tensor: Tensor) -> Tensor:
        dist.all_reduce(tensor)
        return tensor

    def gathers(_: object) -> None:
        dist.all_gather(received, content)

    def right(_: object) -> None:
        assert all(torch.equal(each, content) for each in received)

    contestants = [
        Contestant("treenail all_reduce, 4 numbers", communicator.all_reduce, check, make),
        Contestant("torch all_reduce, 4 numbers", torchs, check, make),
        Contestant("torch all_gather, 2 KiB", gathers, right),
        Contestant("treenail barrier", lambda _: communicator.barrier(), lambda _: None),
        Contestant("torch barrier", lambda _: dist.barrier(), lambda _: None),
    ]
    return race(contestants, rounds, calls)
