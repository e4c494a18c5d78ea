"""The laws of gathering: what ranks hold becomes what one process would hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, Final, NamedTuple

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from treenail.contracts.laws._support import examples, refused
from treenail.contracts.laws.comm._structures import (
    BATCHES,
    ROWS,
    SHARES,
    STRUCTURES,
    Node,
    assert_equal,
    scribble,
)
from treenail.contracts.laws.comm._tensors import RANKS, SIZES
from treenail.contracts.laws.comm._world import Rank, WorldLaws
from treenail.kernel import CommunicationError, Communicator


class GatherFunctions(NamedTuple):
    """What is under the laws: functions of a module, so that they can be pickled.

    Args:
        gather_data: (communicator, data, destination) gives the merged data there, None elsewhere.
        all_gather_data: (communicator, data) gives the merged data everywhere.
        gather_samples: (communicator, data, indices, destination) gives (values, indices) there, None elsewhere.
        gather_object: (communicator, value, destination) gives the list of all ranks' values there, None elsewhere.
    """

    # The types of data and of what is gathered from it depend on each other in ways that no Callable says.
    gather_data: Callable[[Communicator, Any, int], Any]
    all_gather_data: Callable[[Communicator, Any], Any]
    gather_samples: Callable[[Communicator, Any, Sequence[int] | Tensor, int], Any]
    gather_object: Callable[[Communicator, Any, int], Any]


class Shared(NamedTuple):
    """A structure, the samples of each rank, and who gathers."""

    functions: GatherFunctions
    node: Node
    rows: list[list[int]]
    root: int = 0


class Index(int):
    """The index of a sample, which knows whether it is there for padding only."""

    padding = False


class Held(NamedTuple):
    """A sample that a rank holds, and whether for padding only."""

    sample: int
    padding: bool


class Dealt(NamedTuple):
    """Samples that are dealt to ranks, some of them to several."""

    functions: GatherFunctions
    node: Node
    held: list[list[Held]]
    as_tensor: bool
    root: int


class Odd(NamedTuple):
    """A mistake, by its place among all, and who makes it."""

    functions: GatherFunctions
    place: int
    rank: int


def _merges(rank: Rank, case: Shared) -> None:
    data = case.node.build(case.rows[rank.number], rank.number)
    found = case.functions.gather_data(rank.communicator, data, case.root)
    if rank.number == case.root:
        assert_equal(found, case.node.whole(case.rows[: rank.world_size]), "what gather_data gave")
    else:
        assert found is None, f"gather_data on rank {case.root} gave {found!r} elsewhere, must give None"


def _merges_everywhere(rank: Rank, case: Shared) -> None:
    data = case.node.build(case.rows[rank.number], rank.number)
    found = case.functions.all_gather_data(rank.communicator, data)
    assert_equal(found, case.node.whole(case.rows[: rank.world_size]), "what all_gather_data gave")


def _shares_nothing(rank: Rank, case: Shared) -> None:
    rows, whole = case.rows[rank.number], case.node.whole(case.rows[: rank.world_size])
    data = case.node.build(rows, rank.number)
    found = case.functions.all_gather_data(rank.communicator, data)
    assert_equal(data, case.node.build(rows, rank.number), "data that was gathered", given=True)
    scribble(found)
    rank.communicator.barrier()
    assert_equal(data, case.node.build(rows, rank.number), "data, after the result was written to,", given=True)
    found = case.functions.all_gather_data(rank.communicator, data)
    scribble(data)
    rank.communicator.barrier()
    assert_equal(found, whole, "the result, after the data was written to,")


def _orders(rank: Rank, case: Dealt) -> None:
    held = case.held[rank.number]
    # For padding a sample is computed again, and comes out a little different.
    rows = [each.sample if not each.padding or case.as_tensor else (each.sample + 1) % ROWS for each in held]
    indices: Sequence[int] | Tensor = [_index(each) for each in held]
    if case.as_tensor:
        indices = torch.tensor([each.sample for each in held], dtype=torch.int64)
    data = case.node.build(rows, rank.number)
    found = case.functions.gather_samples(rank.communicator, data, indices, case.root)
    if rank.number != case.root:
        assert found is None, f"gather_samples on rank {case.root} gave {found!r} elsewhere, must give None"
        return
    values, numbers = found
    due = sorted({each.sample for one in case.held[: rank.world_size] for each in one})
    assert_equal(numbers, torch.tensor(due, dtype=torch.int64), "indices of gather_samples")
    assert_equal(values, case.node.build(due, 0), "values of gather_samples")


def _index(held: Held) -> Index:
    index = Index(held.sample)
    index.padding = held.padding
    return index


def _gathers_objects(rank: Rank, case: Shared) -> None:
    value = case.node.build(case.rows[rank.number], rank.number)
    found = case.functions.gather_object(rank.communicator, value, case.root)
    if rank.number == case.root:
        due = [case.node.build(case.rows[other], other) for other in range(rank.world_size)]
        assert_equal(found, due, "what gather_object gave")
        scribble(found)
        assert_equal(
            value, case.node.build(case.rows[rank.number], rank.number), "an object that was gathered", given=True
        )
    else:
        assert found is None, f"gather_object on rank {case.root} gave {found!r} elsewhere, must give None"


# Mistakes


def _sound(rank: int) -> dict[str, Any]:
    boxes = {"scores": torch.full((rank, 2), 0.5), "labels": ["cat"] * rank}
    return {"boxes": boxes, "pair": (torch.arange(rank), 1.5), "names": "ab"}


def _with(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        *above, last = path.split(".")
        for key in above:
            data = data[key]
        data[last] = value

    return change


def _without_labels(data: dict[str, Any]) -> None:
    del data["boxes"]["labels"]


MISMATCHES: Final[tuple[tuple[str, Callable[[dict[str, Any]], None], tuple[str, ...]], ...]] = (
    ("a key more", _with("boxes.extra", 1), ("boxes", "extra")),
    ("a key less", _without_labels, ("boxes", "labels")),
    ("another dtype", _with("boxes.scores", torch.zeros(1, 2).double()), ("scores", "float64", "float32")),
    ("other columns", _with("boxes.scores", torch.zeros(1, 3)), ("scores",)),
    ("another number of dimensions", _with("boxes.scores", torch.zeros(4)), ("scores",)),
    ("no dimension", _with("boxes.scores", torch.zeros(())), ("scores",)),
    ("a list for a tensor", _with("boxes.scores", [[0.5, 0.5]]), ("scores",)),
    ("a tensor for a list", _with("boxes.labels", torch.zeros(2)), ("labels",)),
    ("a longer tuple", _with("pair", (torch.arange(2), 1.5, 1)), ("pair",)),
    ("a list for a tuple", _with("pair", [torch.arange(2), 1.5]), ("pair",)),
    ("a tuple for a dict", _with("boxes", (1, 2)), ("boxes",)),
    ("a number for a dict", _with("boxes", 1), ("boxes",)),
    ("an array of numbers for a text", _with("names", torch.zeros(2)), ("names",)),
)

UNMERGEABLE: Final[tuple[tuple[str, Callable[[], Any], Sequence[int], tuple[str, ...]], ...]] = (
    ("a mean", lambda: {"boxes": {"loss": torch.tensor(0.5)}}, [0, 1], ("loss",)),
    ("a number", lambda: {"boxes": {"loss": 0.5}}, [0, 1], ("loss",)),
    ("a value too few", lambda: {"boxes": {"loss": torch.zeros(1)}}, [0, 1], ("loss",)),
    ("a list that is too long", lambda: {"boxes": {"loss": [1.0] * 3}}, [0, 1], ("loss",)),
    ("a negative index", lambda: {"boxes": {"loss": torch.zeros(2)}}, [0, -1], ("-1",)),
)


def _differs(rank: Rank, case: Odd) -> None:
    name, change, words = MISMATCHES[case.place]
    data = _sound(rank.number)
    if rank.number == case.rank:
        change(data)
    with refused(f"gather_data with {name} on rank {case.rank}", CommunicationError) as refusal:
        case.functions.gather_data(rank.communicator, data, 0)
    _assert_says(refusal.text, name, words)  # which of the two differs from the other, nobody knows
    _goes_on(rank, case.functions)


def _cannot_be_merged(rank: Rank, case: Odd) -> None:
    name, make, indices, words = UNMERGEABLE[case.place]
    odd = rank.number == case.rank
    data = make() if odd else {"boxes": {"loss": torch.zeros(2)}}
    with refused(f"gather_samples of {name} on rank {case.rank}", CommunicationError) as refusal:
        case.functions.gather_samples(rank.communicator, data, indices if odd else [2, 3], 0)
    _assert_says(refusal.text, name, words, case.rank)
    _goes_on(rank, case.functions)


def _cannot_be_pickled(rank: Rank, case: Odd) -> None:
    value = Lock() if rank.number == case.rank else "text"
    for what, gather in (("gather_object", case.functions.gather_object), ("gather_data", case.functions.gather_data)):
        with refused(f"{what} of a lock on rank {case.rank}", CommunicationError) as refusal:
            gather(rank.communicator, value, 0)
        _assert_says(refusal.text, f"{what} of a lock", ("lock",), case.rank)
    _goes_on(rank, case.functions)


def _assert_says(text: str, name: str, words: Sequence[str], odd: int | None = None) -> None:
    missing = [word for word in words if word not in text]
    assert not missing, f"the error of {name} does not name {', '.join(missing)}: {text}"
    rank = r"\d+" if odd is None else str(odd)
    assert re.search(rf"\branks? (\d+, )*{rank}\b", text), f"the error of {name} does not name the rank: {text}"


def _goes_on(rank: Rank, functions: GatherFunctions) -> None:
    found = functions.all_gather_data(rank.communicator, torch.tensor([rank.number]))
    assert_equal(found, torch.arange(rank.world_size), "after a refusal, what all_gather_data gave")


@st.composite
def deals(draw: st.DrawFn, world_size: int) -> list[list[Held]]:
    """Draw who holds which samples: each one rank's, and for padding, or really, others' or its own once more."""
    ranks: list[list[Held]] = [[] for _ in range(world_size)]
    for index in draw(st.lists(st.integers(0, ROWS - 1), unique=True)):
        ranks[draw(st.integers(0, world_size - 1))].append(Held(index, padding=False))
        for again in draw(st.lists(st.integers(0, world_size - 1), max_size=2)):
            ranks[again].append(Held(index, padding=draw(st.booleans())))
    return [draw(st.permutations(held)) for held in ranks]


class GatherLaws(WorldLaws):
    """What functions that gather obey: subclass it, define `functions` and `run`, and let pytest collect the subclass.

    Attributes:
        functions: What is under the laws.
    """

    functions: GatherFunctions

    @given(size=SIZES, node=STRUCTURES, rows=SHARES, root=RANKS)
    @examples(120)
    def test_shares_become_the_whole(self, size: int, node: Node, rows: list[list[int]], root: int) -> None:
        """What is gathered is what one process would have: types, orders, dtypes and values, of empty shares, too."""
        size = self.size(size)
        self.held(size, _merges, Shared(self.functions, node, rows, root % size))

    @given(size=SIZES, node=STRUCTURES, rows=SHARES)
    @examples(60)
    def test_every_rank_can_have_the_whole(self, size: int, node: Node, rows: list[list[int]]) -> None:
        """What is gathered on all ranks is on each of them what one process would have."""
        self.held(self.size(size), _merges_everywhere, Shared(self.functions, node, rows))

    @given(size=SIZES, node=STRUCTURES, rows=SHARES)
    @examples(60)
    def test_what_was_gathered_is_left_as_it_is(self, size: int, node: Node, rows: list[list[int]]) -> None:
        """Data is not changed by gathering it; data and result share no memory and no list, in a world of one, too."""
        self.held(self.size(size), _shares_nothing, Shared(self.functions, node, rows))

    @given(data=st.data(), size=SIZES, node=BATCHES, as_tensor=st.booleans(), root=RANKS)
    @examples(120)
    def test_samples_come_in_the_order_of_the_dataset(
        self, data: st.DataObject, size: int, node: Node, as_tensor: bool, root: int
    ) -> None:
        """Whichever ranks hold them, in whatever order, samples come by their index, each once, and none for padding.

        So the result depends on neither the number of ranks nor on how they share the dataset.
        """
        size = self.size(size)
        held = data.draw(deals(size))
        self.held(size, _orders, Dealt(self.functions, node, held, as_tensor, root % size))

    @given(size=SIZES, node=STRUCTURES, rows=SHARES, root=RANKS)
    @examples(40)
    def test_objects_come_in_the_order_of_ranks(self, size: int, node: Node, rows: list[list[int]], root: int) -> None:
        """Objects are gathered in rank order, each as it was, on one rank; they share nothing with what was given."""
        size = self.size(size)
        self.held(size, _gathers_objects, Shared(self.functions, node, rows, root % size))

    @given(size=SIZES, place=st.integers(0, len(MISMATCHES) - 1), odd=RANKS)
    @examples(40)
    def test_another_structure_is_an_error_on_every_rank(self, size: int, place: int, odd: int) -> None:
        """Where one rank's structure differs, every rank raises CommunicationError with the path and a rank; all go on."""
        size = self.several(size)
        self.held(size, _differs, Odd(self.functions, place, odd % size))

    @given(size=SIZES, place=st.integers(0, len(UNMERGEABLE) - 1), odd=RANKS)
    @examples(25)
    def test_what_has_no_value_for_each_sample_is_refused(self, size: int, place: int, odd: int) -> None:
        """A mean over a rank's samples, a wrong number of values, or a wrong index, raises on every rank with its path."""
        size = self.size(size)
        self.held(size, _cannot_be_merged, Odd(self.functions, place, odd % size))

    @given(size=SIZES, odd=RANKS)
    @examples(10)
    def test_what_cannot_be_sent_is_an_error_on_every_rank(self, size: int, odd: int) -> None:
        """An object of one rank that cannot be sent raises CommunicationError on every rank, which names both."""
        size = self.size(size)
        self.held(size, _cannot_be_pickled, Odd(self.functions, 0, odd % size))
