"""Trains a run."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

import torch

from treenail.adapters.comm import current_communicator
from treenail.adapters.config import check_slots
from treenail.adapters.documents import Document
from treenail.adapters.files import file_exists, mounts_of, redacted, use_mounts
from treenail.adapters.hooks import BestHook
from treenail.adapters.runtime.attempt import Attempt
from treenail.adapters.runtime.events import RunEvents, log_file_of
from treenail.adapters.runtime.locks import locked
from treenail.adapters.runtime.ranks import failures_told
from treenail.adapters.runtime.trials import shortened
from treenail.adapters.runtime.workdir import CHECKPOINTS, make_work_dir
from treenail.adapters.seeding import cudnn_benchmark, deterministic_algorithms
from treenail.contracts import Run
from treenail.kernel import Communicator


class Summary(NamedTuple):
    """How a run ended.

    Args:
        metrics: The last results by name (``"val/accuracy"``, ``"test/accuracy"``).
        step: Training steps of the whole run.
        epoch: Epochs completed.
        seconds: Time of this attempt.
        attempt: 1, one more for every resume.
        best: (metric, value, step) of the best validation, where the config asks for it.
        stop_reason: Why the run stopped before its end, or None.
        work_dir: Where curves and logs lie.
        checkpoints: Where checkpoints lie; None if there are none.
    """

    metrics: dict[str, float]
    step: int
    epoch: int
    seconds: float
    attempt: int
    best: tuple[str, float, int] | None
    stop_reason: str | None
    work_dir: Path
    checkpoints: str | None


def train(
    run: Run,
    work_dir: Path | str,
    *,
    resume: str | None = None,
    allow_changes: bool = False,
    restart: Collection[str] = (),
    document: Document | None = None,
    communicator: Communicator | None = None,
) -> Summary:
    """Train, then test if the config has a test; on one rank, or on many that all call this.

    Args:
        run: The config.
        work_dir: Where checkpoints, curves and logs go.
        resume: Go on from this checkpoint there: a pointer (``"latest"``) or a directory's name. By a path or URI, from one
            that lies elsewhere: as another run, with a work directory of its own.
        allow_changes: Resume although the config is not the checkpoint's in a way that changes the result.
        restart: Parts that begin anew all the same: ``schedules``, with the numbers of the config for the optimizer's groups;
            ``optimizer``, without its moments.
        document: The config that the run comes from. It is kept in the work directory, whole and with references to the
            environment as they were written.
        communicator: The ranks; the `current_communicator` when None. Checkpoints, curves and logs are rank 0's.

    Raises:
        TreenailError: Whatever is wrong with the config, the checkpoint, the directory or the training.
        CommunicationError: Another rank failed; the message says which, and how.
    """
    communicator, work_dir = communicator or current_communicator(), Path(work_dir)
    check_slots(run)
    with _settings(run, communicator), _held(work_dir, communicator):
        return _train(run, work_dir, resume, document, communicator, allow_changes=allow_changes, restart=restart)


def fast_dev_run(
    run: Run, batches: int = 1, *, document: Document | None = None, communicator: Communicator | None = None
) -> Summary:
    """Try a run: a few batches of training, of validation and of the test, with all hooks, and keep nothing.

    Checkpoints are made and dropped; logs go to a temporary directory; there are no curves.

    Args:
        run: The config.
        batches: How many of each.
        document: The config that the run comes from.
        communicator: The ranks; the `current_communicator` when None.

    Raises:
        TreenailError: Whatever is wrong with the config or the training.
    """
    communicator = communicator or current_communicator()
    check_slots(run)
    with TemporaryDirectory(prefix="treenail-") as directory, _settings(run, communicator):
        run = shortened(run, batches, Path(directory) / "outputs")
        return _train(run, Path(directory), None, document, communicator, allow_changes=False, is_trial=True)


@contextmanager
def _held(work_dir: Path, communicator: Communicator) -> Iterator[None]:
    """Let no other process write the work directory."""
    if communicator.rank > 0:
        yield
        return
    make_work_dir(work_dir)
    with locked(work_dir):
        yield


@contextmanager
def _settings(run: Run, communicator: Communicator) -> Iterator[None]:
    with (
        failures_told(communicator),
        use_mounts(mounts_of(run.files)),
        deterministic_algorithms(run.deterministic),
        cudnn_benchmark(enabled=run.cudnn_benchmark),
        torch.autograd.set_detect_anomaly(True) if run.detect_anomaly else nullcontext(),
    ):
        yield


def _train(
    run: Run,
    work_dir: Path,
    resume: str | None,
    document: Document | None,
    communicator: Communicator,
    *,
    allow_changes: bool,
    restart: Collection[str] = (),
    is_trial: bool = False,
) -> Summary:
    events = RunEvents(None if is_trial else log_file_of(run, work_dir, communicator.rank), communicator)
    with events.failures_logged():
        attempt = Attempt(run, work_dir, document, communicator, events, goes_on=resume is not None, is_trial=is_trial)
        if resume is not None:
            attempt.resume(resume, allow_changes=allow_changes, restart=restart)
        attempt.go()
    engine = attempt.engine
    best = next((hook for hook in engine.hooks.values() if isinstance(hook, BestHook)), None)
    return Summary(
        metrics=attempt.metrics,
        step=engine.step,
        epoch=engine.epoch,
        seconds=perf_counter() - attempt.began,
        attempt=engine.attempt,
        best=(best.metric, best.best, best.step) if best and best.best is not None else None,
        stop_reason=engine.stop_reason,
        work_dir=work_dir,
        checkpoints=_shown(run, work_dir) if file_exists(attempt.store.files, "latest") else None,
    )


def _shown(run: Run, work_dir: Path) -> str:
    return str(work_dir / CHECKPOINTS) if run.files.checkpoints is None else redacted(run.files.checkpoints)
