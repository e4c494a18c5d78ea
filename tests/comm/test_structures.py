"""Gathered structures are what one process would have; structures that differ are told with their path, on every rank."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict, defaultdict
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.comm.worlds import on_ranks, refusal, same, storages
from treenail.adapters.comm import SingleProcess
from treenail.adapters.comm.structures import (
    all_gather_data,
    all_gather_list,
    all_gather_tensors,
    gather_data,
    gather_list,
    gather_tensors,
)
from treenail.adapters.comm.tree import join
from treenail.kernel import Communicator

DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool, torch.complex64)


@dataclasses.dataclass(frozen=True, slots=True)
class Detections:
    boxes: Tensor
    labels: list[object]

    def __post_init__(self) -> None:
        if not isinstance(self.labels, list):
            raise TypeError("labels are a list")


class Scores(msgspec.Struct, frozen=True):
    values: Any
    name: Any = ""


class Pair(NamedTuple):
    first: Any
    second: Any


# A form says what stands where; `made` makes a rank's value of it, and `expected` what all of them are merged to.
leaf_forms = st.one_of(
    st.tuples(
        st.just("tensor"),
        st.sampled_from(DTYPES),
        st.sampled_from([(), (3,), (2, 2), (0,)]),
        st.lists(st.integers(0, 4), min_size=5, max_size=5),
        st.sampled_from(["plain", "strided", "gradient"]),
    ),
    st.tuples(st.just("scalar"), st.sampled_from(DTYPES)),
    st.tuples(
        st.just("array"), st.sampled_from(["f4", ">i2", "?", "U3"]), st.lists(st.integers(0, 4), min_size=5, max_size=5)
    ),
    st.tuples(st.just("list"), st.lists(st.integers(0, 4), min_size=5, max_size=5)),
    st.tuples(st.just("object"), st.sampled_from([1, 2.5, "a", None, b"x", 2**80, frozenset({1}), True])),
)
forms = st.recursive(
    leaf_forms,
    lambda inner: st.one_of(
        st.tuples(st.just("dict"), st.dictionaries(st.text(max_size=2) | st.integers(0, 3), inner, max_size=3)),
        st.tuples(st.just("tuple"), st.lists(inner, max_size=3)),
        st.tuples(st.just("pair"), st.tuples(inner, inner)),
        st.tuples(st.just("struct"), st.tuples(inner, inner)),
    ),
    max_leaves=6,
)


def made(form: Any, rank: int) -> Any:
    """Return a rank's value of a form."""
    kind = form[0]
    if kind == "tensor":
        _, dtype, shape, rows, memory = form
        values = (torch.arange(rows[rank] * 12).reshape(rows[rank], 12)[:, : int(np.prod(shape))] + rank) % 5
        tensor = values.reshape(rows[rank], *shape).to(dtype)
        if memory == "strided":
            tensor = torch.stack([tensor, tensor], dim=-1)[..., 1]
        return tensor.requires_grad_() if memory == "gradient" and dtype.is_floating_point else tensor
    if kind == "scalar":
        return torch.tensor(rank % 2, dtype=form[1])
    if kind == "array":
        return np.arange(form[2][rank] * 2).reshape(-1, 2).astype(form[1])
    if kind == "list":
        return [{"id": item, "box": torch.full((item,), float(rank)), "of": (rank,)} for item in range(form[1][rank])]
    if kind == "object":
        return form[1]
    if kind == "dict":
        items = [(key, made(inner, rank)) for key, inner in form[1].items()]
        return dict(items if rank % 2 else reversed(items))
    parts = [made(inner, rank) for inner in form[1]]
    return tuple(parts) if kind == "tuple" else Pair(*parts) if kind == "pair" else Scores(*parts)


def merged(form: Any, world_size: int, at: int) -> Any:
    """Return what rank `at` is given: computed from all ranks' values in one process."""
    kind = form[0]
    parts = [made(form, rank) for rank in range(world_size)]
    if kind == "tensor":
        return torch.cat([part.detach() for part in parts])
    if kind == "scalar":
        return torch.stack(parts)
    if kind == "array":
        return np.concatenate(parts)
    if kind == "list":
        return [item for part in parts for item in part]
    if kind == "object":
        return parts
    if kind == "dict":
        return {key: merged(form[1][key], world_size, at) for key in parts[at]}
    inner = [merged(each, world_size, at) for each in form[1]]
    return tuple(inner) if kind == "tuple" else Pair(*inner) if kind == "pair" else Scores(*inner)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Scores) and isinstance(other, Scores):
        return equal([one.values, one.name], [other.values, other.name])
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict) and type(one) is type(other):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return same(one, other)


@given(form=forms, world_size=st.integers(1, 5), root=st.integers(0, 4))
@settings(deadline=None, max_examples=40)
def test_any_structure_is_merged_as_in_one_process(form: Any, world_size: int, root: int) -> None:
    root %= world_size

    def program(communicator: Communicator) -> None:
        rank = communicator.rank
        mine = made(form, rank)
        found = gather_data(communicator, mine, root)
        assert found is None if rank != root else equal(found, merged(form, world_size, root))
        everywhere = all_gather_data(communicator, mine)
        assert equal(everywhere, merged(form, world_size, rank))
        assert equal(mine, made(form, rank)), "the argument was changed"
        assert not storages(mine) & (storages(found) | storages(everywhere))

    on_ranks(world_size, program)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float8_e4m3fn, torch.uint16, torch.int8], ids=str)
@pytest.mark.parametrize("rows", [(2, 3), (0, 3), (0, 0), (90000, 70000), (0, 200000)])
def test_tensors_of_any_dtype_and_size_keep_it(dtype: torch.dtype, rows: tuple[int, int]) -> None:
    def mine(rank: int) -> Tensor:
        return (torch.arange(rows[rank] * 3) % 7 + rank).reshape(-1, 3).to(dtype)

    def program(communicator: Communicator) -> Tensor | None:
        given = mine(communicator.rank).t().contiguous().t()
        found = gather_data(communicator, {"a": given, "b": 1}, 1)
        assert found is None or found["b"] == [1, 1]
        return None if found is None else found["a"]

    assert same(on_ranks(2, program), [None, torch.cat([mine(0), mine(1)])])


def test_large_columns_and_single_elements_of_other_tensors_travel() -> None:
    def mine(rank: int) -> Tensor:
        return torch.arange(2000000.0).reshape(-1, 2)[: 1000000 if rank else 1, 1]

    def program(communicator: Communicator) -> list[Tensor]:
        given = mine(communicator.rank)
        return [all_gather_tensors(communicator, given), all_gather_tensors(communicator, given[:, None])]

    expected = torch.cat([mine(0), mine(1)])
    assert all(same(found, [expected, expected[:, None].contiguous()]) for found in on_ranks(2, program))


def test_large_tensors_travel_beside_small_ones_and_objects() -> None:
    def mine(rank: int) -> dict[str, object]:
        return {
            "large": torch.full((rank * 300000, 2), rank, dtype=torch.int32),
            "list": [torch.ones(200000)] * rank,
            "small": torch.tensor([rank]),
            "deep": ({"large": torch.arange(400000.0)}, rank),
        }

    def program(communicator: Communicator) -> object:
        return gather_data(communicator, mine(communicator.rank), 2)

    found = on_ranks(3, program)[2]
    parts = [mine(rank) for rank in range(3)]
    assert isinstance(found, dict)
    assert same(found["large"], torch.cat([part["large"] for part in parts]))  # type: ignore[misc]  # they are tensors
    assert same(found["list"], [torch.ones(200000)] * 3)
    assert same(found["small"], torch.arange(3))
    assert same(found["deep"], ({"large": torch.arange(400000.0).repeat(3)}, [0, 1, 2]))


def test_dataclasses_and_kinds_of_dicts_stay_what_they_are() -> None:
    def program(communicator: Communicator) -> tuple[object, ...]:
        rank = communicator.rank
        return (
            all_gather_data(communicator, Detections(torch.full((rank, 4), float(rank)), [f"label {rank}"])),
            all_gather_data(communicator, OrderedDict(b=[rank], a=rank)),
            all_gather_data(communicator, defaultdict(list, a=[rank])),
        )

    for boxes, ordered, default in on_ranks(2, program):
        assert isinstance(boxes, Detections)
        assert same(boxes.boxes, torch.ones(1, 4))
        assert boxes.labels == ["label 0", "label 1"]
        assert same(ordered, OrderedDict(b=[0, 1], a=[0, 1]))
        assert same(default, defaultdict(list, a=[0, 1]))


def test_a_thousand_dicts_of_each_rank_are_kept_whole() -> None:
    def items(rank: int) -> list[dict[str, object]]:
        return [
            {
                "id": rank * 1000 + i,
                "box": torch.full((4,), float(i)),
                "score": torch.tensor(i / 7),
                "name": f"{rank}.{i}",
            }
            for i in range(1000)
        ]

    def program(communicator: Communicator) -> object:
        assert same(gather_list(communicator, [communicator.rank]), None if communicator.rank else [0, 1, 2])
        return all_gather_list(communicator, items(communicator.rank))

    expected = [item for rank in range(3) for item in items(rank)]
    assert all(same(found, expected) for found in on_ranks(3, program))


def test_in_one_process_everything_has_its_mathematical_meaning() -> None:
    alone = SingleProcess()
    tensor = torch.ones(2, requires_grad=True)
    found = gather_data(alone, {"a": 1, "b": [1], "c": tensor, "d": torch.tensor(3)})
    assert same(found, {"a": [1], "b": [1], "c": torch.ones(2), "d": torch.tensor([3])})
    assert not storages(gather_tensors(alone, tensor)) & storages(tensor)
    assert gather_data(alone, {}) == {}
    assert gather_data(alone, ()) == ()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            [({"boxes": torch.ones(2, 4)},), ({"boxes": torch.ones(2, 5)},)],
            "[0].boxes: rank 1 has float32[?, 5], rank 0 float32[?, 4]",
        ),
        ([{"a": 1, "meta": {"b": 2}}, {"a": 1, "meta": {"b": 2}}, {"a": 1}], "meta: rank 2 lacks the key;"),
        ([{"a": 1}, {"a": 1, "b c": 2}], "['b c']: rank 0 lacks the key"),
        ([torch.ones(2), torch.ones(2).double()], "the whole: rank 1 has float64[?], rank 0 float32[?]"),
        ([torch.ones(()), torch.ones(1)], "the whole: rank 1 has float32[?], rank 0 float32[]"),
        ([torch.ones(0), torch.ones(1, 3)], "the whole: rank 1 has float32[?, 3], rank 0 float32[?]"),
        ([[1], {"a": 1}], "the whole: rank 1 has a dict, rank 0 a list"),
        ([{"a": 1}, {"a": {"b": 1, "c": 2}}], "a: rank 1 has a dict, rank 0 a value;"),
        ([(1,), (1, 2)], "the whole: rank 1 has a tuple of 2, rank 0 a tuple of 1"),
        (
            [{"x": np.ones((1, 2))}, {"x": np.ones((1, 3))}],
            "x: rank 1 has array float64[?, 3], rank 0 array float64[?, 2]",
        ),
        ([{"x": None}, {"x": torch.ones(1)}], "x: rank 1 has float32[?], rank 0 a value"),
        ([Scores(1), Pair(1, 2)], "the whole: rank 1 has a Pair of 2, rank 0 a Scores"),
        ([{1: torch.ones(1)}, {True: torch.ones(1)}], "[True]: rank 0 lacks the key"),
    ],
)
def test_a_structure_that_differs_is_told_with_its_path(values: list[object], told: str) -> None:
    message = refusal(len(values), lambda communicator: gather_data(communicator, values[communicator.rank]))
    assert told in message
    assert told in refusal(len(values), lambda communicator: all_gather_data(communicator, values[communicator.rank]))


def test_items_of_lists_may_be_of_any_structure() -> None:
    def program(communicator: Communicator) -> object:
        return all_gather_data(communicator, ["foo", {1: 2}] if communicator.rank else [24, torch.ones(1), ()])

    assert all(same(found, [24, torch.ones(1), (), "foo", {1: 2}]) for found in on_ranks(2, program))


def test_mistakes_are_errors_on_every_rank() -> None:
    lock = threading.Lock()
    assert "rank 1: an object of type _thread.lock" in refusal(
        2, lambda communicator: gather_data(communicator, {"a": [lock if communicator.rank else 1]})
    )
    assert "no rank -1" in refusal(2, lambda communicator: gather_data(communicator, 1, -1))
    assert "destination is 1 on rank 1, 0 on rank 0" in refusal(
        2, lambda communicator: gather_data(communicator, 1, communicator.rank)
    )
    assert "a list is expected, this is a tuple" in refusal(2, lambda communicator: gather_list(communicator, (1,)))  # type: ignore[arg-type]  # on purpose
    assert "a tensor is expected, this is a int" in refusal(2, lambda communicator: gather_tensors(communicator, 1))  # type: ignore[arg-type]  # on purpose
    loop: dict[str, object] = {}
    loop["self"] = loop
    assert "RecursionError" in refusal(
        2, lambda communicator: gather_data(communicator, loop if communicator.rank else {})
    )


def test_tensors_without_a_dimension_are_stacked() -> None:
    found = on_ranks(3, lambda communicator: all_gather_tensors(communicator, torch.tensor(communicator.rank)))
    assert all(same(each, torch.tensor([0, 1, 2])) for each in found)


@given(rows=st.lists(st.integers(0, 4), min_size=1, max_size=5), shape=st.sampled_from([(), (2,), (0,), (2, 3)]))
@settings(deadline=None)
def test_adjacent_parts_are_joined_without_a_copy_and_others_with(rows: list[int], shape: tuple[int, ...]) -> None:
    whole = (
        torch.arange(float(sum(rows) * int(np.prod(shape)))).reshape(-1, *shape)
        if 0 not in shape
        else torch.ones(sum(rows), *shape)
    )
    parts = torch.split(whole, rows)
    joined = join(parts)
    assert same(joined, whole)
    assert joined.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
    copied = join([part.clone() for part in parts])
    assert same(copied, whole)
    turned = join(parts[::-1])
    assert same(turned, torch.cat(parts[::-1]))
