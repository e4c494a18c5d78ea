"""Saves in the background: the training goes on, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from threading import Event

import pytest
import torch
from torch import nn

from treenail.adapters.checkpoint import CheckpointStore, RankCheckpointer
from treenail.adapters.checkpoint.receipts import collect_receipts, write_receipt
from treenail.adapters.checkpoint.tensors import Buffers
from treenail.adapters.comm import SingleProcess
from treenail.adapters.files import LocalFiles
from treenail.adapters.hooks import CheckpointHook
from treenail.contracts import FileEntry
from treenail.kernel import CheckpointError, Engine, FileError, TrainingError


class Gated(LocalFiles):
    """A disk that lets a file of one name pass when it is told to, or never has room for it."""

    def __init__(self, root: Path, name: str = "manifest.json") -> None:
        super().__init__(root)
        self.name, self.full = name, False
        self.reached, self.open = Event(), Event()

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        if path.endswith(self.name):
            self.reached.set()
            assert self.open.wait(60)
            if self.full:
                raise FileError("cannot write: no space left", where=path)
        super().write(path, data)


def tree(weight: torch.Tensor) -> dict[str, object]:
    return Engine().state_dict() | {"model": {"weight": weight}}


def save(checkpointer: RankCheckpointer, weight: torch.Tensor, step: int, *pointers: str) -> None:
    checkpointer.save(tree(weight), step=step, epoch=0, reason="test", pointers=["latest", *pointers])


def weight_of(store: CheckpointStore, name: str = "latest") -> torch.Tensor:
    model = store.load(name)[1]["model"]
    assert isinstance(model, dict)
    weight: torch.Tensor = model["weight"]
    return weight


def test_the_training_goes_on_while_a_state_is_written_and_changes_nothing_of_it(tmp_path: Path) -> None:
    files = Gated(tmp_path)
    store = CheckpointStore(files)
    checkpointer = RankCheckpointer(store, SingleProcess(), asynchronous=True)
    weight = torch.zeros(1000)
    save(checkpointer, weight, 1)
    assert files.reached.wait(60)
    weight += 1  # as the next step does
    assert not (tmp_path / "latest").exists(), "a pointer moved before its checkpoint was durable"
    assert list(store.manifests()) == []
    files.open.set()
    checkpointer.flush()
    assert store.resolve() == "step-00000001"
    assert weight_of(store).eq(0).all()


def test_no_requested_checkpoint_is_lost_and_one_at_a_time_is_under_way(tmp_path: Path) -> None:
    files = Gated(tmp_path)
    store = CheckpointStore(files)
    checkpointer = RankCheckpointer(store, SingleProcess(), asynchronous=True)
    save(checkpointer, torch.ones(1), 1, "best")
    assert files.reached.wait(60)
    files.open.set()
    for step in (2, 3, 4):
        save(checkpointer, torch.full((1,), float(step)), step)
        assert len(list(store.manifests())) >= step - 1, "two were under way"
    checkpointer.flush()
    assert store.pointers() == {"best": "step-00000001", "latest": "step-00000004"}
    assert [weight_of(store, f"step-0000000{step}").item() for step in (1, 2, 3, 4)] == [1, 2, 3, 4]


def test_memory_of_a_copy_is_used_again() -> None:
    buffers, weights = Buffers(), [torch.rand(100), torch.rand(100), torch.rand(3, 2).T]
    places = []
    for _ in range(3):
        buffers.begin()
        copies = [buffers.copy(weight) for weight in weights]
        assert all(
            torch.equal(copy, weight) and copy.is_contiguous() for copy, weight in zip(copies, weights, strict=True)
        )
        places.append({copy.data_ptr() for copy in copies})
    assert places[0] == places[1] == places[2]
    assert len(places[0]) == 3
    assert not places[0] & {weight.data_ptr() for weight in weights}


class Steps:
    """A loop of steps, each of which asks for a checkpoint."""

    def __init__(self, files: Gated) -> None:
        self.files, self.count = files, 0

    def run(self, engine: Engine) -> None:
        while engine.stop_reason is None and self.count < 1000:
            self.count += 1
            if self.count == 2:
                while not (self.files.root / "latest").exists():
                    Event().wait(0.01)
                self.files.full = True
            if self.count <= 2:
                engine.request_checkpoint("test")
            else:
                Event().wait(0.01)
            engine.commit(steps=1)
        engine.request_checkpoint("end")
        self.files.full = False  # somebody made room
        engine.commit()

    def state_dict(self) -> dict[str, object]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        raise AssertionError("nothing is resumed here")


def test_a_save_that_fails_in_the_background_stops_the_run_which_saves_raises_and_loses_nothing(tmp_path: Path) -> None:
    files = Gated(tmp_path)
    files.open.set()
    store = CheckpointStore(files)
    loop = Steps(files)
    engine = Engine({"loop": loop})
    checkpointer = RankCheckpointer(store, SingleProcess(), asynchronous=True, on_failure=engine.fail)
    engine.checkpointer = checkpointer
    with (
        pytest.raises(CheckpointError, match=r"could not be written: cannot write: no space left"),
        checkpointer.flushed(),
    ):
        engine.run(loop)
    assert 2 < loop.count < 1000, "the run did not go on, or did not stop"
    assert [manifest.step for _, manifest in sorted(store.manifests())] == [1, loop.count]
    assert store.load()[0].step == loop.count


def test_without_an_engine_the_next_save_raises_and_the_one_after_works(tmp_path: Path) -> None:
    files = Gated(tmp_path)
    files.open.set()
    checkpointer = RankCheckpointer(CheckpointStore(files), SingleProcess(), asynchronous=True)
    files.full = True
    save(checkpointer, torch.ones(1), 1)
    with pytest.raises(CheckpointError, match="no space left"):
        save(checkpointer, torch.ones(1), 2)
    files.full = False
    save(checkpointer, torch.ones(1), 3)
    checkpointer.flush()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["latest", "step-00000003"]


def test_what_ends_a_run_waits_for_its_last_checkpoint_and_says_if_that_failed_too(tmp_path: Path) -> None:
    files = Gated(tmp_path)
    files.open.set()
    checkpointer = RankCheckpointer(CheckpointStore(files), SingleProcess(), asynchronous=True)

    def save_and_raise(error: BaseException) -> None:
        with checkpointer.flushed():
            save(checkpointer, torch.ones(1), 1)
            raise error

    with pytest.raises(KeyboardInterrupt):
        save_and_raise(KeyboardInterrupt())
    assert CheckpointStore(files).resolve() == "step-00000001"
    checkpointer.flush()
    files.full = True
    with pytest.raises(ValueError, match="broken") as caught:
        save_and_raise(ValueError("broken"))
    assert "the last checkpoint was not saved, either" in caught.value.__notes__[0]


class Weights(nn.Module):
    """Weights of which one may be shared, complex, laid out otherwise, or hidden from the state."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Parameter(torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last))
        self.phase = nn.Parameter(torch.ones(2, dtype=torch.complex64))
        self.tied = self.image
        self.hidden = nn.Parameter(torch.ones(2))
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

        def hide(module: nn.Module, state: dict[str, object], prefix: str, metadata: object) -> None:
            del state[f"{prefix}hidden"]

        self.register_state_dict_post_hook(hide)  # type: ignore[no-untyped-call]  # torch's


class Waits:
    """A loop of steps until it is stopped."""

    def __init__(self, engine_files: Gated, model: Weights) -> None:
        self.files, self.model, self.count = engine_files, model, 0

    def run(self, engine: Engine) -> None:
        while engine.stop_reason is None and self.count < 1000:
            self.count += 1
            if self.count == 2:
                while not (self.files.root / "latest").exists():
                    Event().wait(0.01)
                with torch.no_grad():
                    self.model.image[1, 2, 3, 4] = torch.nan
            if self.count <= 2:
                engine.request_checkpoint("test", "best")
            else:
                Event().wait(0.01)
            engine.commit(steps=1)
        engine.request_checkpoint("end")
        engine.commit()

    def state_dict(self) -> dict[str, object]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        raise AssertionError("nothing is resumed here")


def test_a_lost_model_is_found_in_the_background_and_the_last_good_one_stays(tmp_path: Path) -> None:
    files, model = Gated(tmp_path), Weights()
    files.open.set()
    store = CheckpointStore(files, keep_last=1)
    loop = Waits(files, model)
    engine = Engine({"model": model, "loop": loop})
    checkpointer = RankCheckpointer(store, SingleProcess(), asynchronous=True, on_failure=engine.fail)
    engine.checkpointer = checkpointer
    engine.attach(CheckpointHook(interval=None))
    with (
        pytest.raises(
            TrainingError, match=r"the parameter 'image' is not finite after step 2; this state was not saved"
        ),
        checkpointer.flushed(),
    ):
        engine.run(loop)
    assert 2 <= loop.count < 1000
    assert store.pointers() == {"best": "step-00000001", "latest": "step-00000001"}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["best", "latest", "step-00000001"]
    assert store.load()[0].step == 1


@pytest.mark.parametrize(
    ("name", "what"),
    [("image", "parameter"), ("phase", "parameter"), ("hidden", "parameter"), ("mask", "buffer")],
)
def test_whatever_is_lost_of_a_model_is_named(tmp_path: Path, name: str, what: str) -> None:
    model = Weights()
    checkpointer = RankCheckpointer(CheckpointStore(LocalFiles(tmp_path)), SingleProcess())
    engine = Engine({"model": model}, checkpointer=checkpointer)
    engine.attach(CheckpointHook(interval=None))
    engine.request_checkpoint("good")
    engine.commit()
    assert checkpointer.store.load()[0].reason == "good"
    with torch.no_grad():
        model.get_parameter(name).fill_(torch.nan) if what == "parameter" else model.get_buffer(name).fill_(torch.nan)
    engine.request_checkpoint("bad")
    with pytest.raises(TrainingError, match=f"the {what} '{name}' is not finite"):
        engine.commit()
    assert [manifest.reason for _, manifest in checkpointer.store.manifests()] == ["good"]


def test_a_check_is_of_one_save_only(tmp_path: Path) -> None:
    checkpointer = RankCheckpointer(CheckpointStore(LocalFiles(tmp_path)), SingleProcess())
    seen: list[dict[str, torch.Tensor]] = []
    checkpointer.check_copy("model", lambda copies: seen.append(dict(copies)))
    for step in (1, 2):
        save(checkpointer, torch.ones(2), step)
    assert [sorted(each) for each in seen] == [["weight"]]
    checkpointer.check_copy("missing", dict)
    with pytest.raises(CheckpointError, match="no mapping 'missing'"):
        save(checkpointer, torch.ones(2), 3)
    save(checkpointer, torch.ones(2), 3)
    assert checkpointer.store.resolve() == "step-00000003"


PROCESS = """
import os, sys, threading, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.checkpoint.test_background import Gated, save
from treenail.adapters.checkpoint import CheckpointStore, RankCheckpointer
from treenail.adapters.comm import SingleProcess

root = Path(sys.argv[2])
killed = os.fork()
if not killed:  # stands in the middle of its second save until it is killed
    files = Gated(root / "killed", "state.json")
    files.open.set()
    checkpointer = RankCheckpointer(CheckpointStore(files, run="ours"), SingleProcess(), asynchronous=True)
    save(checkpointer, torch.ones(10), 1)
    checkpointer.flush()
    files.open.clear(), files.reached.clear()
    save(checkpointer, torch.ones(10), 2)
    files.reached.wait()
    (root / "reached").touch()
    files.open.wait()
print(killed, flush=True)
files = Gated(root / "exited")
checkpointer = RankCheckpointer(CheckpointStore(files), SingleProcess(), asynchronous=True)
save(checkpointer, torch.ones(10), 1)
threading.Timer(0.2, files.open.set).start()
raise SystemExit(3)
"""


def test_the_end_of_the_interpreter_waits_for_a_save_and_a_kill_leaves_the_one_before(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROCESS, str(Path(__file__).parents[2]), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        killed = int(process.stdout.readline())
        try:
            for _ in range(6000):
                if (tmp_path / "reached").exists():
                    break
                Event().wait(0.01)
        finally:
            os.kill(killed, signal.SIGKILL)
        assert process.wait(60) == 3
    assert weight_of(CheckpointStore(LocalFiles(tmp_path / "exited"))).eq(1).all()
    store = CheckpointStore(LocalFiles(tmp_path / "killed"), run="ours")
    assert store.load()[0].step == 1
    assert not (tmp_path / "killed" / "step-00000002" / "manifest.json").exists()
    save(RankCheckpointer(store, SingleProcess()), torch.ones(1), 2)
    assert store.resolve() == "step-00000002"


def test_rank_0_waits_for_the_parts_of_others_and_gives_up_when_told_or_after_a_time(tmp_path: Path) -> None:
    files, cancelled = LocalFiles(tmp_path), Event()
    entry = FileEntry(path="shard-00002-of-00002.safetensors", size=1, sha256="0" * 64)
    write_receipt(files, "step-1", 1, 2, entry)
    assert collect_receipts(files, "step-1", 2, cancelled, 60) == [entry]
    assert list(files.list()) == []
    with pytest.raises(CheckpointError, match="rank 1 has not written its part"):
        collect_receipts(files, "step-1", 2, cancelled, 0.02)
    cancelled.set()
    with pytest.raises(CheckpointError, match="rank 1 has not written its part"):
        collect_receipts(files, "step-1", 2, cancelled, 60)
