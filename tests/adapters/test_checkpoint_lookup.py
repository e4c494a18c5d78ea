"""Names of checkpoints: what they lead to, and what a wrong one is answered with."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.files import LocalFiles
from treenail.kernel import CheckpointError, Engine, FileError


def save(store: CheckpointStore, step: int, *pointers: str) -> None:
    state = Engine().state_dict() | {"model": {"weight": torch.ones(2)}}
    store.save(state, step=step, epoch=0, reason="test", pointers=["latest", *pointers])


def test_an_unknown_name_is_refused_with_what_there_is(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path))
    save(store, 1, "best")
    with pytest.raises(CheckpointError, match=r"there is no checkpoint 'bset'; did you mean 'best'\?"):
        store.load("bset")


class Unlistable(LocalFiles):
    """A backend whose tree is not to be walked."""

    def list(self, prefix: str = "") -> Iterator[str]:
        raise FileError("cannot list", where=str(self.root))


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04" + bytes(5000), b"a" * 257, b"root:x:0:0:/root\n", b"../elsewhere"]
)
def test_a_file_that_is_no_pointer_is_refused_without_a_look_around(tmp_path: Path, content: bytes) -> None:
    save(CheckpointStore(LocalFiles(tmp_path)), 1)
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"no checkpoint 'x\.pt': it is a file of another kind; name a directory"):
        CheckpointStore(LocalFiles(tmp_path)).load("x.pt")


def test_a_pointer_and_a_directory_are_found_without_a_look_around(tmp_path: Path) -> None:
    save(CheckpointStore(LocalFiles(tmp_path)), 1)
    store = CheckpointStore(Unlistable(tmp_path))
    assert store.resolve("latest") == store.resolve("step-00000001") == "step-00000001"


def test_the_look_around_survives_what_cannot_be_listed_or_read(tmp_path: Path) -> None:
    run = tmp_path / "run"
    save(CheckpointStore(LocalFiles(run)), 1)
    (tmp_path / "elsewhere").write_text("step-00000001")
    (run / "afar").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"there are latest, step-00000001$"):
        CheckpointStore(LocalFiles(run)).load("nothing-like-it")
    with pytest.raises(CheckpointError, match="there is no checkpoint 'nothing-like-it'; name a directory"):
        CheckpointStore(Unlistable(run)).load("nothing-like-it")
    with pytest.raises(CheckpointError, match=r"'afar' cannot be looked up.*symbolic link"):
        CheckpointStore(LocalFiles(run)).load("afar")


def test_a_directory_where_no_run_saved_is_not_walked(tmp_path: Path) -> None:
    class Counted(LocalFiles):
        listed = 0

        def list(self, prefix: str = "") -> Iterator[str]:
            self.listed += 1
            return super().list(prefix)

    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "file").touch()
    files = Counted(tmp_path)
    with pytest.raises(CheckpointError, match="there is no checkpoint 'home'; name a directory"):
        CheckpointStore(files).load("home")
    assert files.listed == 0


def test_a_pointer_to_what_is_gone_says_so_and_what_there_is(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path))
    for step in (1, 2):
        save(store, step)
    (tmp_path / "step-00000002" / "manifest.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"it leads to 'step-00000002', which has no manifest; there are step-00000001$"
    ):
        store.load()


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "state.safetensors"])
def test_a_damaged_checkpoint_is_refused_with_the_good_ones(tmp_path: Path, name: str) -> None:
    store = CheckpointStore(LocalFiles(tmp_path))
    for step in (1, 2, 3, 4, 5, 6):
        save(store, step)
    (tmp_path / "step-00000006" / name).write_bytes(b"[")
    (tmp_path / "step-00000005" / "state.json").unlink()
    expected = r"use another checkpoint, for example step-00000004, step-00000003, step-00000002$"
    with pytest.raises(CheckpointError, match=expected):
        store.load()
    for step in (1, 2, 3, 4):
        shutil.rmtree(tmp_path / f"step-0000000{step}")
    with pytest.raises(CheckpointError, match="this checkpoint is damaged, and there is no other here"):
        store.load()
