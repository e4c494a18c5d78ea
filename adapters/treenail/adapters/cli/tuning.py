"""The commands that find settings by trying."""

from __future__ import annotations

import re
import shutil
from argparse import Namespace
from functools import partial
from math import inf

from treenail.adapters.config import Loaded, Source, load
from treenail.adapters.launch import detect
from treenail.adapters.runtime import train_two_steps, tune_batch_size, tune_lr
from treenail.adapters.tuning import LrSweep
from treenail.adapters.vis import Panel, check_plot, plot_text, save_plot
from treenail.contracts import Run
from treenail.kernel import ConfigError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def find_lr(options: Namespace) -> int:
    """Sweep the learning rate, draw the losses, and print what they suggest."""
    if options.out is not None:
        check_plot(options.out)
    run = _load(_source(options)).run
    if not 0 < options.lowest < options.highest < inf or options.steps < 10:
        raise ConfigError(
            f"learning rates from {options.lowest:g} to {options.highest:g} in {options.steps} steps make no sweep",
            mend="choose 0 < --lowest < --highest < inf, and at least 10 --steps",
        )
    sweep = tune_lr(run, lowest=options.lowest, highest=options.highest, steps=options.steps)
    panels = [panel_of(sweep)]
    print(plot_text(panels, min(shutil.get_terminal_size().columns, 100), 20))
    end = f"diverged at {sweep.lrs[-1]:.2g}" if sweep.diverged else f"not diverged up to {sweep.lrs[-1]:.2g}"
    print(f"steepest descent  {sweep.steepest:.2g}")
    print(f"minimum / 10      {sweep.minimum_tenth:.2g}")
    print(f"batch size        {run.train.batch_size}; {end}, after {len(sweep.lrs)} steps")
    if options.out is not None:
        save_plot(panels, options.out)
        print(f"written           {options.out}")
    return 0


def panel_of(sweep: LrSweep) -> Panel:
    """Return the drawing of a sweep, suggestions as upright lines."""
    bounds = min(sweep.smoothed), max(sweep.smoothed)
    return Panel(
        title="learning rate range test",
        x_label="learning rate",
        y_label="loss",
        lines={
            "smoothed loss": (sweep.lrs, sweep.smoothed),
            "steepest descent": ((sweep.steepest,) * 2, bounds),
            "minimum / 10": ((sweep.minimum_tenth,) * 2, bounds),
        },
        log_x=True,
    )


def find_batch_size(options: Namespace) -> int:
    """Try batch sizes, and print which fit."""
    source = _source(options)
    run = _load(source).run
    limit = None if options.memory_limit is None else size_in_bytes(options.memory_limit)
    found = tune_batch_size(
        run, memory_limit=limit, first=options.first, most=options.most, attempt=partial(_attempt, source)
    )
    for size, fits in found.tries:
        print(f"{size:>8}  {'fits' if fits else 'does not fit'}")
    if found.largest == 0:
        raise ConfigError("not even a batch of one sample fits", mend="use a smaller model, or more memory")
    print(f"largest batch  {found.largest} (power of two: {found.power_of_two}), of one process")
    return 0


def size_in_bytes(text: str) -> int:
    """Return a number of bytes as people write it: 8GiB, 500 MB, 1e9.

    Raises:
        ConfigError: It is none.
    """
    found = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)\s*([kmg]?i?)b?", text.strip().lower())
    try:
        size = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    except (ValueError, KeyError):
        size = 0
    if size < 1:
        raise ConfigError(f"'{text}' is no amount of memory", mend="write 8GiB, 500MB …")
    return size


def _attempt(source: Source, batch_size: int) -> None:
    train_two_steps(load(source).run, batch_size)


def _source(options: Namespace) -> Source:
    return Source(options.config, options.overrides, options.overlays, options.imports)


def _load(source: Source) -> Loaded:
    loaded = load(source)
    _refuse_ranks(loaded.run)
    return loaded


def _refuse_ranks(run: Run) -> None:
    if (environment := detect(run.distributed.launcher)) is not None and environment.world_size > 1:
        raise ConfigError("settings are tried in one process", mend="run it without a launcher")


__all__ = ["find_batch_size", "find_lr"]
