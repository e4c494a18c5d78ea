"""Objects arrive as they are, of the same types; what cannot be sent is an error on every rank."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import threading
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.comm.worlds import on_ranks, refusal, same, storages
from treenail.adapters.comm.objects import (
    all_gather_object,
    broadcast_object,
    broadcast_object_list,
    exchange,
    gather_object,
    recv_object,
    scatter_object_list,
    send_object,
)
from treenail.adapters.comm.packing import describe, pack
from treenail.adapters.comm.unpacking import unpack
from treenail.adapters.sampling import SampleIndex
from treenail.kernel import CommunicationError, Communicator


@dataclasses.dataclass
class Boxes:
    image: int
    scores: torch.Tensor


class Record(msgspec.Struct):
    name: str
    values: object = None


class Color(enum.Enum):
    RED = 1


class Words(list[str]):
    pass


Point = namedtuple("Point", "x y")

SHARED = {"size": 3}

VALUES: list[object] = [
    None,
    True,
    1,
    2**63,
    2**64,
    -(2**63) - 1,
    10**40,
    -0.0,
    float("nan"),
    float("-inf"),
    1j,
    "text",
    "\ud800",
    b"bytes",
    bytearray(b"bytes"),
    [],
    (),
    {},
    set(),
    {1, 2},
    frozenset({"a"}),
    [[], [[]]],
    [(), (1,), (1, "a")],
    (1, (2, [3, (4,)])),
    [(1, "a"), (2, "b")],
    {1: "a", "b": (2,), (3, 4): None, None: 1, 1.5: 2},
    {True: "a"},
    [{1: 2}, {True: 3}],
    [{"a": 1, "b": 2}, {"b": 1, "a": 2}],
    [1, "a", None, 2.5, [1], {}, (1,)],
    Color.RED,
    Point(1, (2, 3)),
    Record("a", [1, (2,)]),
    Words("ab"),
    OrderedDict(b=1, a=2),
    defaultdict(list, a=[1]),
    dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
    SampleIndex(3, 1, padding=True, position=7),
    range(3),
    int,
    np.float32(0.1),
    np.longlong(3),
    np.arange(6, dtype=">f4").reshape(2, 3),
    np.array(2.5),
    np.zeros((0, 3), dtype=np.int8),
    np.array(["a", "bc"]),
    np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    [np.float64(1), 1.0, np.float64(2)],
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_arrives_with_its_types(value: object) -> None:
    assert same(_there_and_back(value), value)
    assert same(_there_and_back([value, value]), [value, value])


TENSORS = [
    torch.tensor(1.5),
    torch.empty(0, 3),
    torch.arange(12.0).reshape(3, 4).t(),
    torch.arange(12).reshape(3, 4)[:, 1],
    torch.ones(2, dtype=torch.bfloat16),
    torch.tensor([True, False]),
    torch.tensor([1 + 2j]).conj(),
    torch.tensor([1 + 2j]).conj().imag,
    torch.tensor([1.0]).to(torch.float8_e4m3fn),
    torch.tensor([65535]).to(torch.uint16),
    torch.ones(2, requires_grad=True),
    torch.ones(2, requires_grad=True) * 2,
]


@pytest.mark.parametrize("tensor", TENSORS, ids=lambda tensor: f"{tensor.dtype}{list(tensor.shape)}")
def test_a_tensor_arrives_detached_wherever_it_stands(tensor: torch.Tensor) -> None:
    plain = tensor.detach().resolve_conj().resolve_neg()
    value = {"alone": tensor, "list": [tensor, (tensor, 1)], "many": [{"a": tensor, "b": i} for i in range(3)]}
    found = _there_and_back(value)
    assert same(found, {"alone": plain, "list": [plain, (plain, 1)], "many": [{"a": plain, "b": i} for i in range(3)]})
    assert not storages(found) & storages(value)
    boxes = _there_and_back(Boxes(1, tensor))
    assert isinstance(boxes, Boxes)
    assert same(boxes.scores, plain)
    assert not boxes.scores.requires_grad


def test_tensors_that_are_more_than_their_elements_arrive_whole() -> None:
    parameter = _there_and_back(torch.nn.Parameter(torch.ones(2)))
    assert isinstance(parameter, torch.nn.Parameter)
    assert parameter.requires_grad
    sparse = _there_and_back([torch.eye(3).to_sparse(), torch.ones(2)])
    assert isinstance(sparse, list)
    assert sparse[0].is_sparse
    assert torch.equal(sparse[0].to_dense(), torch.eye(3))


def test_mixed_dtypes_shapes_and_kinds_of_one_column() -> None:
    column = [
        torch.ones(2),
        torch.ones(2, dtype=torch.int8),
        3,
        torch.ones(2, 2),
        "a",
        torch.ones(0),
        torch.tensor(1.0),
    ]
    assert same(_there_and_back(column), column)
    ragged = [torch.ones(rows, 2) for rows in (0, 3, 1)]
    assert same(_there_and_back(ragged), ragged)


def test_one_thing_that_comes_twice_is_one_thing_at_the_other_end() -> None:
    found = _there_and_back([{"meta": SHARED}, {"meta": SHARED}])
    assert isinstance(found, list)
    assert found[0]["meta"] is found[1]["meta"]
    assert found[0]["meta"] is not SHARED


def test_what_holds_itself_arrives() -> None:
    loop: list[object] = [1]
    loop.append(loop)
    found = _there_and_back(loop)
    assert isinstance(found, list)
    assert found[1] is found


def test_numbers_strings_and_tensors_are_not_pickled() -> None:
    items = [{"id": i, "name": str(i), "box": torch.ones(i, 4), "score": 0.5} for i in range(50)]
    content = bytes(pack([describe([items])]).tolist())
    assert b"torch" not in content
    assert b"tensor_at" not in content


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(
            st.text(max_size=2) | st.integers() | st.booleans() | st.tuples(st.integers()), inner, max_size=3
        )
    ),
    max_leaves=20,
)


@given(value=values)
@settings(deadline=None, max_examples=150)
def test_any_nesting_arrives_with_its_types(value: object) -> None:
    assert same(_there_and_back(value), value)


@given(items=st.lists(values, min_size=1, max_size=5), root=st.integers(0, 4))
@settings(deadline=None, max_examples=20)
def test_every_rank_gets_what_the_others_gave(items: list[object], root: int) -> None:
    size, root = len(items), root % len(items)

    def program(communicator: Communicator) -> None:
        rank = communicator.rank
        mine = items[rank]
        assert same(all_gather_object(communicator, mine), items)
        assert same(gather_object(communicator, mine, root), items if rank == root else None)
        assert same(broadcast_object(communicator, mine, root), items[root])
        assert same(scatter_object_list(communicator, items if rank == root else None, root), mine)
        listed: list[object] = [mine, rank]
        broadcast_object_list(communicator, listed, root)
        assert same(listed, [items[root], root])
        if size > 1 and rank == root:
            send_object(communicator, mine, (root + 1) % size, tag=3)
        elif size > 1 and rank == (root + 1) % size:
            assert same(recv_object(communicator, root, tag=3), items[root])

    on_ranks(size, program)


def test_a_list_of_the_sender_keeps_its_objects() -> None:
    def program(communicator: Communicator) -> bool:
        mine: list[object] = [object()] if communicator.rank else [SHARED]
        before = mine[0]
        broadcast_object_list(communicator, mine)
        return mine[0] is before

    assert on_ranks(2, program) == [True, False]


@pytest.mark.parametrize(
    "bad",
    [threading.Lock(), lambda: 1, [1, {"a": threading.Lock()}], Boxes(1, threading.Lock())],  # type: ignore[arg-type]  # it is wrong on purpose
    ids=["lock", "function", "nested", "dataclass"],
)
def test_what_cannot_be_pickled_is_an_error_on_every_rank_with_rank_and_type(bad: object) -> None:
    kind = "Boxes" if isinstance(bad, Boxes) else "function" if callable(bad) else "lock"

    def of(communicator: Communicator) -> object:
        return bad if communicator.rank == 1 else 1

    for function in (
        lambda communicator: all_gather_object(communicator, of(communicator)),
        lambda communicator: gather_object(communicator, of(communicator), 2),
        lambda communicator: broadcast_object(communicator, of(communicator), 1),
        lambda communicator: broadcast_object_list(communicator, list[object]([of(communicator)]), 1),
        lambda communicator: scatter_object_list(communicator, [1, bad, 2] if communicator.rank == 1 else None, 1),
    ):
        message = refusal(3, function)
        assert "rank 1: " in message
        assert kind in message


def test_what_cannot_be_pickled_is_an_error_on_the_receiver_too() -> None:
    def program(communicator: Communicator) -> str:
        act: Callable[[], object] = (
            (lambda: send_object(communicator, threading.Lock(), 1))
            if communicator.rank == 0
            else (lambda: recv_object(communicator, 0))
        )
        with pytest.raises(CommunicationError) as raised:
            act()
        return str(raised.value)

    assert all("rank 0: an object of type _thread.lock" in message for message in on_ranks(2, program))


def test_mistakes_are_errors_on_every_rank() -> None:
    assert "no rank 7" in refusal(3, lambda communicator: gather_object(communicator, 1, 7))
    assert "no rank 3" in refusal(3, lambda communicator: broadcast_object(communicator, 1, 3))
    assert "disagree" in refusal(3, lambda communicator: gather_object(communicator, 1, communicator.rank))
    assert "2 objects for 3 ranks" in refusal(3, lambda communicator: scatter_object_list(communicator, [1, 2]))
    lengths = refusal(3, lambda communicator: broadcast_object_list(communicator, [1] * communicator.rank))
    assert "the number of objects is 1 on rank 1, 0 on rank 0" in lengths


def test_different_functions_are_told_apart_though_they_use_the_same_collective() -> None:
    def program(communicator: Communicator) -> str:
        function = all_gather_object if communicator.rank else gather_object
        with pytest.raises(CommunicationError) as raised:
            function(communicator, 1)
        return str(raised.value)

    assert all("calls" in message and "gather_object" in message for message in on_ranks(2, program))


def test_any_error_on_one_rank_before_an_exchange_is_told_to_all() -> None:
    def bring(communicator: Communicator) -> list[list[object]]:
        return [[1 // communicator.rank]]

    message = refusal(3, lambda communicator: exchange(communicator, "a test", lambda: bring(communicator)))
    assert message.startswith("a test: rank 0: ZeroDivisionError")


def test_bytes_that_are_none_of_ours_are_refused() -> None:
    for content in (
        torch.empty(0, dtype=torch.uint8),
        torch.full((64,), 255, dtype=torch.uint8),
        torch.zeros(64, dtype=torch.uint8),
    ):
        with pytest.raises(CommunicationError, match="cannot be rebuilt"):
            unpack(content.to(torch.uint8))


def _there_and_back(value: object) -> object:
    return unpack(pack([describe([value])]))[0][0]
