"""How a law runs a program on all ranks of a world."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar
from unittest import SkipTest

from torch import Tensor

from treenail.contracts.laws.comm._tensors import Described
from treenail.kernel import Communicator

I = TypeVar("I")  # noqa: E741  # what a program is given
O = TypeVar("O")  # noqa: E741  # what it returns


@dataclass(frozen=True)
class Rank:
    """What a law's program has on one rank."""

    communicator: Communicator
    device: str

    @property
    def number(self) -> int:
        """Its rank."""
        return self.communicator.rank

    @property
    def world_size(self) -> int:
        """How many there are."""
        return self.communicator.world_size

    @property
    def before(self) -> int:
        """The rank before it, in a ring."""
        return (self.number - 1) % self.world_size

    @property
    def after(self) -> int:
        """The rank after it, in a ring."""
        return (self.number + 1) % self.world_size

    def make(self, tensor: Described) -> Tensor:
        """Return a described tensor on this rank's device."""
        return tensor.make(self.device)

    def make_all(self, tensors: Sequence[Described]) -> list[Tensor]:
        """Return the described tensors of all ranks of the world."""
        return [self.make(tensor) for tensor in tensors[: self.world_size]]


class Outcome(NamedTuple, Generic[O]):
    """What became of a program on one rank: a value, or an error and whether it was a law that failed."""

    value: O | None
    error: str = ""
    violated: bool = False


@dataclass(frozen=True)
class Attempt(Generic[I, O]):
    """A law's program; when it fails on one rank, the others are told, so that none waits."""

    program: Callable[[Rank, I], O]
    device: str

    def __call__(self, communicator: Communicator, given: I) -> Outcome[O]:
        """Run the program."""
        try:
            return Outcome(self.program(Rank(communicator, self.device), given))
        except Exception as error:
            violated = isinstance(error, AssertionError)
            text = str(error) if violated else f"{type(error).__name__}: {error}"
            communicator.abort(f"rank {communicator.rank} failed: {text}")
            return Outcome(None, text, violated)


class WorldLaws:
    """Runs the programs of laws.

    Attributes:
        worlds: The numbers of ranks that there can be.
        device: Where tensors are.
    """

    worlds: Sequence[int] = (1, 2, 3, 4, 5)
    device: str = "cpu"

    @abstractmethod
    def run(self, world_size: int, program: Callable[[Communicator, I], O], inputs: Sequence[I]) -> list[O]:
        """Run a program on all ranks of a world and return what it returned, in rank order.

        The ranks' communicators need not be new, but none that was aborted is used again.

        Args:
            world_size: How many ranks; one of `worlds`.
            program: Takes the communicator of its rank and the rank's input; it can be pickled, and raises nothing.
            inputs: One for each rank; they can be pickled, and so can what the program returns.
        """

    def held(self, world_size: int, program: Callable[[Rank, I], O], given: I) -> list[O]:
        """Run a program on all ranks, see that it raises on none, and return what it returned.

        Raises:
            AssertionError: It raised.
        """
        outcomes = self.run(world_size, Attempt(program, self.device), [given] * world_size)
        assert len(outcomes) == world_size, f"{len(outcomes)} outcomes of {world_size} ranks"
        # The error that violates the law comes first: what other ranks raise follows from it.
        failed = sorted(
            (not outcome.violated, rank, outcome.error) for rank, outcome in enumerate(outcomes) if outcome.error
        )
        if failed:
            _, rank, text = failed[0]
            raise AssertionError(f"on rank {rank} of {world_size}: {text}")
        return [outcome.value for outcome in outcomes]  # type: ignore[misc]  # no error: a value

    def size(self, drawn: int) -> int:
        """Return one of the worlds."""
        return self.worlds[(drawn - 1) % len(self.worlds)]

    def several(self, drawn: int) -> int:
        """Return one of the worlds that have two ranks or more.

        Raises:
            SkipTest: There is none.
        """
        larger = [size for size in self.worlds if size > 1]
        if not larger:
            raise SkipTest("there are no worlds of two ranks or more")
        return larger[(drawn - 1) % len(larger)]
