"""mmengine in the benchmark `config`: `Config.fromfile`, `merge_from_dict` for the command line, registries for building."""

# mmengine is untyped, or not installed where the types are checked.
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call,no-any-return,unused-ignore"

from __future__ import annotations

import inspect
from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import Registry, build_from_cfg
from scripts.benchmarks._config_corpus import Case
from scripts.benchmarks._config_dialects import Dialect, Translation
from scripts.benchmarks._config_parts import build_run, component_paths, first_parameter, resolve
from scripts.benchmarks._config_systems import NotExpressible

from treenail.contracts import TrainWork

_DEFAULT_HOOKS = ("timer", "logger", "progress", "schedule", "checkpoint", "vis")
NO_ALLOWED_IMPORTS = "the system has no list of modules that a config may import"


class MMEngine:
    """A registry for each port, as mmengine's own; nested components are built by the registry of modules."""

    name = "mmengine"

    def __init__(self) -> None:
        self._translation = Translation(Dialect(variable="{{{{$" + "{0}" + ":}}}}"))
        self._registries: dict[str, Registry] = {}
        for port, targets in component_paths().items():
            registry = Registry(port, build_func=self._build)
            for name, path in targets.items():
                registry.register_module(name=name, module=resolve(path))
            self._registries[port] = registry

    def write(self, case: Case, folder: Path) -> Path:
        """Write the text; it is nearly ours."""
        if case.category == "import that is not allowed":
            raise NotExpressible(NO_ALLOWED_IMPORTS)
        text = self._translation.write(case)
        path = folder / f"{case.base}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    def load(self, path: Path, case: Case) -> Config:
        """Read the file, then the command line as the tools of OpenMMLab do."""
        config = Config.fromfile(path)
        if case.override is not None:
            if "={" in case.override:
                raise NotExpressible("DictAction reads no mappings")
            override = case.override.replace("=null", "=None").replace("=true", "=True")
            parser = ArgumentParser()
            parser.add_argument("--cfg-options", nargs="+", action=DictAction)
            config.merge_from_dict(parser.parse_args(["--cfg-options", override]).cfg_options)
        return config

    def plain(self, config: Config) -> object:
        """Return what was read."""
        return config.to_dict()

    def build(self, config: Config, directory: Path) -> None:
        """Build from the registries; a hook removed by null must be there, as in mmengine's Runner."""
        for name, entry in (config.get("hooks") or {}).items():
            if entry is None and name not in _DEFAULT_HOOKS:
                raise AssertionError(f"hook {name} is None")
        build_run(config, self._make, directory)

    def _make(self, port: str, config: object, *awaited: object) -> Any:
        registry = self._registries[port]
        if not awaited:
            return registry.build(config)
        target = registry.get(config["type"]) if isinstance(config, Mapping) and "type" in config else None
        first = first_parameter(target) if target is not None else "awaited"
        given = awaited[0]
        if isinstance(given, TrainWork):  # mmengine copies tuples item by item, and cannot copy a named one
            given = SimpleNamespace(**given._asdict())
        return registry.build(config, default_args={first: given})

    def _build(self, config: Any, registry: Registry, default_args: Any = None) -> Any:
        """Build nested components first: what a constructor of OpenMMLab does by `MODELS.build(part)`."""
        if isinstance(config, dict):
            config = type(config)({key: self._inner(value) for key, value in config.items()})
        return build_from_cfg(config, registry, default_args)

    def _inner(self, value: Any) -> Any:
        if isinstance(value, dict):
            if "type" in value and not inspect.isclass(value["type"]):
                return self._registries["module"].build(value)
            return {key: self._inner(item) for key, item in value.items()}
        return [self._inner(item) for item in value] if isinstance(value, list) else value
