"""mypy over configs of data and of Python, its messages at the places that people wrote."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from treenail.adapters.config.catalog import Catalog
from treenail.adapters.config.freezing.freeze import Frozen, freeze_with_places
from treenail.adapters.config.load import Source, load_run
from treenail.adapters.documents import InvalidConfigError, Location, Mistake, Uri, dotted, load_document, read_text
from treenail.kernel import ConfigError, TreenailError, require

_DATA: Final = (".yaml", ".yml", ".json", ".toml")
_MARKS_OF_RUN: Final = ("model", "train")
_OPTIONS: Final = (
    "--strict",
    "--output=json",
    "--show-column-numbers",
    "--no-error-summary",
    "--follow-imports=silent",
)


class Findings(NamedTuple):
    """What was checked.

    Args:
        right: Configs without a mistake.
        mistakes: Of the others.
        skipped: Files in the given directories that describe no run.
    """

    right: tuple[Location, ...]
    mistakes: tuple[Mistake, ...]
    skipped: tuple[Path, ...]


class TypeCheckError(TreenailError):
    """mypy itself failed."""


def check_types(
    paths: Iterable[Location],
    overrides: Sequence[str] = (),
    overlays: Sequence[Location] = (),
    imports: Sequence[str] = (),
) -> Findings:
    """Check configs, and let one run of ``mypy --strict`` check them as Python.

    Args:
        paths: Configs; and directories, searched for files ``.yaml``, ``.yml``, ``.json``, ``.toml`` and ``.py`` that
            describe a run: data that has, with its bases, both a ``model`` and a ``train``, or Python that sets ``run``.
        overrides: ``key=value`` texts; mypy sees Python configs without them.
        overlays: Files merged over all of them; Python configs take none.
        imports: Prefixes of modules that ``type:`` may import from, besides the configs' own ``imports:``.

    Raises:
        MissingDependencyError: mypy is not installed.
        ConfigError: A directory holds no config.
        TypeCheckError: mypy itself failed.
    """
    require("mypy", extra="typing", purpose="check --mypy")
    found, skipped = _configs(paths)
    modules: dict[str, tuple[Location, Frozen | None]] = {}
    mistakes: list[Mistake] = []
    wrong: set[Location] = set()
    with tempfile.TemporaryDirectory(prefix="treenail-mypy-") as folder:
        for number, path in enumerate(found):
            name = f"config_{number}_{''.join(each if each.isalnum() else '_' for each in path.stem)}.py"
            source = Source(path, overrides, overlays, imports)
            try:
                text, frozen = _as_python(source)
            except InvalidConfigError as error:
                mistakes += error.mistakes
                wrong.add(path)
            except ConfigError as error:
                mistakes.append(Mistake(error.where or str(path), "", error.message))
                wrong.add(path)
            else:
                (Path(folder) / name).write_text(text, encoding="utf-8")
                modules[name] = path, frozen
        beside = {path.absolute().parent for path in found if isinstance(path, Path)}
        for message in _run_mypy(Path(folder), list(modules), beside):
            path, frozen = modules[Path(str(message["file"])).name]
            mistakes.append(_at_home(message, path, frozen))
            wrong.add(path)
    return Findings(tuple(path for path in found if path not in wrong), tuple(mistakes), tuple(skipped))


def _as_python(source: Source) -> tuple[str, Frozen | None]:
    """Check a config; return it as Python, with what it was frozen to unless it is Python already."""
    if source.path.suffix != ".py":
        frozen = freeze_with_places(source, Catalog())
        return frozen.text, frozen
    load_run(source.path, source.overrides, overlays=source.overlays, imports=source.imports)
    return read_text(source.path), None


def _configs(paths: Iterable[Location]) -> tuple[list[Location], list[Path]]:
    found: dict[Location, None] = {}
    skipped: list[Path] = []
    for path in paths:
        if isinstance(path, Uri) or not path.is_dir():
            found[path] = None
            continue
        inside = [each for each in sorted(path.rglob("*")) if each.suffix in (*_DATA, ".py") and each.is_file()]
        runs = [each for each in inside if _describes_run(each)]
        if not runs:
            mend = "a config of a run has a `model` and a `train`"
            raise ConfigError("no config of a run lies in this directory", where=str(path), mend=mend)
        found |= dict.fromkeys(runs)
        skipped += [each for each in inside if each not in runs]
    return list(found), skipped


def _describes_run(path: Path) -> bool:
    """Return whether a file found in a directory is for us to check; what cannot be read is, for its mistake."""
    try:
        if path.suffix == ".py":
            return any(_sets_run(statement) for statement in ast.parse(read_text(path)).body)
        data = load_document(path).data
    except (ConfigError, SyntaxError):
        return True
    return isinstance(data, dict) and all(key in data for key in _MARKS_OF_RUN)


def _sets_run(statement: ast.stmt) -> bool:
    targets = (
        statement.targets
        if isinstance(statement, ast.Assign)
        else [statement.target]
        if isinstance(statement, ast.AnnAssign)
        else []
    )
    return any(isinstance(target, ast.Name) and target.id == "run" for target in targets)


def _run_mypy(folder: Path, names: Sequence[str], beside: Iterable[Path]) -> Iterator[dict[str, object]]:
    """Run mypy over modules in a folder and yield its errors.

    Args:
        folder: Holds the modules.
        names: Their names.
        beside: Folders that hold configs, and so may hold the modules that these import.
    """
    if not names:
        return
    searched = [str(folder), *map(str, sorted(beside)), os.getcwd(), os.environ.get("MYPYPATH", "")]
    command = [
        sys.executable,
        "-m",
        "mypy",
        *_OPTIONS,
        "--cache-dir",
        str(_cache()),
        *(str(folder / name) for name in names),
    ]
    environment = {**os.environ, "MYPYPATH": os.pathsep.join(each for each in searched if each)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False)
    messages: list[dict[str, object]] = []
    for line in done.stdout.splitlines():
        try:
            messages.append(json.loads(line))
        except ValueError:
            raise TypeCheckError(f"mypy failed: {line.strip()}") from None
    if done.returncode not in (0, 1):
        stopped = [
            f"{each['file']}:{each['line']}: {each['message']}" for each in messages if each["severity"] == "error"
        ]
        detail = (*stopped, *done.stderr.strip().splitlines(), "no message")[0]
        raise TypeCheckError(f"mypy failed with exit code {done.returncode}: {detail}")
    inside = [each for each in messages if Path(str(each["file"])).name in names and each["severity"] == "error"]
    yield from sorted(inside, key=lambda each: (names.index(Path(str(each["file"])).name), *_position(each)))


def _position(message: dict[str, object]) -> tuple[int, int]:
    """Return line, from 1, and column, from 0."""
    return int(str(message["line"])), int(str(message["column"]))


def _cache() -> Path:
    """Return where mypy keeps what it knows of torch; without that each run would take a minute."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "treenail" / "mypy"


def _at_home(message: dict[str, object], path: Location, frozen: Frozen | None) -> Mistake:
    """Return a message of mypy as a mistake where the config was written."""
    line, column = _position(message)
    hint = f" ({' '.join(str(message['hint']).split())})" if message.get("hint") else ""
    text = f"mypy: {message['message']}{hint} [{message['code']}]"
    if frozen is None:
        return Mistake(f"{path}:{line}:{column + 1}", "", text)
    place = frozen.place(line, column)
    return Mistake(frozen.document.locate(place), dotted(place), text)
