"""Without a single extra, every module that is about no other package can be imported."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]

_BEGIN = """
import importlib, pkgutil, sys
from importlib.machinery import PathFinder

class Core(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {absent!r} else super().find_spec(name, path, target)

sys.meta_path[:] = [Core if finder is PathFinder else finder for finder in sys.meta_path]
"""

_IMPORT_ALL = """
import treenail.adapters
failed = []
for found in pkgutil.walk_packages(treenail.adapters.__path__, "treenail.adapters."):
    if not found.name.endswith("__main__"):
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            failed.append(found.name)
print(*failed)
"""

_ABOUT_ONE_PACKAGE = {
    "treenail.adapters.files.fsspec_bridge",
    "treenail.adapters.files.http.client",
    "treenail.adapters.files.http.pools",
    "treenail.adapters.interop.lightning",
}
"""Modules that are imported where they are used, by people who have the package that they are about."""

_MODULES = {
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "huggingface-hub": "huggingface_hub",
    "modelscope-hub": "modelscope_hub",
}


def _absent() -> list[str]:
    """Return the modules of all packages that extras name, and numpy's, which torch can do without."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = {each.partition(">")[0] for each in project["dependencies"]}
    named = {
        each.partition(">")[0].partition("[")[0]
        for extra in project["optional-dependencies"].values()
        for each in extra
    }
    assert {"numpy", "rich", "safetensors"} <= named
    return sorted(
        _MODULES.get(name, name.replace("-", "_")) for name in named - core - {"treenail", "ruamel.yaml.clib"}
    )


def test_every_module_is_imported_with_the_core_dependencies_alone() -> None:
    """A piece that is embedded somewhere must not ask for packages of other pieces."""
    code = _BEGIN.format(absent=set(_absent())) + _IMPORT_ALL
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == _ABOUT_ONE_PACKAGE
