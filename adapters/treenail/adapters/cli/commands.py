"""The commands themselves, each from parsed arguments to an exit code."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path

from treenail.adapters.checkpoint import consolidate_checkpoint
from treenail.adapters.comm import SingleProcess, TorchCommunicator, use_communicator
from treenail.adapters.config import Catalog, Loaded, Source, load
from treenail.adapters.documents import Location, Uri
from treenail.adapters.files import LocalFiles, mounts_of, redacted, use_mounts
from treenail.adapters.launch import LAUNCH_ID, detect, process_group
from treenail.adapters.runtime import (
    LIMIT,
    Place,
    Summary,
    choose_place,
    fast_dev_run,
    has_checkpoint,
    is_path,
    on_rank_0,
    open_checkpoint,
    own_name,
)
from treenail.adapters.runtime import export as export_run
from treenail.adapters.runtime import test as test_run
from treenail.adapters.runtime import train as train_run
from treenail.contracts import Distributed
from treenail.kernel import Communicator, ConfigError, Exporter, Spec


def train(options: Namespace) -> int:
    """Train, print a summary, and say how to go on after a stop; on the ranks that a launcher, or the config, started."""
    if options.checkpoint and not options.resume:
        mend = "take it in the place of --auto-resume" if options.auto_resume else "add --resume"
        raise ConfigError("--checkpoint says where to resume from, but --resume is missing", mend=mend)
    if options.restart and not (options.resume or options.auto_resume):
        raise ConfigError(
            "--restart says what begins anew in a run that goes on, but --resume is missing", mend="add it"
        )
    if options.fast_dev_run is not None and (options.resume or options.auto_resume):
        given = "--resume" if options.resume else "--auto-resume"
        raise ConfigError("--fast-dev-run begins anew and keeps nothing", mend=f"leave out {given}, or --fast-dev-run")
    loaded = _load(options)
    settings = loaded.run.distributed
    if settings.processes > 1 and settings.launcher == "none":
        raise ConfigError(
            f"{settings.processes} processes cannot be started with launcher 'none'",
            where="distributed.launcher",
            mend="leave it out, or let processes be 1",
        )
    environment = detect(settings.launcher)
    if environment is None and settings.processes > 1:
        return _start(options, settings.processes)
    if environment and environment.rank == 0 and settings.processes not in {1, environment.world_size}:
        started = f"a launcher started {environment.world_size}, and that counts"
        print(f"warning: distributed.processes is {settings.processes}, but {started}", file=sys.stderr)
    with _ranks(settings) as ranks:
        return _train(options, loaded, ranks) if options.fast_dev_run is None else _try(options, loaded, ranks)


@contextmanager
def _ranks(settings: Distributed) -> Iterator[Communicator]:
    """Join the ranks that a launcher started, if one did."""
    environment = detect(settings.launcher)
    with process_group(environment, settings.backend, settings.timeout):
        ranks = SingleProcess() if environment is None else TorchCommunicator(timeout=settings.timeout)
        with use_communicator(ranks):
            yield ranks


def _start(options: Namespace, processes: int) -> int:
    """Start this command again on every rank."""
    from treenail.adapters.cli.launching import start_ranks

    given = {"--work-dir": options.work_dir, "--checkpoint": options.checkpoint, "--fast-dev-run": options.fast_dev_run}
    flags = {
        "--resume": options.resume,
        "--auto-resume": options.auto_resume,
        "--allow-changes": options.allow_changes,
        "--debug": options.debug,
    }
    words = ["train", *_again(options, _whole), *(flag for flag, is_set in flags.items() if is_set)]
    words += [f"--restart={name}" for name in options.restart]
    words += [f"{name}={value}" for name, value in given.items() if value is not None]
    return start_ranks(["module", "treenail.adapters.cli", *words], processes, debug=options.debug)


def _again(options: Namespace, written: Callable[[Location], str] = str) -> list[str]:
    """Return the arguments that the command was given, but for where the run's files lie and what to resume.

    Args:
        options: Of the command.
        written: How a config's place is written: for people (str), without the credentials of a URI.
    """
    sources = [
        *(f"--with={written(each)}" for each in options.overlays),
        *(f"--allow-import={each}" for each in options.imports),
    ]
    return [written(options.config), *options.overrides, *sources]


def _whole(place: Location) -> str:
    return place.full if isinstance(place, Uri) else str(place)


def _train(options: Namespace, loaded: Loaded, ranks: Communicator) -> int:
    run, document = loaded.run, loaded.document
    elsewhere = run.files.checkpoints

    def choose() -> tuple[Place, str | None]:
        with use_mounts(mounts_of(run.files)):
            fork = _is_elsewhere(options, elsewhere)
            place = choose_place(
                options.config,
                options.work_dir,
                resume="auto" if options.auto_resume else options.resume,
                launch=os.environ.get(LAUNCH_ID),
                checkpoints=elsewhere,
                fork=fork,
            )
        if place.saved:  # its launcher has started it again, and what was asked for then is done
            return place, "latest"
        return place, options.checkpoint or "latest" if place.resume or fork else None

    (work_dir, _, saved), checkpoint = on_rank_0(ranks, choose)
    first = ranks.rank == 0
    if first:
        print(f"work directory: {work_dir}", file=sys.stderr)
    try:
        summary = train_run(
            run,
            work_dir,
            resume=checkpoint,
            allow_changes=options.allow_changes,
            restart=() if saved else options.restart,  # what is begun anew once is trained on
            document=document,
            communicator=ranks,
        )
    except BaseException:
        if first:
            with suppress(OSError):
                work_dir.rmdir()  # succeeds only if nothing was written
        raise
    if first:
        _print_summary(summary, list(run.vis) or ["jsonlines"])
    reason = (summary.stop_reason or "").partition(" ")[0]
    if reason not in ("SIGINT", "SIGTERM", "SIGUSR1", LIMIT):
        return 0
    if first:
        launched = ranks.world_size > 1 and run.distributed.processes == 1
        command = ["treenail", *(["launch", "--nproc", str(ranks.world_size)] if launched else []), "train"]
        command += [*_again(options), "--work-dir", str(work_dir), "--resume"]
        with use_mounts(mounts_of(run.files)):
            is_saved = has_checkpoint(work_dir, elsewhere)
        if is_saved:
            higher = ", and a higher limits.max_steps" if (run.limits.max_steps or inf) <= summary.step else ""
            print(f"stopped by {summary.stop_reason}; a checkpoint is saved. Go on with{higher}:", file=sys.stderr)
            print(f"  {shlex.join(command)}", file=sys.stderr)
        else:
            print(f"stopped by {summary.stop_reason} before the first step; nothing was to be saved", file=sys.stderr)
    return 0 if reason == LIMIT else 128 + int(signal.Signals[reason])


def _is_elsewhere(options: Namespace, checkpoints: str | None) -> bool:
    """Return whether the checkpoint to resume is not one of the place that the run is told to keep its own in."""
    given = options.checkpoint
    if given is None or not is_path(given):
        return False
    if options.work_dir is None and checkpoints is None:
        return True
    return own_name(given, options.work_dir or Path(), checkpoints) is None


def _try(options: Namespace, loaded: Loaded, ranks: Communicator) -> int:
    summary = fast_dev_run(loaded.run, options.fast_dev_run, document=loaded.document, communicator=ranks)
    reason = (summary.stop_reason or "").partition(" ")[0]
    if ranks.rank == 0:
        rows = [("steps", str(summary.step)), ("time", f"{summary.seconds:.1f} s")]
        rows += [("stopped by", summary.stop_reason)] if summary.stop_reason else []
        rows += [(name, f"{value:.4f}") for name, value in summary.metrics.items()]
        batches = f"{options.fast_dev_run} batch{'es' if options.fast_dev_run > 1 else ''}"
        rows.append(("kept", f"nothing: only {batches} of each set were tried"))
        _print_table(rows)
    return 128 + int(signal.Signals[reason]) if reason.startswith("SIG") else 0


def test(options: Namespace) -> int:
    """Test a checkpoint and print the results; on the ranks that a launcher started."""
    checkpoint = _take_checkpoint(options)
    loaded = _load(options)
    with _ranks(loaded.run.distributed) as ranks:
        metrics = test_run(
            loaded.run,
            checkpoint,
            ranks,
            data=options.data,
            work_dir=options.work_dir,
            output=options.output,
            document=loaded.document,
        )
        if ranks.rank == 0:
            rows = [(name, f"{value:.4f}") for name, value in metrics.items()]
            rows += [("written", redacted(options.output))] if options.output else []
            _print_table(rows)
    return 0


def _take_checkpoint(options: Namespace) -> str:
    """Return the checkpoint that a test was given, in its place or by name; what stood there may be an override."""
    words = [each for each in (options.checkpoint, *options.overrides) if each is not None]
    options.overrides = [each for each in words if "=" in each or each.startswith("~")]
    given = [each for each in words if each not in options.overrides]
    given += [options.named] if options.named is not None else []
    if len(given) != 1:
        has = f"there are {len(given)} checkpoints: {', '.join(given)}" if given else "there is no checkpoint to test"
        raise ConfigError(has, mend="name one, after the config or by --checkpoint: a checkpoint, or a file of weights")
    return str(given[0])


def export(options: Namespace) -> int:
    """Export a checkpoint's model and print how well the artefact agreed with it."""
    run = _load(options).run
    if (environment := detect(run.distributed.launcher)) is not None and environment.world_size > 1:
        raise ConfigError("an export is the work of one process", mend="run it without a launcher")
    exporter = Spec(Catalog().registry("exporter").resolve(options.format)).build()
    if not isinstance(exporter, Exporter):
        raise ConfigError(f"'{options.format}' is no exporter")
    report = export_run(run, options.checkpoint, exporter, options.out)
    rows = [("compared at", " ".join(str(list(shape)) for shape in report.shapes))]
    rows.append(("largest difference", f"{report.max_abs_error:.3g} (accepted: {report.tolerance:.3g})"))
    rows += [("written", path) for path in report.files]
    _print_table(rows)
    return 0


def consolidate(options: Namespace) -> int:
    """Write a checkpoint's tensors into one file of safetensors."""
    out = options.out.absolute()
    if out.is_dir():
        raise ConfigError("this is a directory", where=str(options.out), mend="name a file: …/model.safetensors")
    if out.exists() and not options.force:
        raise ConfigError("this file exists already", where=str(options.out), mend="choose another, or add --force")
    store, name = open_checkpoint(options.checkpoint)
    written = consolidate_checkpoint(store, name, LocalFiles(out.parent), out.name, options.part)
    _print_table([("written", str(options.out)), ("size", f"{written.size / 1e6:.1f} MB")])
    return 0


def adapters(options: Namespace) -> int:
    """List ports and adapters."""
    for port, registry in Catalog().registries.items():
        print(port)
        for scope, adapter in registry:
            missing = adapter.missing()
            status = f"needs {', '.join(missing)}: pip install '{adapter.install}'" if missing else "ready"
            name = adapter.name if scope == "treenail" else f"{scope}:{adapter.name}"
            print(f"  {name:<14} {status:<10} {adapter.summary}")
        for namespace in registry.namespaces:
            print(
                f"  {len(namespace.members())} names of {namespace.module}, such as {', '.join(list(namespace.members())[:3])}"
            )
    return 0


def _load(options: Namespace) -> Loaded:
    return load(Source(options.config, options.overrides, options.overlays, options.imports))


def _print_summary(summary: Summary, curves: Sequence[str]) -> None:
    rows = [("steps", f"{summary.step} ({summary.epoch} epochs)"), ("time", f"{summary.seconds:.1f} s")]
    if summary.stop_reason:
        rows.append(("stopped by", summary.stop_reason))
    if summary.attempt > 1:
        rows.append(("attempt", str(summary.attempt)))
    rows += [(name, f"{value:.4f}") for name, value in summary.metrics.items()]
    if summary.best:
        metric, value, step = summary.best
        rows.append(("best", f"{metric} {value:.4f} at step {step}"))
    rows += _places(summary, curves)
    _print_table(rows)


def _places(summary: Summary, curves: Sequence[str]) -> list[tuple[str, str]]:
    work_dir = summary.work_dir
    local = [
        *(("curves", work_dir / name) for name in sorted(curves)),
        ("log", work_dir / "log.jsonl"),
        ("config", work_dir / "config.yaml"),
    ]
    saved = [] if summary.checkpoints is None else [("checkpoints", summary.checkpoints)]
    return [*saved, *((name, str(path)) for name, path in local if path.exists())]


def _print_table(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


__all__ = ["adapters", "consolidate", "export", "test", "train"]
