"""Samples that cannot be made, and loader processes that are killed: what is said, and what is saved."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.hooks.small_runs import reason_of, small_run
from treenail.adapters.data import DataError, Loader
from treenail.adapters.runtime import train
from treenail.adapters.sampling import SequentialSampler
from treenail.contracts import Data, Dataset, Evaluation, Run
from treenail.kernel import Engine, Hook, Spec, spec


class Points:
    """Points of which some may be torn."""

    def __init__(self, torn: Path | None = None, sides: tuple[int, ...] = (4,)) -> None:
        self.torn = torn
        self.sides = sides

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 13 and self.torn is not None and self.torn.exists():
            return read_torn()
        point = torch.randn(self.sides[index % len(self.sides)], generator=torch.Generator().manual_seed(index))
        return point, point.sum().reshape(1)


class TornError(Exception):
    """Cannot be made from its message alone."""

    def __init__(self, place: str, reason: object) -> None:
        super().__init__(f"{place} is torn")
        self.reason = reason


def read_torn() -> tuple[Tensor, Tensor]:
    raise TornError("image 13", reason=lambda: "which cannot be pickled")


class Long:
    """Samples that fill a pipe."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> bytes:
        return bytes(500_000)


def loader(dataset: Dataset, num_workers: int) -> Loader:
    order = SequentialSampler(dataset)
    return Loader(dataset, order, batch_size=4, num_workers=num_workers, collate=lambda samples: samples)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_sample_that_cannot_be_made_is_named_with_its_dataset_and_line(num_workers: int, tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    torn.touch()
    source = loader(Points(torn), num_workers)
    batches = iter(source)
    for _ in range(3):
        next(batches)
    with pytest.raises(DataError) as caught:
        next(batches)
    source.close()
    assert caught.value.message == "sample 13 of Points cannot be loaded: TornError: image 13 is torn"
    line = read_torn.__code__.co_firstlineno
    assert (caught.value.where or "").startswith(f"{__file__}:")
    assert caught.value.__cause__ is not None
    shown = str(caught.value.__cause__) if num_workers else str(caught.value.__cause__.__traceback__)
    if num_workers:
        assert f'test_loader_failures.py", line {line + 1}, in read_torn' in shown
    else:
        assert isinstance(caught.value.__cause__, TornError)


def test_a_cause_that_can_travel_is_the_exception_itself() -> None:
    class Missing(Points):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            raise FileNotFoundError(2, "No such file", "images/7.png")

    source = loader(Missing(), 1)
    with pytest.raises(DataError, match=r"sample 0 of .*Missing cannot be loaded: FileNotFoundError") as caught:
        next(iter(source))
    source.close()
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert caught.value.__cause__.filename == "images/7.png"
    assert "in __getitem__" in str(caught.value.__cause__.__cause__)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_samples_that_make_no_batch_are_named(num_workers: int) -> None:
    points = Points(sides=(4, 5))
    source = Loader(points, SequentialSampler(points), batch_size=2, num_workers=num_workers)
    with pytest.raises(DataError, match="the samples 0, 1 of Points make no batch: RuntimeError: stack expects"):
        next(iter(source))
    source.close()


def test_a_worker_that_was_killed_while_it_sent_is_waited_for_no_longer_than_a_moment() -> None:
    others = set(multiprocessing.active_children())
    source = loader(Long(), 1)
    batches = iter(source)
    next(batches)
    time.sleep(0.5)  # the next batches are longer than the pipe: the worker writes, and waits
    (worker,) = set(multiprocessing.active_children()) - others
    os.kill(worker.pid or 0, signal.SIGKILL)
    with pytest.raises(
        DataError, match=rf"worker 0 of 1 \(process {worker.pid}\), which loads Long, was killed by SIGKILL"
    ):
        list(batches)
    assert len(list(source)) == 16, "a new iteration has no new workers"
    source.close()


def test_a_worker_that_was_killed_between_two_epochs_is_told_at_the_next() -> None:
    others = set(multiprocessing.active_children())
    source = loader(Points(), 2)
    assert len(list(source)) == 8
    worker = min(set(multiprocessing.active_children()) - others, key=lambda each: each.pid or 0)
    os.kill(worker.pid or 0, signal.SIGKILL)
    with pytest.raises(DataError, match=rf"\(process {worker.pid}\), which loads Points, was killed by SIGKILL"):
        list(source)
    assert len(list(source)) == 8
    source.close()


class Ending(Points):
    """Points that end their process."""

    def __init__(self, end: Callable[[], object]) -> None:
        super().__init__()
        self.end = end

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 5:
            self.end()
        return super().__getitem__(index)


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (lambda: os._exit(3), "worker 1 of 2 .* ended itself with code 3; with num_workers: 0"),
        (lambda: sys.exit(0), "worker 1 of 2 .* ended itself with code 0"),
        (
            lambda: os.kill(os.getpid(), signal.SIGBUS),
            r"killed by SIGBUS; shared memory ran out \(\d+ of \d+ MiB are free\)",
        ),
    ],
)
def test_how_a_worker_ended_says_what_to_do(end: Callable[[], object], how: str) -> None:
    source = loader(Ending(end), 2)
    with pytest.raises(DataError, match=how):
        list(source)
    source.close()


class KillsAWorker(Hook):
    """Kills a loader process in the midst of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def before_train_iter(self, engine: Engine, batch_index: int, batch: object) -> None:
        if engine.step == self.step:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid or 0, signal.SIGKILL)
            time.sleep(0.2)  # a signal's handler would run here


def run(num_workers: int, torn: Path | None = None, **hooks: Spec[Hook] | None) -> Run:
    """Return a run of two epochs of eight steps, saved at their ends."""
    data = Data(dataset=spec(Points)(torn), batch_size=4, num_workers=num_workers)
    return msgspec.structs.replace(small_run(2, **hooks), train=data, val=None)


def last_weights(work_dir: Path) -> Tensor:
    checkpoint = work_dir / "checkpoints" / (work_dir / "checkpoints" / "latest").read_text()
    return load_file(checkpoint / "state.safetensors")["model/weight"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    place = tmp_path_factory.mktemp("undisturbed")
    train(run(0), place)
    return last_weights(place)


def test_a_run_whose_worker_is_killed_in_a_step_makes_the_step_is_saved_and_goes_on(
    tmp_path: Path, undisturbed: Tensor
) -> None:
    with pytest.raises(DataError, match=r"which loads Points, was killed by SIGKILL; .* memory") as caught:
        train(run(2, killer=spec(KillsAWorker)(10)), tmp_path)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert reason_of(tmp_path).startswith("DataError: loader worker")
    assert train(run(2), tmp_path, resume="latest").step == 16
    assert torch.equal(last_weights(tmp_path), undisturbed)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_with_a_torn_sample_is_saved_in_front_of_it(
    tmp_path: Path, undisturbed: Tensor, num_workers: int
) -> None:
    torn = tmp_path / "torn"
    torn.touch()
    data = run(num_workers, torn)
    with pytest.raises(DataError, match="sample 13 of Points"):
        train(
            data,
            tmp_path / "run",
        )
    assert reason_of(tmp_path / "run").startswith("DataError: ")
    torn.unlink()
    assert train(data, tmp_path / "run", resume="latest").step == 16
    assert torch.equal(last_weights(tmp_path / "run"), undisturbed)


def test_a_torn_sample_of_the_validation_is_told_as_such(tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    torn.touch()
    val = Evaluation(dataset=spec(Points)(torn), batch_size=8)
    with pytest.raises(DataError, match="sample 13") as caught:
        train(msgspec.structs.replace(run(0), val=val), tmp_path / "run")
    assert caught.value.__notes__ == ["batch 1 of the val data"]
    torn.unlink()
