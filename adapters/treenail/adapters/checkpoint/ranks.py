"""Work that all ranks of torch's process group do together: if it fails on one of them, it raises on all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch.distributed as dist

from treenail.kernel import CheckpointError

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata
    from torch.distributed.checkpoint.planner import SavePlan

T = TypeVar("T")


class Failure(NamedTuple):
    """An error on its way to other ranks."""

    message: str
    where: str | None
    mend: str | None

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Describe an error of this rank."""
        if isinstance(error, CheckpointError):
            return cls(error.message, error.where, error.mend)
        return cls(f"rank {dist.get_rank() if _is_distributed() else 0} failed: {error!r}", None, None)

    def error(self) -> CheckpointError:
        """Return the error that it describes."""
        return CheckpointError(self.message, where=self.where, mend=self.mend)


def rank_and_world_size() -> tuple[int, int]:
    """Return those of torch's process group, (0, 1) without one."""
    return (dist.get_rank(), dist.get_world_size()) if _is_distributed() else (0, 1)


def together(action: Callable[[], None]) -> None:
    """Do something on every rank.

    Raises:
        CheckpointError: It failed on a rank; the first rank's error, on every rank.
    """
    failure, cause = _attempt(action)
    outcomes = [failure]
    if _is_distributed():
        outcomes = [None] * dist.get_world_size()
        dist.all_gather_object(outcomes, failure)
    if failures := [outcome for outcome in outcomes if outcome is not None]:
        raise failures[0].error() from cause


def plan_together(
    plan: Callable[[], SavePlan], merge: Callable[[list[SavePlan]], tuple[list[SavePlan], Metadata]]
) -> SavePlan:
    """Make a plan on every rank, merge the plans on rank 0 and return this rank's part.

    Raises:
        CheckpointError: A rank could not make its plan, or they do not go together; on every rank.
    """
    plans: list[SavePlan] = []
    failure, cause = _attempt(lambda: plans.append(plan()))
    rank, world_size = rank_and_world_size()
    own: SavePlan | Failure = failure or plans[0]
    gathered: list[SavePlan | Failure] = [own] * world_size
    if world_size > 1:
        dist.gather_object(own, gathered if rank == 0 else None)
    merged: Sequence[SavePlan | Failure] = gathered
    if rank == 0 and not any(isinstance(outcome, Failure) for outcome in gathered):
        parts: list[SavePlan] = []
        failure, cause = _attempt(lambda: parts.extend(merge([p for p in gathered if not isinstance(p, Failure)])[0]))
        merged = [failure] * world_size if failure else parts
    elif rank == 0:
        merged = [next(outcome for outcome in gathered if isinstance(outcome, Failure))] * world_size
    received: list[SavePlan | Failure] = [merged[0]]
    if world_size > 1:
        dist.scatter_object_list(received, list(merged) if rank == 0 else None)
    if isinstance(received[0], Failure):
        raise received[0].error() from cause
    return received[0]


def _attempt(action: Callable[[], object]) -> tuple[Failure | None, Exception | None]:
    try:
        action()
    except Exception as error:  # whatever it is, the other ranks must hear of it
        return Failure.of(error), error
    return None, None


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
