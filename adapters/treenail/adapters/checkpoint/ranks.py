"""Work that ranks do together: if it fails on one of them, it raises on all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from treenail.adapters.comm import all_gather_object, gather_object, scatter_object_list
from treenail.kernel import CheckpointError, Communicator, TreenailError

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata
    from torch.distributed.checkpoint.planner import SavePlan

T = TypeVar("T")


def together(ranks: Communicator, action: Callable[[], T]) -> list[T]:
    """Do something on every rank, and return what each got, in rank order.

    Args:
        ranks: All of which call this.
        action: Its value and errors can be pickled.

    Raises:
        TreenailError: It failed on one of several ranks; the first such rank's error, on every rank.
        CheckpointError: The same, of any other exception.
    """
    if ranks.world_size == 1:
        return [action()]
    own = _attempt(ranks, action)
    return _values(all_gather_object(ranks, own), own.error)


def on_first(ranks: Communicator, action: Callable[[], T]) -> T:
    """Do something on rank 0, and return what it got, or raise its error, on every rank."""
    return together(ranks, lambda: action() if ranks.rank == 0 else None)[0]  # type: ignore[return-value]  # rank 0 has done it


def plan_together(
    ranks: Communicator,
    plan: Callable[[], SavePlan],
    merge: Callable[[list[SavePlan]], tuple[list[SavePlan], Metadata]],
) -> SavePlan:
    """Make a plan on every rank, merge the plans on rank 0 and return this rank's part.

    Raises:
        CheckpointError: A rank could not make its plan, or they do not go together; on every rank.
    """
    own = _attempt(ranks, plan)
    gathered = gather_object(ranks, own)
    parts: list[_Outcome[SavePlan]] | None = None
    if gathered is not None:
        merged = _attempt(ranks, lambda: merge(_values(gathered))[0])
        each = [_Outcome(part, None) for part in merged.value or ()]
        parts = each if merged.error is None else [_Outcome(None, merged.error)] * ranks.world_size
        own = own if merged.error is None else _Outcome(None, merged.error)
    return _values([scatter_object_list(ranks, parts)], own.error)[0]


class _Outcome(NamedTuple, Generic[T]):
    value: T | None
    error: TreenailError | None


def _attempt(ranks: Communicator, action: Callable[[], T]) -> _Outcome[T]:
    try:
        return _Outcome(action(), None)
    except TreenailError as error:
        return _Outcome(None, error)
    except Exception as error:  # whatever it is, the other ranks must hear of it
        told = CheckpointError(f"rank {ranks.rank} failed: {error!r}")
        told.__cause__ = error
        return _Outcome(None, told)


def _values(outcomes: Sequence[_Outcome[T]], cause: TreenailError | None = None) -> list[T]:
    """Return the values of ranks that succeeded; an error of this rank is the cause, with its traceback."""
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error from cause
    return [outcome.value for outcome in outcomes]  # type: ignore[misc]  # there is one where there is no error
