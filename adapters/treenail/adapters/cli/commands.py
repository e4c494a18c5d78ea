"""The commands themselves, each from parsed arguments to an exit code."""

from __future__ import annotations

import shlex
import signal
import sys
from argparse import Namespace
from contextlib import suppress
from pathlib import Path

from treenail.adapters.config import Catalog, Loaded, Source, load
from treenail.adapters.runtime import CHECKPOINTS, Summary, choose_work_dir, has_checkpoint, locked
from treenail.adapters.runtime import export as export_run
from treenail.adapters.runtime import test as test_run
from treenail.adapters.runtime import train as train_run
from treenail.kernel import ConfigError, Exporter, Spec


def train(options: Namespace) -> int:
    """Train, print a summary, and say how to go on after a stop."""
    if options.checkpoint and not options.resume:
        raise ConfigError("--checkpoint says where to resume from, but --resume is missing", mend="add --resume")
    run, document = _load(options)
    work_dir = choose_work_dir(options.config, options.work_dir, resume=options.resume)
    print(f"work directory: {work_dir}", file=sys.stderr)
    try:
        with locked(work_dir):
            summary = train_run(
                run,
                work_dir,
                resume=options.checkpoint or "latest" if options.resume else None,
                allow_changes=options.allow_changes,
                document=document,
            )
    except BaseException:
        with suppress(OSError):
            work_dir.rmdir()  # succeeds only if nothing was written
        raise
    _print_summary(summary)
    if summary.stop_reason in ("SIGINT", "SIGTERM"):
        sources = [
            *(f"--with={each}" for each in options.overlays),
            *(f"--allow-import={each}" for each in options.imports),
        ]
        again = ["treenail", "train", str(options.config), *options.overrides, *sources]
        again += ["--work-dir", str(work_dir), "--resume"]
        if has_checkpoint(work_dir):
            print(f"stopped by {summary.stop_reason}; a checkpoint is saved. Go on with:", file=sys.stderr)
            print(f"  {shlex.join(again)}", file=sys.stderr)
        else:
            print(f"stopped by {summary.stop_reason} before the first step; nothing was to be saved", file=sys.stderr)
        return 128 + int(signal.Signals[summary.stop_reason])
    return 0


def test(options: Namespace) -> int:
    """Test a checkpoint and print the results."""
    run = _load(options).run
    metrics = test_run(run, options.checkpoint)
    _print_table([(name, f"{value:.4f}") for name, value in metrics.items()])
    return 0


def export(options: Namespace) -> int:
    """Export a checkpoint's model and print how well the artefact agreed with it."""
    run = _load(options).run
    exporter = Spec(Catalog().registry("exporter").resolve(options.format)).build()
    if not isinstance(exporter, Exporter):
        raise ConfigError(f"'{options.format}' is no exporter")
    report = export_run(run, options.checkpoint, exporter, options.out)
    rows = [("compared at", " ".join(str(list(shape)) for shape in report.shapes))]
    rows.append(("largest difference", f"{report.max_abs_error:.3g} (accepted: {report.tolerance:.3g})"))
    rows += [("written", path) for path in report.files]
    _print_table(rows)
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


def _print_summary(summary: Summary) -> None:
    rows = [("steps", f"{summary.step} ({summary.epoch} epochs)"), ("time", f"{summary.seconds:.1f} s")]
    if summary.stop_reason:
        rows.append(("stopped by", summary.stop_reason))
    if summary.attempt > 1:
        rows.append(("attempt", str(summary.attempt)))
    rows += [(name, f"{value:.4f}") for name, value in summary.metrics.items()]
    if summary.best:
        metric, value, step = summary.best
        rows.append(("best", f"{metric} {value:.4f} at step {step}"))
    for name, path in _places(summary.work_dir):
        rows.append((name, str(path)))
    _print_table(rows)


def _places(work_dir: Path) -> list[tuple[str, Path]]:
    curves = sorted(path for path in work_dir.iterdir() if path.is_dir() and path.name != CHECKPOINTS)
    places = [
        ("checkpoints", work_dir / CHECKPOINTS),
        *(("curves", path) for path in curves),
        ("log", work_dir / "log.jsonl"),
        ("config", work_dir / "config.yaml"),
    ]
    return [(name, path) for name, path in places if path.exists()]


def _print_table(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


__all__ = ["adapters", "export", "test", "train"]
