"""What other processes have written: checkpoints of mmengine and Lightning, and what a sharded model gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parallel.worlds import once, shared_directory
from tests.processes import Starter
from tests.weights import trainings

_IMPORTED = ("tests.weights.trainings", "mmengine.runner", "lightning.pytorch", "torch._dynamo")


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Return a directory that one of the test workers has let these processes fill."""
    directory = shared_directory("weights", tmp_path_factory, request)

    def write() -> dict[str, str]:
        with Starter(*_IMPORTED) as starter:
            starter.launch(trainings.mmengine, directory / "mmengine", 1)
            starter.launch(trainings.lightning, directory / "lightning", 1)
            starter.launch(trainings.sharded, directory / "sharded", 2)
        return {}

    assert once(directory, write) == {}
    return directory


@pytest.fixture(scope="session")
def of_mmengine(written: Path) -> Path:
    return written / "mmengine"


@pytest.fixture(scope="session")
def of_lightning(written: Path) -> Path:
    return written / "lightning"
