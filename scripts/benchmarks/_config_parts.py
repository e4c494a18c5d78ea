"""What the contestants of the benchmark `config` build: the components by name, and the parts of a run."""

# The corpus' own package is found at run time only.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.data import Loader
from treenail.adapters.files import LocalFiles
from treenail.adapters.hooks import BoundSchedule, Schedules
from treenail.adapters.loops import EvalLoop
from treenail.adapters.optim import SupervisedStep
from treenail.adapters.sampling import RandomSampler, SequentialSampler
from treenail.adapters.seeding import seed_process
from treenail.contracts import TrainWork

Make = Callable[..., Any]  # the contestants give it anything, and get anything: (port, what the config says, awaited …)

LATE = frozenset({"optimizer", "scheduler", "sampler", "loop", "vis"})
"""The ports whose components get their first argument only when the run is built."""

_PATHS: dict[str, dict[str, str]] = {
    "sampler": {
        "random": "treenail.adapters.sampling.RandomSampler",
        "RandomSampler": "treenail.adapters.sampling.RandomSampler",
        "sequential": "treenail.adapters.sampling.SequentialSampler",
    },
    "loop": {"epochs": "treenail.adapters.loops.EpochLoop"},
    "dataset": {"digits": "treenail.adapters.data.Digits", "tides:Series": "tides.Series"},
    "metric": {"accuracy": "treenail.adapters.evaluation.Accuracy", "tides:AbsoluteError": "tides.AbsoluteError"},
    "hook": {
        "timer": "treenail.adapters.hooks.TimerHook",
        "logger": "treenail.adapters.hooks.LoggerHook",
        "checkpoint": "treenail.adapters.hooks.CheckpointHook",
        "best": "treenail.adapters.hooks.BestHook",
        "BestHook": "treenail.adapters.hooks.BestHook",
        "tides:EarlyStop": "tides.EarlyStop",
    },
    "vis": {"jsonlines": "treenail.adapters.vis.JsonLines", "tensorboard": "treenail.adapters.vis.TensorBoard"},
    "loss": {"cross_entropy": "torch.nn.CrossEntropyLoss", "tides:QuantileLoss": "tides.QuantileLoss"},
    "module": {
        "Sequential": "scripts.benchmarks._config_parts.sequential",
        **{f"tides:{name}": f"tides.{name}" for name in ("Head", "Scaling", "Convolutions", "Forecaster", "Ensemble")},
    },
}


def sequential(args: list[nn.Module]) -> nn.Module:
    """Chain modules: `torch.nn.Sequential` for systems that give arguments by name only."""
    return nn.Sequential(*args)


def _subclasses(module: str, base: type) -> dict[str, str]:
    return {
        name: f"{module}.{name}"
        for name, found in vars(import_module(module)).items()
        if isinstance(found, type) and issubclass(found, base) and found is not base
    }


def component_paths() -> dict[str, dict[str, str]]:
    """Return where each component lies, by port and name; the corpus' package, torch's classes, and ours."""
    modules = _subclasses("torch.nn", nn.Module)
    return _PATHS | {
        "module": modules | _PATHS["module"],
        "loss": {name: path for name, path in modules.items() if name.endswith("Loss")} | _PATHS["loss"],
        "optimizer": _subclasses("torch.optim", Optimizer),
        "scheduler": _subclasses("torch.optim.lr_scheduler", LRScheduler),
    }


def path_of(name: str, paths: Mapping[str, Mapping[str, str]]) -> str:
    """Return the dotted path of a component as a user of hydra or jsonargparse writes it, misspelt as the name is."""
    known = {each: path for port in paths.values() for each, path in port.items()}
    if ":" in name:
        return name.replace(":", ".")
    if name in known:
        return known[name]
    nearest = get_close_matches(name, known, 1, cutoff=0)
    return f"{known[nearest[0]].rpartition('.')[0]}.{name}" if nearest else name


def resolve(path: str) -> Callable[..., object]:
    """Return what a dotted path leads to."""
    module, _, name = path.rpartition(".")
    found: Callable[..., object] = getattr(import_module(module), name)
    return found


def first_parameter(target: Callable[..., object]) -> str:
    """Return the name of a callable's first parameter, for systems that give arguments by name only."""
    return next(iter(inspect.signature(target).parameters))


def build_run(config: Mapping[str, Any], make: Make, directory: Path) -> None:
    """Build all parts of a run but train nothing, as the training of treenail and the runners of the peers do.

    Unknown sections are passed over, as runners that look up what they need do; other keys go to the constructors.

    Args:
        config: The sections.
        make: Builds one component from what the config says about it.
        directory: Where the parts may write.
    """
    seed = config.get("seed", 0)
    seed_process(seed)
    if config.get("threads") is not None:
        torch.set_num_threads(config["threads"])
    device = torch.device(config.get("device", "cpu")) if config.get("device") != "auto" else torch.device("cpu")
    model = make("module", config["model"]).to(device)
    loss = make("loss", config["loss"])
    optimizer = make("optimizer", config["optimizer"], list(model.parameters()))
    bound = []
    for entry in config.get("schedules") or ():
        rest = {"every": "epoch", "metric": None} | {key: entry[key] for key in entry if key != "scheduler"}
        bound.append(BoundSchedule(make("scheduler", entry["scheduler"], optimizer), **rest))
    Schedules(bound)
    batches, _ = _load(config["train"], make, seed, "train")
    loops = {}
    for mode in ("val", "test"):
        if config.get(mode) is not None:
            evaluated, metrics = _load(config[mode], make, seed, mode)
            loops[mode] = EvalLoop("val" if mode == "val" else "test", model, loss, evaluated, metrics, device, seed)
    step = SupervisedStep(model, loss, optimizer, device)
    make("loop", config["loop"], TrainWork(step=step, batches=batches, validation=loops.get("val")))
    for port, section in (("hook", "hooks"), ("vis", "vis")):
        for name, entry in (config.get(section) or {}).items():
            if entry is not None:
                make(port, entry, *([directory / name] if port == "vis" else []))
    CheckpointStore(LocalFiles(directory / "checkpoints"), **(config.get("checkpoints") or {}))


def _load(section: Mapping[str, Any], make: Make, seed: int, mode: str) -> tuple[Loader, list[Any]]:
    rest = {key: section[key] for key in section if key not in ("dataset", "sampler", "metrics")}
    dataset = make("dataset", section["dataset"])
    if section.get("sampler") is not None:
        sampler = make("sampler", section["sampler"], len(dataset))
    else:
        sampler = RandomSampler(len(dataset), seed) if mode == "train" else SequentialSampler(len(dataset))
    if mode == "train" and "metrics" in section:
        rest["metrics"] = section["metrics"]
    metrics = [make("metric", entry) for entry in section.get("metrics") or ()] if mode != "train" else []
    return Loader(dataset, sampler, seed=seed, **rest), metrics
