"""Runs whose data and checkpoints lie where the deployment says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from treenail.adapters.files import Mounts, dump, get, list_dir_or_file, load, put, use_mounts
from treenail.adapters.loops import EpochLoop
from treenail.adapters.runtime import choose_work_dir, train
from treenail.adapters.runtime import test as evaluate
from treenail.contracts import Data, Evaluation, Files, Run
from treenail.kernel import CheckpointError, ConfigError, FileError, late, spec


class Points:
    """Samples that are read from a file of the deployment, one by one."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        numbers = load(f"data/{index}.json")
        assert isinstance(numbers, list)
        return torch.tensor(numbers), torch.tensor(numbers).sum(0, keepdim=True)


def run(checkpoints: str | None, epochs: int = 1, workers: int = 0, store: str = "memory://elsewhere/points") -> Run:
    return Run(
        model=spec(nn.Linear)(2, 1),
        loss=spec(nn.MSELoss)(),
        optimizer=late(torch.optim.SGD)(lr=0.1),
        train=Data(dataset=spec(Points)(), batch_size=4, num_workers=workers),
        test=Evaluation(dataset=spec(Points)(), batch_size=4),
        loop=late(EpochLoop)(max_epochs=epochs),
        files=Files(mounts={"data/": store}, checkpoints=checkpoints),
        hooks={"progress": None},
    )


@pytest.fixture(autouse=True)
def points() -> None:
    for index in range(12):
        dump([index / 12, 1.0], f"memory://elsewhere/points/{index}.json")


def test_data_and_checkpoints_lie_where_the_config_says_and_a_run_goes_on_from_there(tmp_path: Path) -> None:
    whole = train(run(None, epochs=3), tmp_path / "whole")
    assert whole.checkpoints == str(tmp_path / "whole" / "checkpoints")
    there = f"memory://elsewhere/{tmp_path.name}"
    first = train(run(there), tmp_path / "first")
    assert first.checkpoints == there
    assert not (tmp_path / "first" / "checkpoints").exists()
    second = train(run(there, epochs=3), tmp_path / "another machine", resume="latest")
    assert (second.attempt, second.step) == (2, 9)
    assert second.metrics == whole.metrics, "a run that went on from elsewhere is another one"
    weights = "latest", "step-00000009"
    assert weights[0] in list_dir_or_file(there)
    assert evaluate(run(there), f"{there}/latest") == whole.metrics
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        evaluate(run(there), f"{there}/best")
    with pytest.raises(FileError, match="nothing serves the scheme 's4'"):
        evaluate(run(there), "s4://x/latest")


def test_loader_processes_read_by_the_same_mounts(tmp_path: Path) -> None:
    for index in range(12):
        put(get(f"memory://elsewhere/points/{index}.json"), tmp_path / "points" / f"{index}.json")
    alone = train(run(None, store=str(tmp_path / "points")), tmp_path / "alone")
    with_workers = train(run(None, workers=2, store=str(tmp_path / "points")), tmp_path / "workers")
    assert with_workers.metrics == alone.metrics


def test_a_work_directory_is_chosen_by_the_checkpoints_that_lie_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config, there = Path("digits.yaml"), "runs/mine"
    with use_mounts(Mounts({"runs/": f"memory://elsewhere/{tmp_path.name}"})):
        with pytest.raises(CheckpointError, match=r"runs/mine: there is no checkpoint to resume from"):
            choose_work_dir(config, None, resume=True, checkpoints=there)
        assert choose_work_dir(config, None, resume=False, checkpoints=there) == Path("work_dirs/digits/001")
        put(b"step-00000001", "runs/mine/latest")
        assert choose_work_dir(config, None, resume=True, checkpoints=there) == Path("work_dirs/digits/001")
        Path("work_dirs/digits/001").rmdir()  # as on another machine
        assert choose_work_dir(config, None, resume=True, checkpoints=there) == Path("work_dirs/digits/001")
        assert choose_work_dir(config, Path("mine"), resume=True, checkpoints=there) == Path("mine")
        for given in (None, Path("mine")):
            with pytest.raises(ConfigError, match="the checkpoints of a run lie there already; go on with --resume"):
                choose_work_dir(config, given, resume=False, checkpoints=there)
