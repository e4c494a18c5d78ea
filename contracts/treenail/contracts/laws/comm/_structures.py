"""Nested values that every rank can make from a few numbers: its own share, and what the shares of all are together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final, NamedTuple

import torch
from hypothesis import strategies as st
from msgspec import Struct, structs
from torch import Tensor

from treenail.contracts.laws.comm._tensors import DTYPES, LAYOUTS, SEEDS, Described, Layout, assert_same, laid_out

ROWS: Final = 16  # samples that there are


class Pair(NamedTuple):
    """A named tuple."""

    first: object
    second: object


@dataclass
class Boxes:
    """A dataclass."""

    first: object
    second: object


class Score(Struct):
    """A Struct."""

    first: object
    second: object


class Node(NamedTuple):
    """A nested value, described.

    Args:
        kind: What it is: a tensor, array or list of values for samples; a number, text or tensor without a dimension for a
            rank; or a container.
        seed: What its values are drawn from.
        dtype: Of a tensor or array.
        rest: Shape of a tensor's or array's rows.
        layout: How a tensor lies in memory.
        children: What a container holds.
    """

    kind: str
    seed: int = 0
    dtype: torch.dtype = torch.float32
    rest: tuple[int, ...] = ()
    layout: Layout = "contiguous"
    children: tuple[Node, ...] = ()

    def build(self, rows: Sequence[int], rank: int) -> Any:  # a value of any type is the point
        """Return what a rank with some of the samples holds."""
        if self.kind in {"tensor", "array"}:
            table = Described(self.dtype, (ROWS, *self.rest), self.seed, special=True).make()
            chosen = table[torch.tensor(rows, dtype=torch.int64)]
            return chosen.numpy() if self.kind == "array" else laid_out(chosen, self.layout)
        if self.kind == "list":
            return [_item(self.seed + row) for row in rows]
        if self.kind == "number":
            return self.seed + rank if self.seed % 2 else self.seed + rank / 2
        if self.kind == "text":
            return f"{self.seed} on rank {rank}"
        if self.kind == "scalar":
            return Described(self.dtype, (), self.seed + rank).make()
        return self._contain([child.build(rows, rank) for child in self.children])

    def whole(self, rows: Sequence[Sequence[int]]) -> object:
        """Return what the ranks, each with its samples, hold together: what one process would have."""
        if self.kind in {"tensor", "array", "list"}:
            return self.build([row for each in rows for row in each], 0)
        if self.kind == "scalar":
            return torch.stack([self.build([], rank) for rank in range(len(rows))])
        if self.kind in {"number", "text"}:
            return [self.build([], rank) for rank in range(len(rows))]
        return self._contain([child.whole(rows) for child in self.children])

    def _contain(self, values: list[object]) -> object:
        if self.kind == "dict":
            return {f"{'zyx'[place % 3]}{place}": value for place, value in enumerate(values)}  # in no sorted order
        if self.kind == "tuple":
            return tuple(values)
        return {"pair": Pair, "boxes": Boxes, "score": Score}[self.kind](values[0], values[1])


def _item(number: int) -> object:
    items = number, f"sample {number}", None, (number, [number]), {"id": number, "box": torch.full((2,), number % 100)}
    return items[number % len(items)]


def assert_equal(found: Any, expected: Any, what: str, *, given: bool = False) -> None:
    """Fail unless two nested values are equal, in types, orders, dtypes, shapes and bits.

    Args:
        found: One value.
        expected: What it should be.
        what: What it is, for messages.
        given: Whether it is no result: its tensors may require gradients.
    """
    assert type(found) is type(expected), (
        f"{what} is a {type(found).__name__}, must be a {type(expected).__name__}: {found!r}"
    )
    if isinstance(expected, Tensor):
        assert_same(found.detach() if given else found, expected, what)
    elif type(expected).__module__ == "numpy":
        kind, due = (found.dtype, found.shape), (expected.dtype, expected.shape)
        assert kind == due, f"{what} is {kind}, must be {due}"
        assert found.tobytes() == expected.tobytes(), f"{what} holds {found}, must hold {expected}"
    elif isinstance(expected, dict):
        assert list(found) == list(expected), f"{what} has the keys {list(found)}, must have {list(expected)}"
        for key in expected:
            assert_equal(found[key], expected[key], f"{what}.{key}", given=given)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), f"{what} holds {len(found)} values, must hold {len(expected)}"
        for place, (one, due) in enumerate(zip(found, expected, strict=True)):
            assert_equal(one, due, f"{what}[{place}]", given=given)
    elif isinstance(expected, Struct | Boxes):
        for name in _names(expected):
            assert_equal(getattr(found, name), getattr(expected, name), f"{what}.{name}", given=given)
    else:
        assert found == expected, f"{what} is {found!r}, must be {expected!r}"


def scribble(value: Any) -> None:
    """Overwrite a nested value's tensors, arrays and lists in place."""
    if isinstance(value, Tensor):
        flat = value.detach()
        flat.copy_(~flat if flat.dtype == torch.bool else torch.ones_like(flat) * 7)
    elif type(value).__module__ == "numpy" and hasattr(value, "fill"):
        value.fill(1)
    elif isinstance(value, dict):
        for each in value.values():
            scribble(each)
    elif isinstance(value, list | tuple):
        for each in value:
            scribble(each)
        if isinstance(value, list):
            value.append("scribble")
    elif isinstance(value, Struct | Boxes):
        for name in _names(value):
            scribble(getattr(value, name))


def _names(value: Struct | Boxes) -> list[str]:
    fields = structs.fields(value) if isinstance(value, Struct) else dataclasses.fields(value)
    return [field.name for field in fields]


_RESTS: Final = st.sampled_from(((), (2,), (3, 2), (0,), (1, 1), (600,)))
_FLAT: Final[tuple[Layout, ...]] = tuple(layout for layout in LAYOUTS if layout != "expanded")


def _tensors(kind: str, dtypes: Sequence[torch.dtype], layouts: Sequence[Layout]) -> st.SearchStrategy[Node]:
    drawn = st.tuples(SEEDS, st.sampled_from(dtypes), _RESTS, st.sampled_from(layouts))
    return drawn.map(lambda values: Node(kind, *values))


def _leaves(*kinds: str) -> st.SearchStrategy[Node]:
    return st.tuples(st.sampled_from(kinds), st.integers(0, 1000)).map(lambda values: Node(*values))


_TENSORS: Final = _tensors("tensor", DTYPES, _FLAT)
_ARRAYS: Final = _tensors(
    "array", [dtype for dtype in DTYPES if dtype != torch.bfloat16], ["contiguous"]
)  # numpy has none
_LISTS: Final = _leaves("list")
_OF_RANKS: Final = _leaves("number", "text") | st.tuples(SEEDS, st.sampled_from(DTYPES)).map(
    lambda values: Node("scalar", *values)
)
_OF_SAMPLES: Final = _TENSORS | _LISTS | (_ARRAYS if find_spec("numpy") else _TENSORS)


def _nested(leaves: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    def contain(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        some = st.tuples(st.sampled_from(("dict", "tuple")), st.lists(children, min_size=1, max_size=4))
        two = st.tuples(st.sampled_from(("pair", "boxes", "score")), st.lists(children, min_size=2, max_size=2))
        return (some | two).map(lambda values: Node(values[0], children=tuple(values[1])))

    return st.recursive(leaves, contain, max_leaves=5)


BATCHES: Final = _nested(_OF_SAMPLES)
"""Values for samples."""

STRUCTURES: Final = _nested(_OF_SAMPLES | _OF_RANKS)
"""Values for samples, and for ranks."""

SHARES: Final = st.lists(st.lists(st.integers(0, ROWS - 1), max_size=4), min_size=5, max_size=5)
"""Samples of five ranks."""
