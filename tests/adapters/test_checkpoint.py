"""Checkpoints: nothing lost, nothing let in."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch

from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.files import LocalFiles
from treenail.kernel import CheckpointError, Engine, FileError


def state(step: int, size: int = 4) -> dict[str, object]:
    return Engine().state_dict() | {"model": {"weight": torch.full((size,), float(step))}}


def weight_of(found: dict[str, object]) -> list[float]:
    model = found["model"]
    assert isinstance(model, dict)
    weights: list[float] = model["weight"].tolist()
    return weights


def save(store: CheckpointStore, step: int, *pointers: str) -> None:
    store.save(state(step), step=step, epoch=0, reason="test", pointers=["latest", *pointers])


def listed(root: Path) -> set[str]:
    return {path.partition("/")[0] for path in LocalFiles(root).list() if "/" in path}


def directories(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir())


def test_retention_keeps_the_newest_and_those_a_pointer_leads_to(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path), keep_last=2)
    save(store, 1, "best")
    for step in (2, 3, 4):
        save(store, step)
    assert directories(tmp_path) == ["step-00000001", "step-00000003", "step-00000004"]
    assert store.pointers() == {"best": "step-00000001", "latest": "step-00000004"}


def test_of_several_states_of_a_step_only_the_newest_counts(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path), keep_last=2)
    for step in (1, 1, 2, 2, 2):
        save(store, step)
    assert directories(tmp_path) == ["step-00000001.2", "step-00000002.3"]


def test_retention_never_removes_what_another_run_wrote(tmp_path: Path) -> None:
    save(CheckpointStore(LocalFiles(tmp_path)), 1)
    (tmp_path / "step-00000002").mkdir()
    (tmp_path / "step-00000002" / "precious.txt").write_text("mine")
    ours = CheckpointStore(LocalFiles(tmp_path), keep_last=1)
    for step in (5, 6):
        save(ours, step)
    assert directories(tmp_path) == ["step-00000001", "step-00000002", "step-00000006"]


def test_retention_leaves_what_somebody_copied_or_put_beside_its_files(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path), keep_last=1)
    save(store, 1)
    shutil.copytree(tmp_path / "step-00000001", tmp_path / "paper")
    shutil.copytree(tmp_path / "step-00000001", tmp_path / "backup" / "step-00000001")
    (tmp_path / "step-00000001" / "notes.txt").write_text("mine")
    for step in (2, 3):
        save(store, step)
    assert directories(tmp_path) == ["backup", "paper", "step-00000001", "step-00000003"]
    assert [path.name for path in (tmp_path / "step-00000001").iterdir()] == ["notes.txt"]
    assert store.load("paper")[0].step == 1
    assert len(list((tmp_path / "backup" / "step-00000001").iterdir())) == 4


def test_saving_a_step_again_writes_nothing_over(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path))
    save(store, 1)
    save(store, 1)
    assert directories(tmp_path) == ["step-00000001", "step-00000001.2"]
    assert store.resolve() == "step-00000001.2"


def test_a_directory_without_a_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path))
    save(store, 1)
    (tmp_path / "step-00000001" / "manifest.json").unlink()
    assert list(store.manifests()) == []
    with pytest.raises(CheckpointError, match="there is no checkpoint 'latest'"):
        store.load()


def test_a_directory_that_is_no_checkpoint_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "step-00000001").mkdir()
    (tmp_path / "step-00000001" / "state.json").write_text("mine")
    store = CheckpointStore(LocalFiles(tmp_path))
    save(store, 1)
    assert store.resolve() == "step-00000001.2"
    assert (tmp_path / "step-00000001" / "state.json").read_text() == "mine"


class Malice:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch pwned",)


def test_a_pickle_in_place_of_a_state_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = CheckpointStore(LocalFiles(tmp_path / "run"))
    save(store, 1)
    for name in ("state.safetensors", "state.json", "manifest.json"):
        path = tmp_path / "run" / "step-00000001" / name
        content = path.read_bytes()
        path.write_bytes(pickle.dumps(Malice()))
        with pytest.raises(CheckpointError):
            store.load()
        path.write_bytes(content)
    assert not (tmp_path / "pwned").exists()


def test_a_failed_save_leaves_the_last_checkpoint_and_the_pointer(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path))
    save(store, 1)
    broken = state(2) | {"extra": object()}
    with pytest.raises(CheckpointError, match="cannot be saved"):
        store.save(broken, step=2, epoch=0, reason="test", pointers=["latest"])
    (tmp_path / "step-00000003").write_text("a file where the directory would be")
    with pytest.raises(CheckpointError, match=r"could not be written.*earlier checkpoints are untouched"):
        save(store, 3)
    manifest, found = store.load()
    assert manifest.step == 1
    assert weight_of(found) == [1.0] * 4


class Full(LocalFiles):
    """A disk that is full when it comes to a file of one name; nothing can be removed from a broken one."""

    full_at, broken = "", False

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        if path.endswith(f"/{self.full_at}"):
            raise FileError("cannot write: no space left", where=path)
        super().write(path, data)

    def delete(self, path: str) -> None:
        if self.broken:
            raise FileError("cannot delete", where=path)
        super().delete(path)


@pytest.mark.parametrize("name", ["owner", "state.safetensors", "state.json", "manifest.json"])
def test_a_failed_save_removes_what_it_wrote(tmp_path: Path, name: str) -> None:
    files = Full(tmp_path)
    store = CheckpointStore(files)
    save(store, 1)
    files.full_at = name
    with pytest.raises(CheckpointError, match="no space left"):
        save(store, 2)
    assert directories(tmp_path) == ["step-00000001"]
    files.full_at = ""
    save(store, 2)
    assert store.resolve() == "step-00000002"


def test_what_cannot_be_encoded_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be encoded"):
        save(CheckpointStore(LocalFiles(tmp_path), config=object()), 1)
    assert not list(tmp_path.iterdir())


class Interrupted(LocalFiles):
    """A backend that can delete so many files and no more."""

    deletions = 1_000

    def delete(self, path: str) -> None:
        if self.deletions == 0:
            raise FileError("cannot delete", where=path)
        self.deletions -= 1
        super().delete(path)


@pytest.mark.parametrize("deletions", [1, 2, 3])
def test_a_removal_that_is_cut_off_leaves_nothing_torn_and_is_finished_by_the_next_save(
    tmp_path: Path, deletions: int
) -> None:
    files = Interrupted(tmp_path)
    store = CheckpointStore(files, keep_last=1)
    save(store, 1)
    files.deletions = deletions
    with pytest.warns(UserWarning, match="checkpoints that need not stay are still there: .*cannot delete"):
        save(store, 2)
    assert [directory for directory, _ in store.manifests()] == ["step-00000002"]
    files.deletions = 1_000
    save(store, 2)
    assert directories(tmp_path) == ["step-00000002.2"]


def test_what_is_left_of_a_save_goes_with_the_next_save_of_the_run_only(tmp_path: Path) -> None:
    files = Full(tmp_path)
    store = CheckpointStore(files, run="ours")
    files.full_at, files.broken = "manifest.json", True  # as if it were killed there
    with pytest.raises(CheckpointError, match="no space left"):
        save(store, 1)
    files.full_at, files.broken = "", False
    torn = tmp_path / "step-00000001"
    assert sorted(path.name for path in torn.iterdir()) == ["owner", "state.json", "state.safetensors"]
    for theirs in ("mine", "step-00000007", "step-00000008", "step-00000009"):
        shutil.copytree(torn, tmp_path / theirs)
    (tmp_path / "step-00000007" / "owner").write_text("ourselves")
    (tmp_path / "step-00000008" / "owner").unlink()
    (tmp_path / "step-00000009" / "notes.txt").write_text("mine")
    save(CheckpointStore(files, run="another"), 3)
    assert len(list(torn.iterdir())) == 3
    save(store, 2)
    assert directories(tmp_path) == [
        "mine",
        *(f"step-0000000{step}" for step in (2, 3, 7, 8, 9)),
    ]
    assert len(list((tmp_path / "mine").iterdir())) == 3
    assert [path.name for path in (tmp_path / "step-00000009").iterdir()] == ["notes.txt"]
    save(store, 9)
    assert store.resolve() == "step-00000009.2"


WRITERS = """
import os, sys, torch
from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.files import LocalFiles
from treenail.kernel import Engine

def write(directory):
    store = CheckpointStore(LocalFiles(directory), keep_last=2)
    step = 0
    while True:
        step += 1
        tree = Engine().state_dict() | {"model": {"weight": torch.full((300_000,), float(step))}}
        store.save(tree, step=step, epoch=0, reason="test", pointers=["latest"])

for line in sys.stdin:
    writer = os.fork()
    if not writer:
        write(line.rstrip())
    print(writer, flush=True)
    os.waitpid(writer, 0)
    print("gone", flush=True)
"""


@pytest.fixture(scope="module")
def writers() -> Iterator[subprocess.Popen[str]]:
    """A process that is told directories, and for each starts another one that saves in it until it is killed."""
    command = [sys.executable, "-c", WRITERS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.communicate()


@pytest.mark.parametrize("delay", [0.03, 0.11, 0.23, 0.31])
def test_a_process_killed_while_saving_leaves_a_whole_checkpoint(
    tmp_path: Path, delay: float, writers: subprocess.Popen[str]
) -> None:
    assert writers.stdin is not None
    assert writers.stdout is not None
    writers.stdin.write(f"{tmp_path}\n")
    writers.stdin.flush()
    writer = int(writers.stdout.readline())
    begin = time.monotonic()
    try:
        while not (tmp_path / "latest").exists():
            assert time.monotonic() < begin + 60
            time.sleep(0.005)
        time.sleep(delay)
    finally:
        os.kill(writer, signal.SIGKILL)
    assert writers.stdout.readline() == "gone\n"
    store = CheckpointStore(LocalFiles(tmp_path))
    manifest, found = store.load()
    assert set(weight_of(found)) == {float(manifest.step)}
    for directory, each in store.manifests():
        assert store.load(directory)[0] == each
    store.run = manifest.run
    save(store, manifest.step + 2)
    assert all((tmp_path / directory / "manifest.json").exists() for directory in listed(tmp_path))
