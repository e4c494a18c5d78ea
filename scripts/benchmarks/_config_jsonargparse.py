"""jsonargparse in the benchmark `config`: a typed function for the run, `parse_path`, `instantiate_classes`."""

# jsonargparse is not installed where the types are checked.
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call,misc,unused-ignore"

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt
from scripts.benchmarks._config_corpus import Case
from scripts.benchmarks._config_dialects import Dialect, Translation, component_prefixes
from scripts.benchmarks._config_mmengine import NO_ALLOWED_IMPORTS
from scripts.benchmarks._config_parts import build_run, component_paths, path_of
from scripts.benchmarks._config_systems import NotExpressible
from tides import AbsoluteError, Series
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from treenail.adapters.data import Digits
from treenail.adapters.evaluation import Accuracy
from treenail.adapters.loops import EpochLoop
from treenail.adapters.sampling import RandomSampler, SequentialSampler
from treenail.adapters.vis import JsonLines, TensorBoard
from treenail.contracts import TrainWork
from treenail.kernel import Hook

# Classes in place of the Protocols, whose positional-only parameters jsonargparse holds against the implementations.


@dataclass
class Samples:
    """Data to train on."""

    dataset: Digits | Series
    batch_size: PositiveInt
    sampler: Callable[[int], RandomSampler | SequentialSampler] | None = None
    num_workers: NonNegativeInt = 0
    drop_last: bool = False


@dataclass
class Evaluation:
    """Data to evaluate on."""

    dataset: Digits | Series
    batch_size: PositiveInt
    sampler: Callable[[int], RandomSampler | SequentialSampler] | None = None
    num_workers: NonNegativeInt = 0
    drop_last: bool = False
    metrics: list[Accuracy | AbsoluteError] = field(default_factory=list)


@dataclass
class Schedule:
    """A scheduler and when it steps."""

    scheduler: Callable[[Optimizer], LRScheduler]
    every: Literal["step", "epoch"] = "epoch"
    metric: str | None = None


@dataclass
class Checkpoints:
    """Which checkpoints stay."""

    keep_last: PositiveInt | None = 3


def run(
    *,
    model: nn.Module,
    loss: nn.Module,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    train: Samples,
    loop: Callable[[TrainWork], EpochLoop],
    val: Evaluation | None = None,
    test: Evaluation | None = None,
    schedules: list[Schedule] | None = None,
    hooks: dict[str, Hook | None] | None = None,
    vis: dict[str, Callable[[Path], JsonLines | TensorBoard] | None] | None = None,
    checkpoints: Checkpoints = Checkpoints(),  # noqa: B008  # a fixed default, never changed
    seed: NonNegativeInt = 0,
    device: str = "auto",
    threads: PositiveInt | None = None,
) -> None:
    """Describe a run to jsonargparse."""


class JsonArgParse:
    """Everything typed, as LightningCLI does: `class_path` and `init_args`, callables for what is built late."""

    name = "jsonargparse"

    def __init__(self) -> None:
        self._translation = Translation(Dialect("class_path", "clas_path", dotted=True, nested="init_args"))
        self._paths = component_paths()

    def write(self, case: Case, folder: Path) -> Path:
        """Write the config."""
        if case.category == "import that is not allowed":
            raise NotExpressible(NO_ALLOWED_IMPORTS)
        if case.category == "unknown variable":
            raise NotExpressible("jsonargparse's own parser mode knows no variables of the environment")
        if case.category == "removal of what is not there":
            raise NotExpressible("null removes nothing here")
        text = self._translation.write(case)
        path = folder / f"{case.base}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    def load(self, path: Path, case: Case) -> tuple[ArgumentParser, Namespace]:
        """Parse and check against the signatures."""
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--config", action="config")
        parser.add_function_arguments(run)
        if case.override is None:
            return parser, parser.parse_path(str(path))
        return parser, parser.parse_args([f"--config={path}", self._override(case)])

    def _override(self, case: Case) -> str:
        key, equals, value = (case.override or "").partition("=")
        parts = [int(part) if part.isdecimal() else part for part in key.split(".")]
        components = component_prefixes(case)
        changed: list[str] = []
        for index, part in enumerate(parts):
            if isinstance(part, int):
                raise NotExpressible("jsonargparse overrides no items of lists")
            if tuple(parts[:index]) in components:
                changed.append("init_args")
            changed.append(part)
        if "={type: " in (case.override or ""):
            name, _, rest = value.removeprefix("{type: ").removesuffix("}").partition(", ")
            value = f"{{class_path: {path_of(name, self._paths)}, init_args: {{{rest}}}}}"
        return f"--{'.'.join(changed)}{equals}{value}"

    def plain(self, config: tuple[ArgumentParser, Namespace]) -> object:
        """Return what was read, numbers in quotes already as numbers."""
        return {key: value for key, value in config[1].as_dict().items() if key not in ("config", "__path__")}

    def build(self, config: tuple[ArgumentParser, Namespace], directory: Path) -> None:
        """Instantiate; what is built late comes as a callable."""
        parser, parsed = config
        built = parser.instantiate_classes(parsed)
        sections = {key: _section(value) for key, value in vars(built).items() if key != "config"}
        sections["schedules"] = [_section(each) for each in sections["schedules"] or ()]
        build_run(sections, _make, directory)


def _section(value: Any) -> Any:
    if isinstance(value, Samples | Evaluation | Schedule | Checkpoints):
        return dict(vars(value))
    return dict(vars(value)) if isinstance(value, Namespace) else value


def _make(_: str, built: Any, *awaited: object) -> Any:
    return built(*awaited) if awaited else built
