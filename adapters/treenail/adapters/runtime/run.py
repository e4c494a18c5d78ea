"""Trains a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

import msgspec
import torch

from treenail.adapters.checkpoint import CheckpointStore, RankCheckpointer
from treenail.adapters.comm import current_communicator
from treenail.adapters.documents import Document, dump_document, replace_text
from treenail.adapters.files import (
    file_exists,
    mounts_of,
    redacted,
    use_mounts,
)
from treenail.adapters.hooks import (
    BestHook,
    CheckpointHook,
    Schedules,
)
from treenail.adapters.logging import terminal_logger
from treenail.adapters.runtime.assemble import Assembly, assemble
from treenail.adapters.runtime.changes import refuse_changes
from treenail.adapters.runtime.default_hooks import default_hooks
from treenail.adapters.runtime.limits import (
    DiscardedCheckpoints,
    Trial,
    check_validation,
    hook_points,
    shortened,
    time_limit,
    workers_ended,
)
from treenail.adapters.runtime.locks import locked, locked_checkpoints
from treenail.adapters.runtime.notes import note_batch_size, note_torch_checks
from treenail.adapters.runtime.ranks import StopVote, failures_told, on_rank_0
from treenail.adapters.runtime.rollback import RollbackLoop
from treenail.adapters.runtime.signals import stop_on_signals
from treenail.adapters.runtime.workdir import (
    CHECKPOINTS,
    CONFIG,
    checkpoint_files,
    claimed,
    make_work_dir,
    probe_checkpoints,
)
from treenail.adapters.seeding import deterministic_algorithms
from treenail.adapters.vis import JsonLines
from treenail.contracts import Run
from treenail.kernel import (
    CheckpointError,
    Communicator,
    ConfigError,
    Engine,
    FileBackend,
    Late,
    Loop,
    StateError,
)


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
    work_dir: Path,
    *,
    resume: str | None = None,
    allow_changes: bool = False,
    document: Document | None = None,
    communicator: Communicator | None = None,
) -> Summary:
    """Train, then test if the config has a test; on one rank, or on many that all call this.

    Args:
        run: The config.
        work_dir: Where checkpoints, curves and logs go.
        resume: Go on from this checkpoint there: a pointer (``"latest"``) or a directory's name.
        allow_changes: Resume although the config is not the checkpoint's in a way that changes the result.
        document: The config that the run comes from. It is kept in the work directory, whole and with references to the
            environment as they were written.
        communicator: The ranks; the `current_communicator` when None. Checkpoints, curves and logs are rank 0's.

    Raises:
        TreenailError: Whatever is wrong with the config, the checkpoint, the directory or the training.
        CommunicationError: Another rank failed; the message says which, and how.
    """
    communicator = communicator or current_communicator()
    with _settings(run, communicator), _held(work_dir, communicator):
        return _train(run, work_dir, resume, document, communicator, allow_changes=allow_changes)


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
    run = shortened(run, batches)
    with _settings(run, communicator), TemporaryDirectory(prefix="treenail-") as directory:
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
    is_trial: bool = False,
) -> Summary:
    began = perf_counter()
    elsewhere = run.files.checkpoints is not None
    files = _make_places(run, work_dir, communicator)
    if not run.vis and not is_trial:
        run = msgspec.structs.replace(run, vis={"jsonlines": Late(JsonLines, awaited=1)})
    assembly = assemble(run, work_dir, document, communicator, goes_on=resume is not None)
    _refuse_schedules_without_validation(run, assembly)
    store = CheckpointStore(
        files,
        keep_last=run.checkpoints.keep_last,
        keep_every=run.checkpoints.keep_every,
        config=assembly.config,
        world_size=communicator.world_size,
    )
    checkpointer = RankCheckpointer(
        store,
        communicator,
        asynchronous=run.checkpoints.asynchronous,
        on_failure=lambda error: engine.fail(error),  # noqa: PLW0108  # it is made below
        timeout=run.distributed.timeout,
    )
    alone = communicator.world_size == 1
    saves = True
    vote = StopVote(
        communicator,
        lambda reason: None if saves else engine.request_checkpoint(reason),
        save=lambda reason: engine.request_checkpoint(reason),  # noqa: PLW0108  # the engine is made below
    )
    engine = Engine(
        assembly.parts,
        checkpointer=DiscardedCheckpoints() if is_trial else checkpointer,
        agree=None if alone else vote,
        points=hook_points(assembly),
    )
    for name, hook in default_hooks(run, assembly, work_dir, communicator).items():
        engine.attach(hook, name)
    if not alone:
        engine.attach(vote, "stop vote")
    saves = any(isinstance(hook, CheckpointHook) for hook in engine.hooks.values())
    state = resumed = None
    if resume:
        resumed = checkpointer.resume(resume, assembly.parts, lambda text: terminal_logger().warning(text))
        state, store.run = resumed.state, resumed.manifest.run
        if not allow_changes:
            refuse_changes(resumed.manifest.config, assembly.config, resumed.directory)
    if (
        document is not None and not document.has_originals and communicator.rank == 0
    ):  # a Python config is kept by its users, as code
        replace_text(work_dir / CONFIG, dump_document(document))

    def load_last() -> dict[str, object]:
        manifest, last = checkpointer.load("latest", assembly.parts)
        if manifest.run != on_rank_0(communicator, lambda: store.run):
            raise CheckpointError("the last checkpoint there is another run's", where=store.files.uri)
        return last

    training = RollbackLoop(assembly.loop, load_last)
    loops: list[Loop] = [Trial(training, assembly.validation) if is_trial else training]
    loops += [assembly.test] if assembly.test else []
    metrics: dict[str, float] = {}
    engine.subscribe(
        lambda record: metrics.update({k: v for k, v in record.values.items() if k.startswith(("val/", "test/"))})
    )
    try:
        ours = elsewhere and communicator.rank == 0
        with (
            locked_checkpoints(files) if ours else nullcontext(),
            claimed(files, store.run, work_dir, resume=state is not None) if ours else nullcontext(),
            checkpointer.flushed(),
            stop_on_signals(
                engine, save=alone and not saves, request_checkpoint=None if alone else vote.request_checkpoint
            ),
            time_limit(engine, _time_left(run, began), save=alone and not saves),
            workers_ended(assembly),
        ):
            check_validation(assembly.sanity if state is None else None, assembly.parts)
            engine.run(*loops, resume=state)
    except StateError as error:
        raise _refused(error, f"{store.files.uri}/{resumed.directory}" if resumed else None) from error
    except (ValueError, RuntimeError) as error:
        note_batch_size(error, communicator.world_size, getattr(assembly.parts["updates"], "accumulative_counts", 1))
        note_torch_checks(error, run, engine.step)
        raise
    best = next((hook for hook in engine.hooks.values() if isinstance(hook, BestHook)), None)
    return Summary(
        metrics=metrics,
        step=engine.step,
        epoch=engine.epoch,
        seconds=perf_counter() - began,
        attempt=engine.attempt,
        best=(best.metric, best.best, best.step) if best and best.best is not None else None,
        stop_reason=engine.stop_reason,
        work_dir=work_dir,
        checkpoints=_shown(run, work_dir) if file_exists(store.files, "latest") else None,
    )


def _refused(error: StateError, checkpoint: str | None) -> CheckpointError:
    message = f"{error.where}: {error.message}" if error.where else error.message
    return CheckpointError(message, where=checkpoint, mend=error.mend)


def _make_places(run: Run, work_dir: Path, communicator: Communicator) -> FileBackend:
    """Make a run's directory on rank 0, and return where its checkpoints lie."""
    files = checkpoint_files(work_dir, run.files.checkpoints)
    if communicator.rank == 0:
        make_work_dir(work_dir)
        if run.files.checkpoints is not None:
            probe_checkpoints(files)
    return files


def _refuse_schedules_without_validation(run: Run, assembly: Assembly) -> None:
    schedules = assembly.parts["schedules"]
    if run.val is not None or not isinstance(schedules, Schedules):
        return
    for each in schedules.schedules:
        if each.metric is not None or each.takes_all_metrics:
            raise ConfigError(
                f"{type(each.scheduler).__name__} steps on a metric, and nothing is validated",
                where="schedules",
                mend="add val: {dataset: …, batch_size: …}, or take another scheduler",
            )


def _time_left(run: Run, began: float) -> float | None:
    seconds = run.limits.max_seconds
    return None if seconds is None else seconds - (perf_counter() - began)


def _shown(run: Run, work_dir: Path) -> str:
    return str(work_dir / CHECKPOINTS) if run.files.checkpoints is None else redacted(run.files.checkpoints)
