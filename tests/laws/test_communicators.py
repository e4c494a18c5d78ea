"""The communicators of Treenail obey the laws of communicators: in one process, between threads, between processes."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest

from tests.comm.pool import ProcessPool
from treenail.adapters.comm import SingleProcess, run_threads
from treenail.contracts.laws import CommunicatorLaws
from treenail.kernel import Communicator

from .fewer import look_at_fewer

I = TypeVar("I")  # noqa: E741  # what a program is given
O = TypeVar("O")  # noqa: E741  # what it returns


class TestSingleProcess(CommunicatorLaws):
    worlds = (1,)

    @pytest.fixture(autouse=True)
    def _fewer(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        look_at_fewer(request.function, 4, monkeypatch)  # threads look at worlds of one, too

    def run(self, world_size: int, program: Callable[[Communicator, I], O], inputs: Sequence[I]) -> list[O]:
        return [program(SingleProcess(), inputs[0])]


class TestThreads(CommunicatorLaws):
    def run(self, world_size: int, program: Callable[[Communicator, I], O], inputs: Sequence[I]) -> list[O]:
        return run_threads(world_size, lambda communicator: program(communicator, inputs[communicator.rank]))


class TestGloo(CommunicatorLaws):
    @pytest.fixture(autouse=True)
    def _pool(self, process_pool: ProcessPool, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pool = process_pool
        look_at_fewer(request.function, 4, monkeypatch)

    def run(self, world_size: int, program: Callable[[Communicator, I], O], inputs: Sequence[I]) -> list[O]:
        return self.pool.run(world_size, program, inputs)
