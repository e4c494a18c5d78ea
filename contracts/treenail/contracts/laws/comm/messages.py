"""The laws of messages between two ranks, and of sequences of collectives."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from hypothesis import given
from hypothesis import strategies as st

from treenail.contracts.laws._support import examples, refused
from treenail.contracts.laws.comm._calls import CALLS, arguments_of, due_of
from treenail.contracts.laws.comm._tensors import (
    INTEGERS,
    SIZES,
    SOME_SHAPES,
    Described,
    assert_all_same,
    assert_same,
    described,
    even,
)
from treenail.contracts.laws.comm._world import Rank, WorldLaws
from treenail.kernel import CommunicationError

MOST: Final = 5  # messages under way


class Mail(NamedTuple):
    """What each rank sends to the next.

    Args:
        messages: Each with its tag.
        order: In which they are waited for.
        collective: Whether all ranks meet while messages are under way.
    """

    messages: list[tuple[int, Described]]
    order: list[int]
    collective: bool

    def of(self, rank: int) -> list[tuple[int, Described]]:
        """Return what a rank sends."""
        return [(tag, tensor._replace(seed=tensor.seed + rank)) for tag, tensor in self.messages]


class Series(NamedTuple):
    """Calls one after the other, each with tensors of its own, of one shape and dtype."""

    names: list[str]
    tensors: list[Described]


@st.composite
def mails(draw: st.DrawFn) -> Mail:
    """Draw messages: some have the same tag."""
    tags = st.sampled_from((0, 1, 2, 1000))
    messages = draw(st.lists(st.tuples(tags, described(special=True)), min_size=1, max_size=MOST))
    return Mail(messages, draw(st.permutations(range(len(messages)))), draw(st.booleans()))


def _corresponds(rank: Rank, mail: Mail) -> None:
    sends = [rank.communicator.isend(rank.make(tensor), rank.after, tag) for tag, tensor in mail.of(rank.number)]
    by_tag = sorted(range(len(mail.messages)), key=lambda place: mail.messages[place][0])
    receives = {place: rank.communicator.irecv(rank.before, mail.messages[place][0]) for place in by_tag}
    if mail.collective:
        rank.communicator.barrier()
    due = mail.of(rank.before)
    for place in mail.order:
        _, tensor = due[place]
        what = (
            f"message {place} of those with the tags {[each for each, _ in due]}, waited for in the order {mail.order},"
        )
        assert_same(receives[place](), tensor.make(), what)  # nothing says on which device but the CPU
    for wait in sends:
        wait()


def _reuses_what_was_sent(rank: Rank, tensor: Described) -> None:
    receive = rank.communicator.irecv(rank.before)
    mine = rank.make(tensor._replace(seed=tensor.seed + rank.number)).detach().clone()
    send = rank.communicator.isend(mine, rank.after)
    # One of two neighbours waits first for what it sends, the other for what it receives.
    found = receive() if rank.number % 2 else None
    send()
    mine.zero_()
    due = tensor._replace(seed=tensor.seed + rank.before).make().detach()
    assert_same(receive() if found is None else found, due, "a message whose tensor was changed after the wait")


def _sends_to_nobody(rank: Rank, _: None) -> None:
    for other in (-1, rank.world_size, rank.world_size + 3):
        with refused(f"isend to rank {other} of {rank.world_size}", CommunicationError) as refusal:
            rank.communicator.isend(torch.ones(1), other)
        assert str(other) in refusal.text, f"the refusal does not name the rank {other}: {refusal.text}"
        with refused(f"irecv from rank {other} of {rank.world_size}", CommunicationError):
            rank.communicator.irecv(other)
    rank.communicator.barrier()


def _composes(rank: Rank, case: Series) -> None:
    for place, name in enumerate(case.names):
        tensors = [tensor._replace(seed=tensor.seed + 10 * place) for tensor in case.tensors]
        found = CALLS[name](rank, arguments_of(rank, name, tensors))
        what = f"{name} after {', '.join(case.names[:place]) or 'nothing'}"
        assert_all_same(found, due_of(rank, name, tensors), what)


class MessageLaws(WorldLaws):
    """What messages between two ranks do."""

    @given(size=SIZES, mail=mails())
    @examples(60)
    def test_messages_arrive_by_tag_and_in_order(self, size: int, mail: Mail) -> None:
        """Of each tag the first message comes to the first receive, and so on, in whatever order they are waited for.

        Collectives in between do not disturb them.
        """
        self.held(self.several(size), _corresponds, mail)

    @given(size=SIZES, tensor=described(INTEGERS, SOME_SHAPES))
    @examples(25)
    def test_a_tensor_that_was_sent_may_be_changed(self, size: int, tensor: Described) -> None:
        """When the wait of a send is over the tensor belongs to the sender again: the receiver gets what it was."""
        self.held(self.several(size), _reuses_what_was_sent, tensor)

    def test_messages_to_ranks_that_do_not_exist_are_refused(self) -> None:
        """Sending to, or receiving from, a rank outside the world raises CommunicationError at once, there only."""
        for size in self.worlds:
            self.held(size, _sends_to_nobody, None)

    @given(
        size=SIZES,
        names=st.lists(st.sampled_from(list(CALLS)), min_size=2, max_size=8),
        tensors=even(INTEGERS, SOME_SHAPES),
    )
    @examples(40)
    def test_collectives_follow_one_another(self, size: int, names: list[str], tensors: list[Described]) -> None:
        """Any sequence of collectives and messages, with nothing in between, gives what each of them gives alone."""
        self.held(self.size(size), _composes, Series(names, tensors))
