"""What a run on many ranks needs besides what a run in one process does: common decisions, and word of failures."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import NamedTuple, TypeVar

import torch

from treenail.adapters.comm import TorchCommunicator, all_gather_object, broadcast_object
from treenail.adapters.logging import describe_error, notes_of
from treenail.adapters.seeding import RngState, seed_process
from treenail.kernel import CommunicationError, Communicator, Engine, Hook, StateError, TreenailError, mix

T = TypeVar("T")

_LONGEST = 64
"""Most calls between two votes."""


class StopVote(Hook):
    """Lets all ranks of a run stop, or save, at the same step, when one of them wants to: an engine's `agree`.

    The ranks vote about once a second: each vote decides how many calls the next one is away, as the slowest rank needs them.
    As a hook it begins anew with every phase, whose calls may take much longer.

    Args:
        communicator: The ranks.
        before_stop: Called on every rank once they stop.
        save: Called on every rank once they shall save a checkpoint, with the reason.
    """

    def __init__(
        self,
        communicator: Communicator,
        before_stop: Callable[[str], None] | None = None,
        *,
        save: Callable[[str], None] | None = None,
    ) -> None:
        self._communicator = communicator
        self._before_stop = before_stop
        self._save = save
        self._wish: str | None = None
        self._interval = self._left = 1
        self._since = perf_counter()

    def request_checkpoint(self, reason: str) -> None:
        """Ask all ranks for a checkpoint at the next vote; safe in a signal handler."""
        self._wish = self._wish or reason

    def before_train_epoch(self, engine: Engine) -> None:
        """Vote at the next call."""
        self._begin()

    def before_val(self, engine: Engine) -> None:
        """Vote at the next call."""
        self._begin()

    def before_test(self, engine: Engine) -> None:
        """Vote at the next call."""
        self._begin()

    def _begin(self) -> None:
        self._interval = self._left = 1
        self._since = perf_counter()

    def __call__(self, reason: str | None) -> str | None:
        """Return why the run stops, on every rank at the same call; None while it goes on."""
        self._left -= 1
        if self._left:
            return None
        ranks = self._communicator
        now = perf_counter()
        seconds, self._since = (now - self._since) / self._interval, now
        wish, mine = self._wish, ranks.rank + 1.0
        wants = [0.0 if reason is None else mine, 0.0 if wish is None else mine]
        own = torch.tensor([*wants, seconds], dtype=torch.float64)
        voter, saver, slowest = ranks.all_reduce(own, "max").tolist()
        if saver:
            common = broadcast_object(ranks, wish or "", int(saver) - 1)
            self._wish = None
            if self._save is not None:
                self._save(common)
        if voter:
            source = int(voter) - 1
            common = broadcast_object(ranks, reason or "", source)
            if self._before_stop is not None:
                self._before_stop(common)
            return common
        fits = int(min(1.0 / max(slowest, 1e-9), _LONGEST))
        self._interval = self._left = max(1, min(2 * self._interval, fits))
        return None


class RankRng:
    """The generators of every rank, as a stateful part of a run.

    A run that goes on with another number of ranks gives each of them generators that follow from those of the old rank 0.

    Args:
        communicator: The ranks.
        stream: Ranks with the same one draw the same numbers after such a change.
    """

    def __init__(self, communicator: Communicator, stream: int) -> None:
        self._communicator = communicator
        self._stream = stream
        self._own = RngState()

    def state_dict(self) -> dict[str, object]:
        """Return the state of every rank's generators; in one process that of `RngState`."""
        own = self._own.state_dict()
        return own if self._communicator.world_size == 1 else {"ranks": all_gather_object(self._communicator, own)}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take a state.

        Raises:
            StateError: It is none.
        """
        states = state_dict.get("ranks", [state_dict])
        if not isinstance(states, list) or not states:
            raise StateError("there is no rank's state", where="rng")
        ranks = self._communicator
        if len(states) == ranks.world_size:
            self._own.load_state_dict(states[ranks.rank])
            return
        self._own.load_state_dict({**states[0], "cuda": []})
        seed_process(mix(int(torch.randint(2**62, ())), self._stream))


class _Outcome(NamedTuple):
    value: object
    error: TreenailError | None


def on_rank_0(communicator: Communicator, action: Callable[[], T]) -> T:
    """Do something on rank 0 only, and return its value, or raise its error, on every rank.

    Args:
        communicator: The ranks.
        action: What to do; its value and errors can be pickled.
    """
    if communicator.world_size == 1:
        return action()
    outcome = _Outcome(None, None)
    if communicator.rank == 0:
        try:
            outcome = _Outcome(action(), None)
        except TreenailError as error:
            outcome = _Outcome(None, error)
        except Exception as error:  # the others wait
            outcome = _Outcome(None, TreenailError(f"rank 0 failed: {type(error).__name__}: {error}"))
    outcome = broadcast_object(communicator, outcome)
    if outcome.error is not None:
        raise outcome.error
    return outcome.value  # type: ignore[return-value]  # it is what the action returned


@contextmanager
def failures_told(communicator: Communicator) -> Iterator[None]:
    """While inside, an exception of this rank ends the others, too, with its message and traceback.

    Raises:
        CommunicationError: What raised on this rank is only the consequence of another rank's failure, which it names.
    """
    try:
        yield
    except CommunicationError as error:
        communicator.abort(str(error))  # who has failed already does not hear it
        raise
    except BaseException as error:
        if (cause := cause_of(communicator, error)) is not None:
            raise cause from error
        if communicator.world_size > 1:
            frames = "".join(traceback.format_exception(error))
            communicator.abort(f"{describe_error(error)}{notes_of(error)}\n{frames}")
        raise


def cause_of(communicator: Communicator, error: BaseException) -> CommunicationError | None:
    """Return which rank's failure an error of torch's own collectives comes from; None for any other error.

    Args:
        communicator: The ranks.
        error: What was raised on this one.
    """
    return communicator.cause_of(error) if isinstance(communicator, TorchCommunicator) else None
