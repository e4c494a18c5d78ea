"""hydra in the benchmark `config`: `compose` with structured configs for the fixed sections, `instantiate` for building."""

# hydra is not installed where the types are checked.
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call,misc,unused-ignore"

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import MISSING, DictConfig, OmegaConf
from scripts.benchmarks._config_corpus import Case
from scripts.benchmarks._config_dialects import Dialect, Translation
from scripts.benchmarks._config_mmengine import NO_ALLOWED_IMPORTS
from scripts.benchmarks._config_parts import build_run, component_paths, path_of
from scripts.benchmarks._config_systems import NotExpressible, base_text

_HEADER = "defaults:\n- run_schema\n- _self_\n"


class Every(Enum):
    """When a scheduler steps."""

    step = "step"
    epoch = "epoch"


# The schema of the fixed sections; hydra cannot describe a component's arguments without a dataclass for each component.


@dataclass
class Samples:
    dataset: Any = MISSING
    batch_size: int = MISSING
    sampler: Any = None
    num_workers: int = 0
    drop_last: bool = False


@dataclass
class Evaluation(Samples):
    metrics: list[Any] = field(default_factory=list)


@dataclass
class Schedule:
    scheduler: Any = MISSING
    every: Every = Every.epoch
    metric: str | None = None


@dataclass
class Checkpoints:
    keep_last: int | None = 3


@dataclass
class RunSchema:
    model: Any = MISSING
    loss: Any = MISSING
    optimizer: Any = MISSING
    train: Samples = MISSING
    loop: Any = MISSING
    val: Evaluation | None = None
    test: Evaluation | None = None
    schedules: list[Schedule] = field(default_factory=list)
    hooks: dict[str, Any] = field(default_factory=dict)
    vis: dict[str, Any] = field(default_factory=dict)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    seed: int = 0
    device: str = "auto"
    threads: int | None = None


class Hydra:
    """A schema for the sections, `_target_` for the components, `missing_keys` after loading."""

    name = "hydra"

    def __init__(self) -> None:
        ConfigStore.instance().store(name="run_schema", node=RunSchema)
        self._translation = Translation(
            Dialect(
                "_target_", "_traget_", dotted=True, late="_partial_", positional="_args_", variable="${{oc.env:{0}}}"
            )
        )
        self._paths = component_paths()

    def write(self, case: Case, folder: Path) -> Path:
        """Write the config below the schema."""
        if case.category == "import that is not allowed":
            raise NotExpressible(NO_ALLOWED_IMPORTS)
        if case.category == "removal of what is not there":
            raise NotExpressible("null removes nothing here")
        text = self._translation.write(case)
        if text.startswith(("{", "%", "---")):
            raise NotExpressible("a defaults list needs a block mapping around it")
        path = folder / "case.yaml"
        path.write_text(_HEADER + text, encoding="utf-8")
        return path

    def load(self, path: Path, case: Case) -> DictConfig:
        """Compose, and ask for what is missing."""
        GlobalHydra.instance().clear()
        overrides = [self._override(case)] if case.override is not None else []
        with initialize_config_dir(str(path.parent), version_base="1.3"):
            config = compose(path.stem, overrides)
        if missing := OmegaConf.missing_keys(config):
            raise ValueError(f"missing: {', '.join(sorted(missing))}")
        OmegaConf.resolve(config)
        return config

    def _override(self, case: Case) -> str:
        text = case.override or ""
        key, equals, value = text.partition("=")
        if re.search(r"\.\d+(\.|$)", key):
            raise NotExpressible("hydra overrides no items of lists")
        value = re.sub(
            r"type: (\w+)", lambda found: f"_target_: {path_of(found[1], self._paths)}, _partial_: true", value
        )
        is_new = case.kind == "variation" and OmegaConf.select(OmegaConf.create(base_text(case)), key) is None
        return f"{'+' if is_new else ''}{key}{equals}{value}"  # who means to add a key writes the +

    def read(self, path: Path) -> object:
        """Read the file by `OmegaConf.load`."""
        return OmegaConf.load(path)

    def plain(self, config: DictConfig) -> object:
        """Return what was read."""
        return OmegaConf.to_container(config)

    def build(self, config: DictConfig, directory: Path) -> None:
        """Instantiate every component."""
        build_run(config, _make, directory)


def _make(_: str, node: Any, *awaited: object) -> Any:
    # "all": components get plain lists and mappings, as their annotations ask
    built = instantiate(node, _convert_="all")
    return built(*awaited) if awaited else built
