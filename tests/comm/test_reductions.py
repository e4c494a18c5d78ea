"""Reductions over ranks: the values, their types, and what ranks that disagree are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.comm.worlds import on_ranks, refusal, same
from treenail.adapters.comm import SingleProcess
from treenail.adapters.comm.reductions import (
    all_reduce_dict,
    all_reduce_params,
    recv,
    reduce,
    reduce_scatter,
    send,
    sync_random_seed,
)
from treenail.kernel import Communicator

OPERATIONS: dict[str, Callable[[Sequence[Tensor]], Tensor]] = {
    "sum": lambda parts: torch.stack(list(parts)).sum(0),
    "product": lambda parts: torch.stack(list(parts)).prod(0),
    "min": lambda parts: torch.stack(list(parts)).amin(0),
    "max": lambda parts: torch.stack(list(parts)).amax(0),
}


@given(
    world_size=st.integers(1, 5),
    op=st.sampled_from(sorted(OPERATIONS)),
    width=st.sampled_from([0, 3, 9000]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=30)
def test_reduce_and_reduce_scatter_give_what_the_operation_says(
    world_size: int, op: str, width: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    data = torch.randint(-3, 4, (world_size, world_size, width), generator=generator, dtype=torch.float64)
    whole = OPERATIONS[op](list(data))

    def program(communicator: Communicator) -> None:
        rank, root = communicator.rank, seed % world_size
        mine = torch.nn.Parameter(data[rank].clone())
        assert same(reduce(communicator, mine, root, op), whole if rank == root else None)
        assert same(reduce_scatter(communicator, list(mine), op), whole[rank])
        assert torch.equal(mine, data[rank])

    on_ranks(world_size, program)


@given(
    world_size=st.integers(1, 5),
    shapes=st.lists(st.sampled_from([(), (0,), (3,), (2, 2), (30000,)]), max_size=5),
    dtypes=st.lists(st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.int8]), min_size=5, max_size=5),
)
@settings(deadline=None, max_examples=40)
def test_a_dict_is_reduced_value_by_value_and_keeps_types(
    world_size: int, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[torch.dtype]
) -> None:
    def values(rank: int) -> dict[str, Tensor | int | float | complex]:
        made: dict[str, Tensor | int | float | complex] = {
            f"t{place}": torch.full(shape, rank + place, dtype=dtype)
            for place, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=False))
        }
        made |= {"int": rank, "float": rank / 2, "complex": 1j * rank}
        return made if rank % 2 else dict(reversed(made.items()))

    def program(communicator: Communicator) -> None:
        mine = values(communicator.rank)
        found = all_reduce_dict(communicator, mine)
        assert list(found) == list(mine)
        total = sum(range(world_size))
        for key, value in mine.items():
            expected: object
            if isinstance(value, Tensor):
                place = int(key[1:])
                expected = torch.full(value.shape, total + place * world_size, dtype=value.dtype)
            else:
                expected = {"int": total, "float": total / 2, "complex": 1j * total}[key]
            assert same(found[key], expected)

    on_ranks(world_size, program)


def test_what_is_small_is_one_collective_and_what_is_large_one_more_for_each_dtype() -> None:
    def program(communicator: Communicator) -> list[int]:
        dicts: tuple[dict[str, Tensor | float], ...] = (
            {f"loss_{i}": float(i) for i in range(200)},
            {f"loss_{i}": torch.tensor(float(i)) for i in range(200)},
            {"a": torch.ones(40000), "b": torch.ones(9), "c": torch.ones(9, dtype=torch.int64), "d": 1.0},
        )
        acts: list[Callable[[], object]] = [partial(all_reduce_dict, communicator, values) for values in dicts]
        acts += [partial(reduce, communicator, tensor) for tensor in (torch.ones(3), torch.ones(40000))]
        return [_collectives(communicator, act) for act in acts]

    assert on_ranks(2, program) == [[1, 1, 4, 1, 2]] * 2


def _collectives(communicator: Communicator, act: Callable[[], object]) -> int:
    """Return how many collectives something takes."""
    before = _number(communicator)
    act()
    return _number(communicator) - before - 1


def _number(communicator: Communicator) -> int:
    """Return the number of the next collective, which stands in the message for a rank that does not exist."""
    try:
        communicator.gather(torch.ones(1), 99)
    except Exception as error:
        return int(str(error).split("collective ")[1].split()[0])
    raise AssertionError("there is no rank 99")


def test_ranks_whose_dicts_differ_are_told_the_keys() -> None:
    def by_rank(*choices: dict[str, object]) -> str:
        return refusal(len(choices), lambda communicator: all_reduce_dict(communicator, choices[communicator.rank]))  # type: ignore[type-var]  # they are wrong on purpose

    assert "'b': rank 1 lacks the key" in by_rank({"a": 1.0, "b": 2.0}, {"a": 1.0})
    assert "'b': rank 0 lacks the key" in by_rank({"a": 1.0}, {"a": 1.0, "b": 2.0})
    assert "'a': rank 1 has a int, rank 0 a float" in by_rank({"a": 1.0}, {"a": 1})
    assert "'a': rank 1 has float32[3], rank 0 float32[2]" in by_rank({"a": torch.ones(2)}, {"a": torch.ones(3)})
    large = torch.ones(70000)
    assert "'a': rank 1 has float64[70000], rank 0 float32[70000]" in by_rank({"a": large}, {"a": large.double()})
    assert "'a': a str is neither" in by_rank({"a": 1.0}, {"a": "x"})
    assert "'b': Overflow" in by_rank({"b": 2**70}, {"b": 1})


def test_an_operation_that_does_not_exist_names_the_key() -> None:
    message = refusal(2, lambda communicator: all_reduce_dict(communicator, {"a": 1.0, "count": 2}, "mean"))
    assert "'count': there is no mean of torch.int64" in message
    assert "op: rank 1 has max, rank 0 sum" in refusal(
        2, lambda communicator: all_reduce_dict(communicator, {"a": 1.0}, "max" if communicator.rank else "sum")
    )


@pytest.mark.parametrize(("coalesce", "bucket_size_mb"), [(True, -1), (True, 1e-5), (False, -1)])
def test_parameters_are_reduced_in_place(coalesce: bool, bucket_size_mb: float) -> None:
    def program(communicator: Communicator) -> None:
        rank = communicator.rank
        params = [torch.full((3,), float(rank), requires_grad=True), torch.full((2, 2), rank), torch.ones(4).t()]
        params += [torch.ones(3, 2, dtype=torch.float64).t()]
        before = list(map(id, params))
        all_reduce_params(communicator, (param for param in params), coalesce, bucket_size_mb)
        assert list(map(id, params)) == before
        assert same([param.detach() for param in params[:2]], [torch.full((3,), 3.0), torch.full((2, 2), 3)])
        assert params[3].tolist() == [[3.0] * 3] * 2
        assert params[0].requires_grad

    on_ranks(3, program)


def test_mistakes_are_errors_on_every_rank() -> None:
    ones = torch.ones(2)
    assert "no rank 9" in refusal(3, lambda communicator: reduce(communicator, ones, 9))
    assert "destination is 1 on rank 1, 0 on rank 0" in refusal(
        3, lambda communicator: reduce(communicator, ones, communicator.rank)
    )
    assert "there is no mean of torch.int64" in refusal(
        3, lambda communicator: reduce(communicator, ones.long() if communicator.rank else ones, op="mean")
    )
    assert "tensor is 'float32[3]' on rank 1, 'float32[2]' on rank 0" in refusal(
        2, lambda communicator: reduce(communicator, torch.ones(2 + communicator.rank))
    )
    assert "4 tensors for 3 ranks" in refusal(
        3, lambda communicator: reduce_scatter(communicator, [ones] * (4 if communicator.rank == 1 else 3))
    )
    assert "reduce_scatter: the tensors differ: [0]: rank 2 has float32[3], rank 0 float32[2]; [1]: rank 2" in refusal(
        3, lambda communicator: reduce_scatter(communicator, [torch.ones(3 if communicator.rank == 2 else 2)] * 3)
    )
    assert "op: rank 1 has max, rank 0 sum" in refusal(
        2, lambda communicator: reduce_scatter(communicator, [ones] * 2, "max" if communicator.rank else "sum")
    )


def test_messages_keep_their_order() -> None:
    def program(communicator: Communicator) -> list[float]:
        if communicator.rank == 0:
            for value in range(3):
                send(communicator, torch.tensor(float(value)), 1, tag=5)
            return []
        return [recv(communicator, 0, tag=5).item() for _ in range(3)]

    assert on_ranks(2, program) == [[], [0.0, 1.0, 2.0]]


def test_the_seed_is_the_same_on_all_ranks_and_leaves_the_generator_alone() -> None:
    state = torch.get_rng_state()
    seeds = on_ranks(3, sync_random_seed)
    assert len(set(seeds)) == 1
    assert 0 <= seeds[0] < 2**31
    assert torch.equal(torch.get_rng_state(), state)
    assert len({sync_random_seed(SingleProcess()) for _ in range(5)}) > 1
