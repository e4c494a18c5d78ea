"""What meets a save that is under way: a step that goes back, a disk without room, and the waiting kind of save beside it."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest
import torch
from tests.checkpoint.test_background import Gated, save, weight_of
from tests.loops.small_runs import NoisyPoints, shuffled
from tests.resume.outcomes import difference, outcome
from torch import nn

from treenail.adapters.checkpoint import CheckpointStore, RankCheckpointer
from treenail.adapters.checkpoint.contents import release_cache
from treenail.adapters.checkpoint.tensors import Buffers
from treenail.adapters.comm import SingleProcess
from treenail.adapters.files import LocalFiles, MemoryFiles
from treenail.adapters.hooks import CheckpointHook, LoggerHook, RollbackError
from treenail.adapters.loops import EpochLoop
from treenail.adapters.runtime import RollbackLoop, train
from treenail.contracts import Checkpoints, Data, Run
from treenail.kernel import CheckpointError, Engine, late, spec


class Steps:
    """A loop of six steps that each add one to a weight; the first two are saved, and the fourth one fails when first made."""

    def __init__(self, model: nn.ParameterDict) -> None:
        self.model, self.made = model, list[int]()

    def run(self, engine: Engine) -> None:
        while engine.step < 6 and engine.stop_reason is None:
            if fire := engine.points.before_train_iter:
                fire(engine, engine.step, None)
            self.made.append(engine.step)
            with torch.no_grad():
                self.model["weight"].add_(1)
            if engine.step == 3:
                raise RollbackError("the loss is not finite", step=3)
            if engine.step < 2:
                engine.request_checkpoint("test")
            engine.commit(steps=1)

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        pass


@pytest.mark.parametrize("fails", [False, True])
def test_a_step_that_goes_back_waits_for_the_save_under_way(tmp_path: Path, *, fails: bool) -> None:
    files = Gated(tmp_path, "step-00000002/manifest.json")
    model = nn.ParameterDict({"weight": torch.zeros(3)})
    loop = Steps(model)
    engine = Engine({"model": model, "loop": loop, "batches": shuffled()})
    store = CheckpointStore(files)
    checkpointer = RankCheckpointer(store, SingleProcess(), asynchronous=True, on_failure=engine.fail)
    engine.checkpointer = checkpointer

    def load() -> dict[str, object]:
        assert files.reached.wait(60)
        assert not files.open.is_set(), "nothing was under way"
        files.full = fails
        Timer(0.05, files.open.set).start()
        return checkpointer.load("latest", engine.parts)[1]

    if fails:  # the one before it is gone back to; the run ends there, and says why
        with pytest.raises(CheckpointError, match="no space left"), checkpointer.flushed():
            engine.run(RollbackLoop(loop, load))
        assert loop.made == [0, 1, 2, 3]
        assert model["weight"].eq(1).all()
        assert store.load("latest")[0].step == 1
        return
    with checkpointer.flushed():
        engine.run(RollbackLoop(loop, load))
    assert loop.made == [0, 1, 2, 3, 2, 4, 5]
    assert model["weight"].eq(5).all(), "of the step that failed nothing stays"
    assert engine.attempt == 2


def test_saves_in_the_background_and_those_that_are_waited_for_are_the_same(tmp_path: Path) -> None:
    for kind in (True, False):
        run = Run(
            seed=3,
            device="cpu",
            model=spec(nn.Linear)(2, 1),
            loss=spec(nn.MSELoss)(),
            optimizer=late(torch.optim.Adam)(lr=0.1),
            train=Data(dataset=spec(NoisyPoints)(), batch_size=3),
            loop=late(EpochLoop)(max_epochs=2),
            hooks={
                "progress": None,
                "logger": spec(LoggerHook)(interval=1, least_seconds=0.0),
                "checkpoint": spec(CheckpointHook)(interval=3, by="step"),
            },
            checkpoints=Checkpoints(asynchronous=kind),
        )
        train(run, tmp_path / str(kind))
    ours, theirs = outcome(tmp_path / "True"), outcome(tmp_path / "False")
    assert difference(ours.state, theirs.state) is None
    assert difference(ours.logged, theirs.logged, "logged") is None
    assert len(ours.logged) == 8
    written = [
        {
            path.relative_to(tmp_path / kind): path.read_bytes()
            for path in tmp_path.glob(f"{kind}/checkpoints/*/*.safetensors")
        }
        for kind in ("True", "False")
    ]
    assert written[0] == written[1]
    assert {str(path.parent.name) for path in written[0]} == {"step-00000003", "step-00000006", "step-00000008"}


@contextmanager
def smaller_files(limit: int) -> Iterator[None]:
    """Let this process write no file beyond so many bytes, as a disk without room does (setrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_disk_that_takes_no_more_is_told_of_once_and_the_last_good_one_stays(
    tmp_path: Path, *, asynchronous: bool
) -> None:
    store = CheckpointStore(LocalFiles(tmp_path), keep_last=1)
    engine = Engine()
    checkpointer = RankCheckpointer(store, SingleProcess(), asynchronous=asynchronous)
    save(checkpointer, torch.ones(10), 1)

    def fails() -> None:
        with checkpointer.flushed():
            try:
                save(checkpointer, torch.ones(3_000_000), 2)
                checkpointer.flush()
            finally:  # as at the end of a run that fails
                if asynchronous:
                    save(checkpointer, torch.ones(3_000_000), 3)

    with smaller_files(9_000_000), pytest.raises(CheckpointError) as caught:
        fails()
    said = f"{caught.value} {getattr(caught.value, '__notes__', '')}"
    assert (
        f"{tmp_path}/step-00000002/state.safetensors: the checkpoint could not be written: cannot write: File too"
        in said
    )
    assert said.count("raise the limit of file sizes (ulimit -f), or write elsewhere") == 1
    assert said.count("earlier checkpoints are untouched") == 1
    if asynchronous:
        assert "the last checkpoint was not saved, either" in said
        assert "step-00000003/state.safetensors" in said
    assert engine.stop_reason is None
    assert sorted(each.name for each in tmp_path.iterdir()) == ["latest", "step-00000001"]
    assert weight_of(store).eq(1).all()


def test_who_interrupts_a_save_that_is_waited_for_goes_when_it_is_whole(tmp_path: Path) -> None:
    files = Gated(tmp_path)
    store = CheckpointStore(files)
    checkpointer = RankCheckpointer(store, SingleProcess())

    def interrupt() -> None:
        files.reached.wait(60)
        os.kill(os.getpid(), signal.SIGINT)
        Timer(0.2, files.open.set).start()

    Timer(0, interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        save(checkpointer, torch.ones(10), 1)
    assert files.open.is_set()
    assert store.resolve() == "step-00000001", "it was still being written when the training could change it"


def test_a_save_that_is_waited_for_copies_nothing_that_lies_as_it_is_written() -> None:
    buffers = Buffers(borrow=True)
    buffers.begin()
    weight = torch.rand(4, 1, 3)
    assert buffers.copy(weight) is weight
    for other in (
        weight.transpose(0, 2),
        weight.as_strided((4, 1, 3), (3, 7, 1)),
        torch.ones(2, dtype=torch.cfloat).conj(),
    ):
        copied = buffers.copy(other)
        assert copied.data_ptr() != other.data_ptr()
        assert copied.stride() == torch.empty(other.shape).stride()
        assert copied.equal(other)
        assert not copied.is_conj()


def resident(path: Path) -> int:
    """Return how many pages of a file the system has in memory (mincore(2))."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        pages = (ctypes.c_ubyte * -(-len(content) // mmap.PAGESIZE))()
        first = ctypes.c_char.from_buffer(content)
        ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(len(content)), pages)
        del first
        return sum(page & 1 for page in pages)


@pytest.mark.skipif(sys.platform != "linux", reason="mincore and posix_fadvise are Linux's")
def test_a_save_uses_the_memory_again_in_which_the_system_kept_the_one_before(tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    LocalFiles(tmp_path).write("probe", bytes(1 << 20))
    assert resident(probe) == (1 << 20) // mmap.PAGESIZE
    release_cache(LocalFiles(tmp_path), "probe")
    if resident(probe):
        pytest.skip("this file system is nothing but memory")
    probe.unlink()
    store = CheckpointStore(LocalFiles(tmp_path))
    checkpointer = RankCheckpointer(store, SingleProcess(), asynchronous=True)
    for step in (1, 2, 3):
        save(checkpointer, torch.full((5_000_000,), float(step)), step)
    checkpointer.flush()
    pages = [resident(tmp_path / f"step-0000000{step}" / "state.safetensors") for step in (1, 2, 3)]
    assert pages[0] == pages[1] == 0
    assert pages[2] * mmap.PAGESIZE >= 20_000_000, "the newest one is read from memory"
    assert [weight_of(store, f"step-0000000{step}")[0].item() for step in (1, 2, 3)] == [1, 2, 3]


def test_where_no_file_lies_there_is_nothing_to_release(tmp_path: Path) -> None:
    release_cache(MemoryFiles(), "missing")
    release_cache(LocalFiles(tmp_path), "missing")
