"""The functions of Treenail that gather obey the laws: in one process, between threads, between processes."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest

from tests.comm.pool import ProcessPool
from treenail.adapters.comm import SingleProcess, gather_object, run_threads
from treenail.adapters.comm.samples import gather_samples
from treenail.adapters.comm.structures import all_gather_data, gather_data
from treenail.contracts.laws import GatherFunctions, GatherLaws
from treenail.kernel import Communicator

from .fewer import look_at_fewer

I = TypeVar("I")  # noqa: E741  # what a program is given
O = TypeVar("O")  # noqa: E741  # what it returns

FUNCTIONS = GatherFunctions(gather_data, all_gather_data, gather_samples, gather_object)


class TestSingleProcess(GatherLaws):
    functions = FUNCTIONS
    worlds = (1,)

    @pytest.fixture(autouse=True)
    def _fewer(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        look_at_fewer(request.function, 4, monkeypatch)  # threads look at worlds of one, too

    def run(self, world_size: int, program: Callable[[Communicator, I], O], inputs: Sequence[I]) -> list[O]:
        return [program(SingleProcess(), inputs[0])]


class TestThreads(GatherLaws):
    functions = FUNCTIONS

    def run(self, world_size: int, program: Callable[[Communicator, I], O], inputs: Sequence[I]) -> list[O]:
        return run_threads(world_size, lambda communicator: program(communicator, inputs[communicator.rank]))


class TestGloo(GatherLaws):
    functions = FUNCTIONS

    @pytest.fixture(autouse=True)
    def _pool(self, process_pool: ProcessPool, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pool = process_pool
        look_at_fewer(request.function, 4, monkeypatch)

    def run(self, world_size: int, program: Callable[[Communicator, I], O], inputs: Sequence[I]) -> list[O]:
        return self.pool.run(world_size, program, inputs)
