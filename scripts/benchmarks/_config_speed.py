"""Loading a config of 200 components in the benchmark `config`; and `treenail check` from the shell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from scripts.benchmarks._config_corpus import Case
from scripts.benchmarks._config_systems import Reader, System
from scripts.benchmarks._config_worker import make_system
from scripts.benchmarks._timing import Turn, compare, interleave

REFERENCE = "mmengine"
SLOW = "jsonargparse"  # seconds, not milliseconds: it runs in fewer rounds
SLOW_ROUNDS = 3
CHECKS = 20

_BLOCK = """\
    - type: Conv2d
      in_channels: 32
      out_channels: 32
      kernel_size: 3
      padding: 1
      bias: false
    - type: BatchNorm2d
      num_features: 32
      momentum: 0.05
"""
_FLOW = """\
    - {type: Conv2d, in_channels: 32, out_channels: 32, kernel_size: [3, 3], padding: 1}
    - {type: LeakyReLU, negative_slope: 0.02}
    - {type: Dropout, p: 0.1}
"""
_NESTED = """\
    - type: Sequential
      args:
        - {type: GroupNorm, num_groups: 4, num_channels: 32, eps: 1.0e-6}
        - type: GELU
          approximate: tanh
        - {type: Identity}
"""
_ENDS = """\
    - {type: ReLU}
    - {type: BatchNorm2d, num_features: 32}
    - {type: Dropout2d, p: 0.1}
    - {type: AdaptiveAvgPool2d, output_size: 8}
    - {type: Flatten}
    - {type: Linear, in_features: 2048, out_features: 10}
"""
_REST = """\
loss: {type: CrossEntropyLoss, label_smoothing: 0.05}
optimizer: {type: AdamW, lr: 2.0e-3, betas: [0.9, 0.98], weight_decay: 0.01}
schedules:
  - scheduler: {type: LinearLR, start_factor: 0.1, total_iters: 100}
    every: step
  - scheduler: {type: CosineAnnealingLR, T_max: 300}
    every: step
train:
  dataset: {type: digits, split: train}
  sampler: {type: random}
  batch_size: 64
val:
  dataset: {type: digits, split: val}
  batch_size: 256
  metrics: [{type: accuracy}, {type: accuracy, top_k: 5}]
loop: {type: epochs, max_epochs: 15}
hooks:
  checkpoint: {type: checkpoint, interval: 5, by: epoch}
  best: {type: best, metric: val/accuracy, mode: max}
vis:
  jsonlines: {type: jsonlines}
"""


def large_config() -> str:
    """Return the text of a run with 200 components, in block and in flow style."""
    blocks = (_BLOCK + _FLOW + _NESTED) * 20
    return f"seed: 0\nthreads: 1\nmodel:\n  type: Sequential\n  args:\n{blocks}{_ENDS}{_REST}"


def time_loading(names: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Let the systems load the same run in turns, each between two loads by the reference.

    Args:
        names: The systems.
        rounds: Turns of each; the slow one has fewer.
    """
    with TemporaryDirectory() as folder:
        loads: dict[str, Callable[[], float]] = {}
        for name in {REFERENCE: None} | dict.fromkeys(names):
            loads |= _loaders(make_system(name), Path(folder) / name)
        reference = loads[REFERENCE]
        contestants = {label: load for label, load in loads.items() if label.partition(",")[0] in names}
        slow = {SLOW: contestants.pop(SLOW)} if SLOW in contestants else {}
        turns: dict[str, list[Turn[float]]] = interleave(reference, contestants, rounds) if contestants else {}
        turns |= interleave(reference, slow, min(SLOW_ROUNDS, rounds)) if slow else {}
    results = {}
    for name, series in turns.items():
        figures = compare([Turn(*(seconds * 1e3 for seconds in turn)) for turn in series])
        minimum = min(turn.own for turn in series) * 1e3
        results[name] = {"median_ms": figures.median, "minimum_ms": minimum, "ratio": figures.ratio}
    return results


def _loaders(system: System, folder: Path) -> dict[str, Callable[[], float]]:
    folder.mkdir()
    case = Case("speed", "variation", "speed", "digits", large_config())
    path = system.write(case, folder)
    found: dict[str, Callable[[], float]] = {system.name: partial(_time, partial(system.load, path, case))}
    if isinstance(system, Reader):
        found[f"{system.name}, reading only"] = partial(_time, partial(system.read, path))
    return found


def _time(load: Callable[[], object]) -> float:
    begin = perf_counter()
    load()
    return perf_counter() - begin


def time_check() -> dict[str, float]:
    """Time `treenail check` in fresh processes: the first with an empty cache, then with what that one left there."""
    with TemporaryDirectory() as name:
        path = Path(name) / "large.yaml"
        path.write_text(large_config(), encoding="utf-8")
        environment = {**os.environ, "XDG_CACHE_HOME": name}
        seconds = [_check(path, environment) for _ in range(CHECKS + 1)]
    first, *others = seconds
    return {"first": first, "median": median(others), "minimum": min(others)}


def _check(path: Path, environment: dict[str, str]) -> float:
    begin = perf_counter()
    command = [str(Path(sys.executable).with_name("treenail")), "check", str(path)]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return perf_counter() - begin
