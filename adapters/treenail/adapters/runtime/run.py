"""What the commands do: train, test and export a run."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from treenail.adapters.averaging import load_averages
from treenail.adapters.checkpoint import CheckpointStore, RankCheckpointer
from treenail.adapters.comm import SingleProcess, current_communicator
from treenail.adapters.documents import Document, dump_document, replace_text
from treenail.adapters.files import (
    backend_at,
    current_mounts,
    file_exists,
    is_directory,
    mounts_of,
    redacted,
    use_mounts,
)
from treenail.adapters.hooks import (
    AveragingHook,
    BestHook,
    CheckpointHook,
    LoggerHook,
    NonFiniteHook,
    ProgressHook,
    ScheduleHook,
    Schedules,
    StragglerHook,
    TimerHook,
    VisHook,
)
from treenail.adapters.runtime.assemble import Assembly, assemble, choose_device, evaluation, load, prepare_process
from treenail.adapters.runtime.changes import refuse_changes
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
from treenail.contracts import Loss, Run
from treenail.kernel import (
    CheckpointError,
    Communicator,
    ConfigError,
    Engine,
    Exporter,
    Hook,
    Late,
    Loop,
    ParityReport,
    Spec,
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
    with (
        failures_told(communicator),
        use_mounts(mounts_of(run.files)),
        deterministic_algorithms(run.deterministic),
        torch.autograd.set_detect_anomaly(True) if run.detect_anomaly else nullcontext(),
    ):
        return _train(run, work_dir, resume, document, communicator, allow_changes=allow_changes)


def _train(
    run: Run,
    work_dir: Path,
    resume: str | None,
    document: Document | None,
    communicator: Communicator,
    *,
    allow_changes: bool,
) -> Summary:
    began = perf_counter()
    elsewhere = run.files.checkpoints is not None
    files = checkpoint_files(work_dir, run.files.checkpoints)
    if communicator.rank == 0:
        make_work_dir(work_dir)
        if elsewhere:
            probe_checkpoints(files)
    if not run.vis:
        run = msgspec.structs.replace(run, vis={"jsonlines": Late(JsonLines, awaited=1)})
    assembly = assemble(run, work_dir, document, communicator)
    _refuse_schedules_without_validation(run, assembly)
    store = CheckpointStore(
        files,
        keep_last=run.checkpoints.keep_last,
        config=assembly.config,
        world_size=communicator.world_size,
    )
    checkpointer = RankCheckpointer(store, communicator)
    alone = communicator.world_size == 1
    saves = True
    vote = StopVote(communicator, lambda reason: None if saves else engine.request_checkpoint(reason))
    engine = Engine(
        assembly.parts,
        checkpointer=checkpointer,
        agree=None if alone else vote,
    )
    for name, hook in default_hooks(run, assembly, work_dir, communicator).items():
        engine.attach(hook, name)
    if not alone:
        engine.attach(vote, "stop vote")
    saves = any(isinstance(hook, CheckpointHook) for hook in engine.hooks.values())
    state = None
    if resume:
        manifest, state = checkpointer.load(resume, assembly.parts)
        store.run = manifest.run
        if not allow_changes:
            refuse_changes(manifest.config, assembly.config, store.resolve(resume))
    if (
        document is not None and not document.has_originals and communicator.rank == 0
    ):  # a Python config is kept by its users, as code
        replace_text(work_dir / CONFIG, dump_document(document))

    def load_last() -> dict[str, object]:
        manifest, last = checkpointer.load("latest", assembly.parts)
        if manifest.run != on_rank_0(communicator, lambda: store.run):
            raise CheckpointError("the last checkpoint there is another run's", where=store.files.uri)
        return last

    loops: list[Loop] = [RollbackLoop(assembly.loop, load_last), *([assembly.test] if assembly.test else [])]
    metrics: dict[str, float] = {}
    engine.subscribe(
        lambda record: metrics.update({k: v for k, v in record.values.items() if k.startswith(("val/", "test/"))})
    )
    try:
        ours = elsewhere and communicator.rank == 0
        with (
            claimed(files, store.run, work_dir, resume=state is not None) if ours else nullcontext(),
            stop_on_signals(engine, save=alone and not saves),
        ):
            engine.run(*loops, resume=state)
    except StateError as error:
        message = f"{error.where}: {error.message}" if error.where else error.message
        where = f"{store.files.uri}/{store.resolve(resume)}" if resume else None
        raise CheckpointError(message, where=where, mend=error.mend) from error
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


def _shown(run: Run, work_dir: Path) -> str:
    return str(work_dir / CHECKPOINTS) if run.files.checkpoints is None else redacted(run.files.checkpoints)


def default_hooks(
    run: Run, assembly: Assembly, work_dir: Path, communicator: Communicator | None = None
) -> dict[str, Hook]:
    """Return the hooks of a run by name: the defaults, those of the config in their place or besides, none for null.

    Ranks other than 0 have no progress bar, and say nothing but what their own log files hold, if they shall have some.

    Raises:
        BuildError: A hook's constructor raised.
        ConfigError: A step that fails shall be rolled back, and nothing saves a checkpoint to go back to.
    """
    communicator = communicator or SingleProcess()
    rank, settings = communicator.rank, run.distributed
    many = communicator.world_size > 1
    specs: dict[str, Spec[Hook] | None] = {
        "timer": Spec(TimerHook),
        "logger": Spec(LoggerHook),
        "progress": Spec(ProgressHook),
        "schedule": Spec(ScheduleHook),
        "checkpoint": Spec(CheckpointHook),
        "averaging": Spec(AveragingHook) if run.averaging is not None else None,
        "stragglers": Spec(StragglerHook, (settings.stragglers,)) if many and settings.stragglers is not None else None,
        **run.hooks,
    }
    log = "log.jsonl" if rank == 0 else f"log.rank{rank}.jsonl" if settings.rank_logs else None
    # For our own hooks only: one of somebody's may mean something else by these names.
    given: dict[object, dict[str, object]] = {
        LoggerHook: {
            **({"log_file": work_dir / log} if log else {}),
            **({"communicator": communicator} if many else {}),
        },
        StragglerHook: {"communicator": communicator},
        NonFiniteHook: {"communicator": communicator},
    }
    hooks = {
        name: each.filled(**given.get(each.target, {})).build()
        for name, each in specs.items()
        if each is not None and not (rank > 0 and each.target is ProgressHook)
    }
    goes_back = any(isinstance(hook, NonFiniteHook) and hook.action == "rollback" for hook in hooks.values())
    if goes_back and "checkpoint" not in hooks:  # one of somebody's may save under this name
        raise ConfigError(
            "a rollback goes back to a checkpoint, and there is no hook 'checkpoint' that saves one",
            where="hooks.checkpoint",
            mend="do not set it to null, or choose another action",
        )
    if run.averaging is not None and "averaging" not in hooks:
        raise ConfigError(
            "the hook 'averaging' averages the weights, and there is none",
            where="hooks.averaging",
            mend="do not set it to null, or leave out averaging",
        )
    if "vis" not in specs and assembly.vis:
        config = msgspec.json.format(msgspec.json.encode(assembly.config)).decode()
        hooks["vis"] = VisHook(list(assembly.vis.values()), run=work_dir.name, config=config)
    return hooks


def test(
    run: Run,
    checkpoint: str | Path,
    communicator: Communicator | None = None,  # noqa: PT028  # not a test of pytest
) -> dict[str, float]:
    """Test the model of a checkpoint, on one rank or on many that all call this; return the results by name.

    Args:
        run: The config; it must have a test.
        checkpoint: A checkpoint's directory, or a pointer: ``…/checkpoints/best``.
        communicator: The ranks, each of which has the whole model; the `current_communicator` when None.

    Raises:
        TreenailError: The config has no test, or the checkpoint cannot be used.
    """
    if run.test is None:
        raise ConfigError("the config has no 'test'", mend="add test: {dataset: …, batch_size: …, metrics: […]}")
    ranks = communicator or current_communicator()
    with failures_told(ranks), use_mounts(mounts_of(run.files)), deterministic_algorithms(run.deterministic):
        device = prepare_process(run)
        model, loss = load_trained(run, checkpoint)
        if isinstance(loss, nn.Module):
            loss.to(device)
        loop = evaluation(run, run.test, "test", model.to(device), loss, device, ranks)
        Engine().run(loop)
    if loop.metrics is None:
        raise AssertionError("an uninterrupted evaluation has metrics")
    return loop.metrics


def export(run: Run, checkpoint: str | Path, exporter: Exporter, destination: Path) -> ParityReport:
    """Export the model of a checkpoint, with a batch of the config's data as example input.

    Raises:
        TreenailError: The checkpoint cannot be used, or the artefact does not agree with the model.
    """
    with use_mounts(mounts_of(run.files)):
        prepare_process(run)
        model, _ = load_trained(run, checkpoint)
        data = run.test or run.val or run.train
        batch = next(iter(load(data, run.seed, "test", choose_device("cpu"))), None)
        if not isinstance(batch, list | tuple) or not batch or not isinstance(batch[0], Tensor):
            raise ConfigError(
                "the data gives no (inputs, targets) batch", where=data.dataset.where, mend="is the dataset empty?"
            )
        return exporter.export(model, batch[0][:4], destination)


def open_checkpoint(checkpoint: str | Path) -> tuple[CheckpointStore, str]:
    """Return the store that a checkpoint lies in, and its name there.

    Args:
        checkpoint: Its path or URI, or that of a pointer to it.

    Raises:
        CheckpointError: There is no such checkpoint.
        FileError: Nothing serves the URI.
    """
    place, where = current_mounts().resolve(checkpoint), redacted(str(checkpoint))
    parent, _, name = place.path.rpartition("/")
    if not name or not (file_exists(place.backend, place.path) or is_directory(place.backend, place.path)):
        raise CheckpointError("there is no such checkpoint", where=where, mend="name …/checkpoints/latest")
    return CheckpointStore(backend_at(place._replace(path=parent))), name


def load_trained(run: Run, checkpoint: str | Path) -> tuple[nn.Module, Loss | None]:
    """Build the model and the loss of a config and give them a checkpoint's weights.

    Raises:
        CheckpointError: There is no such checkpoint, it is damaged, or it is of another model.
    """
    store, name = open_checkpoint(checkpoint)
    where = redacted(str(checkpoint))
    _, state = store.load(name)
    model, loss = run.model.build(), run.loss.build() if run.loss is not None else None
    for name, part in (("model", model), ("loss", loss)):
        weights = state.get(name)
        if not isinstance(part, nn.Module):
            continue
        if not isinstance(weights, dict):
            raise CheckpointError(f"the checkpoint holds no {name}", where=where)
        try:
            part.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"the checkpoint is of another {name}: {_first_mismatch(error)}",
                where=where,
                mend="use the config that it was trained with",
            ) from error
    if isinstance(averages := state.get("averages"), dict):
        load_averages(model, averages)
    return model, loss


def _first_mismatch(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()] or [str(error)]
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return lines[0].rstrip(".") + more
