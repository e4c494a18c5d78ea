"""What a run's schedules do, without training."""

from __future__ import annotations

import shutil
import sys
import warnings
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from treenail.adapters.config import Source, load
from treenail.adapters.files import mounts_of, use_mounts
from treenail.adapters.hooks import ScheduleHook, Schedules
from treenail.adapters.runtime import assemble
from treenail.adapters.schedule import scheduled_params
from treenail.adapters.vis import Panel, check_plot, plot_text, save_plot
from treenail.contracts import Distributed, Run
from treenail.kernel import BatchSource, ConfigError, Engine

_HEIGHT = 14
"""Rows of a chart in the terminal."""


class Course(NamedTuple):
    """What is scheduled, step by step.

    Args:
        values: By the names of a run's log, the value at each training step, from the first.
        epoch_length: Training steps of an epoch.
        by_metric: By what it sets, the schedulers that look at a metric, which a course without training leaves out.
    """

    values: Mapping[str, Sequence[float]]
    epoch_length: int
    by_metric: Mapping[str, Sequence[str]]


def plot_schedule(options: Namespace) -> int:
    """Draw what a config's schedules do over the whole run, in the terminal and into a file."""
    if options.steps is not None and options.steps < 1:
        raise ConfigError(f"--steps is {options.steps}, must be at least 1")
    if options.out is not None:
        check_plot(options.out)
    run = load(Source(options.config, options.overrides, options.overlays, options.imports)).run
    course = course_of(run, options.steps)
    panels = panels_of(course)
    print(plot_text(panels, min(shutil.get_terminal_size().columns, 120), _HEIGHT))
    if options.out is not None:
        save_plot(panels, options.out)
        print(f"written: {options.out}", file=sys.stderr)
    return 0


def course_of(run: Run, steps: int | None = None) -> Course:
    """Let a run's schedules step as they do in training, and note what they set.

    Args:
        run: The config. Its model, optimizer, schedules and training data are built, on the CPU of this process.
        steps: How many training steps; None: as many as the run's loop makes.

    Raises:
        BuildError: A component's constructor raised.
        ConfigError: The loop does not say how many steps it makes, or there is no batch.
    """
    alone = replace(run, device="cpu", distributed=Distributed(), val=None, test=None, averaging=None, hooks={}, vis={})
    with use_mounts(mounts_of(run.files)):
        assembly = assemble(alone, Path(), goes_on=True)  # nothing is written: there is no vis
    batches = assembly.parts["batches"]
    if not isinstance(batches, BatchSource) or len(batches) == 0:
        raise ConfigError("there is no batch to train on", where=run.train.dataset.where)
    length = len(batches)
    total = steps or _total_steps(assembly.loop, length)
    engine = Engine({name: assembly.parts[name] for name in ("optimizer", "schedules")})
    schedules = engine.part("schedules", Schedules).schedules
    hook = ScheduleHook()
    hook.before_train(engine)
    gauges = engine.meters.gauges
    values: dict[str, list[float]] = {name: [] for name in gauges}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's, of optimizers that do not step
        for step in range(total):
            for name, gauge in gauges.items():
                values[name].append(gauge())
            hook.after_train_iter(engine, step % length, None, None)
            if (step + 1) % length == 0:
                hook.after_train_epoch(engine)
    by_metric: dict[str, list[str]] = {}
    for each in schedules:
        if each.metric is not None or each.takes_all_metrics:
            for param in scheduled_params(each.scheduler):
                by_metric.setdefault(param, []).append(type(each.scheduler).__name__)
    return Course(values, length, by_metric)


def panels_of(course: Course) -> list[Panel]:
    """Return a chart for the learning rate, one for the momentum, and so on.

    Args:
        course: What is scheduled.
    """
    panels = []
    for param in dict.fromkeys(name.partition("/")[0] for name in course.values):
        lines = {name: values for name, values in course.values.items() if name.partition("/")[0] == param}
        schedulers = ", ".join(dict.fromkeys(course.by_metric.get(param, ())))
        told = f", without {schedulers}, which only a metric can tell" if schedulers else ""
        x_label = f"step ({course.epoch_length} an epoch)"
        panels.append(
            Panel(f"{param}{told}", x_label, param, {name: (range(len(each)), each) for name, each in lines.items()})
        )
    return panels


def _total_steps(loop: object, epoch_length: int) -> int:
    """Return how many steps a loop makes.

    Raises:
        ConfigError: It does not say.
    """
    epochs, steps = getattr(loop, "max_epochs", None), getattr(loop, "max_steps", None)
    if isinstance(steps, int):
        return steps
    if isinstance(epochs, int):
        return epochs * epoch_length
    raise ConfigError(f"{type(loop).__name__} does not say how long it trains", mend="add --steps N")
