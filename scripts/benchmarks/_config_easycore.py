"""easycore in the benchmark `config`: `CfgNode.open`, and its registries for building by hand."""

# easycore is untyped, or not installed where the types are checked.
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call,unused-ignore"

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from easycore.common.config import CfgNode
from easycore.common.registry import Registry
from scripts.benchmarks._config_corpus import Case
from scripts.benchmarks._config_dialects import Dialect, Translation
from scripts.benchmarks._config_mmengine import NO_ALLOWED_IMPORTS
from scripts.benchmarks._config_parts import build_run, component_paths, resolve
from scripts.benchmarks._config_systems import NotExpressible


class EasyCore:
    """`CfgNode` checks names of keys; all else is found by the code that takes the nodes apart."""

    name = "easycore"

    def __init__(self) -> None:
        self._translation = Translation(Dialect())
        self._registries: dict[str, Registry] = {}
        for port, targets in component_paths().items():
            registry = Registry(port)
            for name, path in targets.items():
                registry.register(name, resolve(path))
            self._registries[port] = registry

    def write(self, case: Case, folder: Path) -> Path:
        """Write the text; it is nearly ours."""
        if case.override is not None:
            raise NotExpressible("easycore takes nothing from the command line")
        if case.category == "import that is not allowed":
            raise NotExpressible(NO_ALLOWED_IMPORTS)
        if case.category == "unknown variable":
            raise NotExpressible("easycore knows no variables of the environment")
        if case.category == "removal of what is not there":
            raise NotExpressible("null removes nothing here")
        text = self._translation.write(case)
        path = folder / f"{case.base}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    def load(self, path: Path, _: Case) -> CfgNode:
        """Read and freeze."""
        config = CfgNode.open(str(path))
        config.freeze()
        return config

    def plain(self, config: CfgNode) -> object:
        """Return what was read."""
        return config.dict()

    def build(self, config: CfgNode, directory: Path) -> None:
        """Look every component up in its registry."""
        build_run(config, self._make, directory)

    def _make(self, port: str, node: Mapping[str, Any], *awaited: object) -> Any:
        arguments = {key: self._inner(value) for key, value in node.items() if key != "type"}
        return self._registries[port].get(node["type"])(*awaited, **arguments)

    def _inner(self, value: Any) -> Any:
        if isinstance(value, dict):
            if "type" in value:
                return self._make("module", value)
            return {key: self._inner(item) for key, item in value.items()}
        return [self._inner(item) for item in value] if isinstance(value, list) else value
