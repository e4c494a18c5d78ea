"""A damaged checkpoint is passed over for the good one before it, and never silently."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from treenail.adapters.checkpoint import CheckpointStore, RankCheckpointer, UnsuitableError
from treenail.adapters.comm import SingleProcess
from treenail.adapters.files import LocalFiles
from treenail.adapters.loops import EpochLoop
from treenail.adapters.runtime import has_checkpoint, train
from treenail.contracts import Checkpoints, Data, Run
from treenail.kernel import CheckpointError, Engine, FileError, late, spec


def save(store: CheckpointStore, step: int, attempt: int = 1) -> None:
    state = Engine().state_dict()
    engine = state["engine"]
    assert isinstance(engine, dict)
    engine["attempt"] = attempt
    store.save(
        state | {"weight": torch.full((50,), float(step))}, step=step, epoch=0, reason="test", pointers=["latest"]
    )


def truncate(newest: Path) -> None:
    path = newest / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def flip(newest: Path) -> None:
    path = newest / "state.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": truncate,
    "flipped bit": flip,
    "missing tensors": lambda newest: (newest / "state.safetensors").unlink(),
    "missing tree": lambda newest: (newest / "state.json").unlink(),
    "broken tree": lambda newest: (newest / "state.json").write_bytes(b"{"),
    "missing manifest": lambda newest: (newest / "manifest.json").unlink(),
    "broken manifest": lambda newest: (newest / "manifest.json").write_bytes(b"\0" * 100),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_latest_gives_way_to_the_one_before_with_a_warning_that_names_both(
    tmp_path: Path, damage: str
) -> None:
    store = CheckpointStore(LocalFiles(tmp_path), run="ours")
    for step in (1, 2, 3):
        save(store, step)
    save(CheckpointStore(LocalFiles(tmp_path), run="theirs"), 9)
    (tmp_path / "latest").write_text("step-00000003")
    DAMAGES[damage](tmp_path / "step-00000003")
    warnings: list[str] = []
    checkpointer = RankCheckpointer(store, SingleProcess())
    found = checkpointer.resume("latest", {}, warnings.append)
    assert (found.directory, found.manifest.run) == ("step-00000002", "ours")
    assert len(warnings) == 1
    assert "step-00000003" in warnings[0]
    assert "going on from 'step-00000002' in its place (step 2)" in warnings[0]
    with pytest.raises(CheckpointError, match="step-00000003"):
        checkpointer.resume("step-00000003", {}, warnings.append)
    flip(tmp_path / "step-00000002")
    assert checkpointer.resume("latest", {}, warnings.append).directory == "step-00000001"
    truncate(tmp_path / "step-00000001")
    with pytest.raises(CheckpointError, match=r"step-0000000[23]/"):
        checkpointer.resume("latest", {}, warnings.append)


@pytest.mark.parametrize("content", [None, b"", b"\0" * 300, b"step-00000077"])
def test_a_corrupt_or_missing_latest_is_found_by_the_manifests(tmp_path: Path, content: bytes | None) -> None:
    store = CheckpointStore(LocalFiles(tmp_path), run="ours")
    for step, attempt in ((1, 1), (4, 1), (2, 2)):  # the second attempt went on from step 1
        save(store, step, attempt)
    (tmp_path / "latest").unlink()
    if content is not None:
        (tmp_path / "latest").write_bytes(content)
    warnings: list[str] = []
    checkpointer = RankCheckpointer(store, SingleProcess())
    assert checkpointer.resume("latest", {}, warnings.append).directory == "step-00000002"
    assert "latest" in warnings[0]
    save(CheckpointStore(LocalFiles(tmp_path), run="theirs"), 9)
    (tmp_path / "latest").unlink()
    with pytest.raises(CheckpointError, match=r"those of 2 runs; name the one to go on from: step-00000009"):
        checkpointer.resume("latest", {}, warnings.append)


def test_a_sound_latest_is_taken_without_a_word(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path))
    for step in (1, 2):
        save(store, step)
    warnings: list[str] = []
    assert RankCheckpointer(store, SingleProcess()).resume("latest", {}, warnings.append).directory == "step-00000002"
    assert warnings == []


def test_a_checkpoint_of_another_format_is_an_error_and_no_damage(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path))
    for step in (1, 2):
        save(store, step)
    path = tmp_path / "step-00000002" / "manifest.json"
    for version, mend in ((99, "upgrade treenail"), (1, "go on with the treenail that wrote it")):
        path.write_text(f'{{"format_version": {version}, "nothing": "else that is known"}}')
        with pytest.raises(UnsuitableError, match=rf"has format {version}, this treenail reads 2; {mend}"):
            RankCheckpointer(store, SingleProcess()).resume("latest", {}, print)


class Unreachable(LocalFiles):
    """A store that answers when it likes."""

    down = False

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        if self.down and path == "step-00000002/state.json":
            raise FileError("cannot read: connection reset", where=path)
        return super().read(path, start, length)


def test_a_store_that_does_not_answer_is_no_damage(tmp_path: Path) -> None:
    files = Unreachable(tmp_path)
    store = CheckpointStore(files)
    for step in (1, 2):
        save(store, step)
    files.down = True
    with pytest.raises(UnsuitableError, match="connection reset"):
        RankCheckpointer(store, SingleProcess()).resume("latest", {}, print)


class Points:
    """Points and their sums."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        point = torch.tensor([index / 12, 1.0])
        return point, point.sum(0, keepdim=True)


def run(epochs: int, *, asynchronous: bool = True) -> Run:
    return Run(
        model=spec(nn.Linear)(2, 1),
        loss=spec(nn.MSELoss)(),
        optimizer=late(torch.optim.AdamW)(lr=0.1),
        train=Data(dataset=spec(Points)(), batch_size=4),
        loop=late(EpochLoop)(max_epochs=epochs),
        hooks={"progress": None},
        checkpoints=Checkpoints(asynchronous=asynchronous),
    )


def test_a_run_whose_latest_is_damaged_goes_on_to_the_same_weights(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(run(4, asynchronous=False), tmp_path / "whole")
    train(run(2), tmp_path / "damaged")
    places = tmp_path / "damaged" / "checkpoints"
    newest = (places / "latest").read_text()
    flip(places / newest)
    (places / "latest").unlink()
    assert has_checkpoint(tmp_path / "damaged")
    (places / "latest").write_text(newest)
    resumed = train(run(4), tmp_path / "damaged", resume="latest")
    assert resumed.attempt == 2
    assert newest in (said := capfd.readouterr().err)
    assert "in its place" in said
    expected, found = (
        CheckpointStore(LocalFiles(tmp_path / name / "checkpoints")).load()[1] for name in ("whole", "damaged")
    )
    assert str(expected["optimizer"]) == str(found["optimizer"])
    assert isinstance(expected["model"], dict)
    assert isinstance(found["model"], dict)
    assert all(torch.equal(weight, found["model"][name]) for name, weight in expected["model"].items())
