"""Processes that die, hang, or do what cannot be done: an error with the rank and the collective, within the timeout."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch

from tests.comm.pool import PoolError, ProcessPool
from treenail.adapters.comm import TorchCommunicator, all_gather_object
from treenail.kernel import CommunicationError, Communicator

TIMEOUT = 5.0  # seconds that a rank waits for another one
FOR_EVER = 600.0  # seconds: the rank is killed long before
DEADLINE = 60.0  # seconds in which the ranks that are alive find out together who is not, and answer


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPool]:
    """Give worlds whose ranks wait five seconds for each other."""
    made = ProcessPool(3, deadline=DEADLINE, timeout=TIMEOUT)
    yield made
    made.close()


def _fails(communicator: Communicator) -> tuple[str, float]:
    """Return what a collective raises, and after how many seconds."""
    start = time.monotonic()
    with pytest.raises(CommunicationError) as caught:
        communicator.all_reduce(torch.ones(3))
    return str(caught.value), time.monotonic() - start


def _dies(communicator: Communicator, rank: int) -> tuple[str, float]:
    communicator.broadcast(torch.ones(2))
    if communicator.rank == rank:
        os._exit(7)
    return _fails(communicator)


def _is_killed(communicator: Communicator, rank: int) -> tuple[str, float]:
    communicator.broadcast(torch.ones(2))
    if communicator.rank == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    return _fails(communicator)


def _hangs(communicator: Communicator, rank: int) -> tuple[str, float]:
    communicator.broadcast(torch.ones(2))
    if communicator.rank == rank:
        time.sleep(FOR_EVER)
    return _fails(communicator)


def _sends_nothing(communicator: Communicator, rank: int) -> tuple[str, float]:
    if communicator.rank == rank:
        time.sleep(FOR_EVER)
    start = time.monotonic()
    with pytest.raises(CommunicationError) as caught:
        communicator.irecv(rank)()
    return str(caught.value), time.monotonic() - start


def _assert_told(answers: Sequence[tuple[str, float] | None], rank: int, *words: str) -> None:
    for other, answer in enumerate(answers):
        if other == rank:
            continue
        assert answer is not None, f"rank {other} did not answer"
        text, _ = answer
        for word in (f"rank {rank}", *words):
            assert word in text, f"what rank {other} was told does not name '{word}': {text}"


@pytest.mark.parametrize(("program", "rank"), [(_dies, 0), (_is_killed, 1)])
def test_the_others_are_told_of_a_rank_that_died_and_of_the_last_collective(
    pool: ProcessPool, program: Callable[[Communicator, int], tuple[str, float]], rank: int
) -> None:
    answers = pool.run_without(rank, 3, program, [rank] * 3)
    _assert_told(answers, rank, "all_reduce", "broadcast")


def test_the_others_are_told_of_a_rank_that_hangs_after_the_timeout(pool: ProcessPool) -> None:
    answers = pool.run_without(1, 3, _hangs, [1] * 3)
    _assert_told(answers, 1, "all_reduce", "broadcast")
    assert all(answer is not None and answer[1] >= TIMEOUT for answer in (answers[0], answers[2]))


def test_a_message_that_does_not_come_is_an_error_after_the_timeout(pool: ProcessPool) -> None:
    answers = pool.run_without(2, 3, _sends_nothing, [2] * 3)
    _assert_told(answers, 2)


def _cannot_be_pickled(communicator: Communicator, rank: int) -> tuple[str, list[int]]:
    with pytest.raises(CommunicationError) as caught:
        all_gather_object(communicator, threading.Lock() if communicator.rank == rank else "text")
    return str(caught.value), all_gather_object(communicator, communicator.rank)


def test_an_object_that_cannot_be_pickled_is_an_error_on_every_rank_and_they_go_on(pool: ProcessPool) -> None:
    for text, ranks in pool.run(3, _cannot_be_pickled, [1] * 3):
        assert "rank 1" in text
        assert "lock" in text
        assert ranks == [0, 1, 2]


def _exits(communicator: Communicator, rank: int) -> int:
    if communicator.rank == rank:
        os._exit(3)
    return communicator.rank


def _counts(communicator: Communicator, number: int) -> int:
    return int(communicator.all_reduce(torch.tensor(number)))


def test_a_program_whose_rank_dies_does_not_spoil_the_next_one(pool: ProcessPool) -> None:
    with pytest.raises(PoolError, match="rank 2 of 3 died"):
        pool.run(3, _exits, [2] * 3)
    assert pool.run(3, _counts, [1, 2, 3]) == [6, 6, 6]


def _sleeps(communicator: Communicator, _: None) -> None:
    time.sleep(FOR_EVER)


def test_a_program_that_hangs_does_not_spoil_the_next_one(pool: ProcessPool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pool.run(1, _counts, [1]) == [1]
    with monkeypatch.context() as patch:
        patch.setattr(pool, "deadline", 0.5)
        with pytest.raises(PoolError, match="did not answer within"):
            pool.run(1, _sleeps, [None])
    assert pool.run(2, _counts, [1, 2]) == [3, 3]


def test_a_communicator_before_torch_distributed_is_initialised_is_an_error_with_a_mend() -> None:
    with pytest.raises(CommunicationError) as caught:
        TorchCommunicator()
    assert "not been initialised" in str(caught.value)
    assert "treenail launch" in str(caught.value)
