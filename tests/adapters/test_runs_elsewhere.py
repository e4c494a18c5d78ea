"""Runs whose data and checkpoints lie where the deployment says."""

from __future__ import annotations

import json
import multiprocessing
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from treenail.adapters.files import (
    LocalFiles,
    MemoryFiles,
    Mounts,
    dump,
    exists,
    get,
    list_dir_or_file,
    load,
    put,
    use_mounts,
)
from treenail.adapters.loops import EpochLoop
from treenail.adapters.runtime import choose_work_dir, train
from treenail.adapters.runtime import test as evaluate
from treenail.adapters.runtime.workdir import CLAIM, claimed
from treenail.contracts import Data, Evaluation, Files, Run
from treenail.kernel import CheckpointError, ConfigError, FileBackend, FileError, late, spec


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
    with pytest.raises(CheckpointError, match="there is no such file or directory"):
        evaluate(run(there), f"{there}/best")
    with pytest.raises(FileError, match="nothing serves the scheme 's4'"):
        evaluate(run(there), "s4://x/latest")


@pytest.mark.parametrize(("start", "workers"), [("fork", 2), ("spawn", 1)])
def test_loader_processes_read_by_the_same_mounts(
    start: str, workers: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    before = multiprocessing.get_start_method()
    request.addfinalizer(lambda: multiprocessing.set_start_method(before, force=True))
    multiprocessing.set_start_method(start, force=True)
    for index in range(12):
        put(get(f"memory://elsewhere/points/{index}.json"), tmp_path / "points" / f"{index}.json")
    alone = train(run(None, store=str(tmp_path / "points")), tmp_path / "alone")
    with_workers = train(run(None, workers=workers, store=str(tmp_path / "points")), tmp_path / "workers")
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


def test_a_place_of_checkpoints_is_one_runs(tmp_path: Path) -> None:
    there = f"memory://elsewhere/{tmp_path.name}"
    train(run(there), tmp_path / "first")
    claim = get(f"{there}/{CLAIM}")
    kept = set(list_dir_or_file(there))
    with pytest.raises(ConfigError, match=r"run \w+ \(process .*first.*choose another place in files.checkpoints"):
        train(run(there), tmp_path / "second")
    assert get(f"{there}/{CLAIM}") == claim
    assert set(list_dir_or_file(there)) == kept
    train(run(there, epochs=2), tmp_path / "third", resume="latest")
    assert b"third" in get(f"{there}/{CLAIM}"), "the run that went on has not taken the claim over"
    assert load_run(claim) == load_run(get(f"{there}/{CLAIM}"))


def load_run(claim: bytes) -> object:
    return json.loads(claim)["run"]


@pytest.mark.parametrize("kind", ["creates", "a disk"])
def test_a_claim_counts_from_the_start_and_ends_with_a_run_that_saved_nothing(kind: str, tmp_path: Path) -> None:
    files: FileBackend = MemoryFiles() if kind == "creates" else LocalFiles(tmp_path / "there")
    refused = pytest.raises(ConfigError, match=f"run a .* delete the file '{CLAIM}' there if that run is over")
    with claimed(files, "a", tmp_path / "a", resume=False):
        with refused, claimed(files, "b", tmp_path / "b", resume=False):
            pass
        with claimed(files, "c", tmp_path / "a", resume=False):  # a later attempt in the same directory
            assert load_run(files.read(CLAIM)) == "c"
    assert list(files.list()) == []
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    killed = {"run": "a", "host": socket.gethostname(), "process": ended.pid, "work_dir": "/elsewhere"}
    files.write(CLAIM, json.dumps(killed).encode())
    with claimed(files, "b", tmp_path / "b", resume=False):
        assert load_run(files.read(CLAIM)) == "b"
        files.write("latest", b"step-00000001")
    assert load_run(files.read(CLAIM)) == "b"


@pytest.mark.parametrize("there", ["http://127.0.0.1:9/runs", "zip:///nowhere.zip!/runs", "/proc/runs"])
def test_a_place_that_cannot_hold_checkpoints_is_told_before_the_training(there: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"files.checkpoints cannot be written: .*choose another place"):
        train(run(there, store="memory://elsewhere/no data is read"), tmp_path)
    if there != "/proc/runs":
        with pytest.raises(ConfigError, match=r"files.checkpoints cannot be written: this store is read only"):
            choose_work_dir(Path("x.yaml"), tmp_path, resume=False, checkpoints=there)
    assert not exists(tmp_path / "checkpoints")
