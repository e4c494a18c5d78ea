"""Loads the config of a run, from YAML or typed Python."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from treenail.adapters.config.catalog import Catalog, a
from treenail.adapters.config.convert import convert
from treenail.adapters.config.describe import describe
from treenail.adapters.config.overrides import apply_overrides
from treenail.adapters.config.rules import rules_of_run
from treenail.adapters.documents import Document, InvalidConfigError, Mistake, TreePath, parse_yaml, read_text
from treenail.contracts import Run
from treenail.kernel import ConfigError, mix


def load_run(path: str | Path, overrides: Sequence[str] = (), catalog: Catalog | None = None) -> Run:
    """Load and check the config of a run; nothing is built.

    Args:
        path: A ``.yaml`` or ``.yml`` file; or a ``.py`` file, which is executed and whose variable ``run`` is a `Run`.
            With ``imports:``, modules beside it can be imported from then on.
        overrides: ``key=value`` texts, applied in order. What a Python config holds stays the very object elsewhere.
        catalog: What ``type:`` may name; everything installed when None.

    Raises:
        InvalidConfigError: Everything that is wrong in the config.
        ConfigError: The file cannot be read.
    """
    path = Path(path)
    if path.suffix == ".py":
        originals: dict[TreePath, object] = {}
        document = Document(str(path), describe(_run_python(path), originals), originals=originals)
    elif path.suffix in (".yaml", ".yml") or path.is_dir() or not path.exists():
        document = parse_yaml(read_text(path), str(path))
    else:
        raise ConfigError(f"'{path.suffix}' is no kind of config", where=str(path), mend="name a .yaml or a .py file")
    rules = rules_of_run(document.data)
    apply_overrides(document, overrides)
    if isinstance(document.data, dict) and document.data.get("imports"):
        _make_importable(path.absolute().parent)
    return convert(document, Run, catalog or Catalog(), rules)


def _make_importable(folder: Path) -> None:
    """Let modules that lie beside a config be imported, by loader workers too; installed ones win."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _run_python(path: Path) -> Run:
    text = read_text(path)
    # Its own name in sys.modules: loader workers must find the classes that the config defines.
    name = f"treenail_config_{path.stem}_{mix(str(path.absolute())):x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError("Python cannot import this file", where=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:  # a Python config is code, and documented so
        exec(compile(text, str(path), "exec", dont_inherit=True), vars(module))
    except SyntaxError as error:
        where = f"{path}:{error.lineno}:{error.offset}"
        raise InvalidConfigError([Mistake(where, "", f"Python syntax: {error.msg}")]) from None
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{path}:{lines[-1]}" if lines else str(path)
        raise InvalidConfigError([Mistake(where, "", f"{type(error).__name__}: {error}")]) from error
    run = getattr(module, "run", None)
    if not isinstance(run, Run):
        found = "has no variable 'run'" if run is None else f"has a 'run' that is {a(type(run).__name__)}"
        raise ConfigError(f"the file {found}", where=str(path), mend="define run = Run(model=spec(…)(…), …)")
    return run
