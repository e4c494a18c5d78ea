"""The laws of worlds that end before their programs do."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from hypothesis import given
from hypothesis import strategies as st

from treenail.contracts.laws._support import examples, refused
from treenail.contracts.laws.comm._tensors import RANKS, SIZES
from treenail.contracts.laws.comm._world import Attempt, Rank, WorldLaws
from treenail.kernel import CommunicationError

MOMENT = 0.02  # seconds in which the others are probably where they wait


class Abort(NamedTuple):
    """Who gives up, whether the others wait already or come later, and in what they are."""

    rank: int
    early: bool
    where: str


def _gives_up(rank: Rank, case: Abort) -> None:
    reason = f"disk {case.rank} is full"
    pair = [(case.rank + 1) % rank.world_size, case.rank]
    group = rank.communicator.group(pair) if case.where == "a group" else None
    if rank.number == case.rank:
        time.sleep(0 if case.early else MOMENT)
        rank.communicator.abort(reason)
        return
    time.sleep(MOMENT if case.early else 0)
    for again in ("", "the second time, "):
        with refused(f"{again}{case.where} when rank {case.rank} gave up", CommunicationError) as refusal:
            if case.where == "a message":
                rank.communicator.irecv(case.rank)()
            elif group is not None:
                group.all_gather(torch.ones(2))
            else:
                rank.communicator.all_reduce(torch.ones(2))
        assert reason in refusal.text, f"when a rank gave up because '{reason}', another raised '{refusal.text}'"
        assert str(case.rank) in refusal.text, f"the error does not name rank {case.rank}: {refusal.text}"


def _fails(rank: Rank, odd: int) -> None:
    if rank.number == odd:
        raise ZeroDivisionError("no samples at all")
    rank.communicator.barrier()


class FailureLaws(WorldLaws):
    """What happens to the other ranks when one gives up."""

    @given(size=SIZES, rank=RANKS, early=st.booleans(), where=st.sampled_from(("a collective", "a message", "a group")))
    @examples(15)
    def test_abort_ends_what_the_others_wait_for(self, size: int, rank: int, early: bool, where: str) -> None:
        """Collectives and messages of the other ranks, under way and later ones, of groups, too, raise with the reason."""
        size = self.several(size)
        self.held(size, _gives_up, Abort(rank % size, early, where))

    @given(size=SIZES, odd=RANKS)
    @examples(10)
    def test_a_program_that_fails_ends_all(self, size: int, odd: int) -> None:
        """Where a rank's program raises and abort is called, the others raise with its error instead of waiting."""
        size = self.several(size)
        odd %= size
        outcomes = self.run(size, Attempt(_fails, self.device), [odd] * size)
        for rank, outcome in enumerate(outcomes):
            assert "no samples at all" in outcome.error, f"rank {odd} raised; rank {rank} got '{outcome.error}'"
            kind = "ZeroDivisionError" if rank == odd else "CommunicationError"
            assert outcome.error.startswith(kind), f"rank {odd} raised; rank {rank} got '{outcome.error}'"
