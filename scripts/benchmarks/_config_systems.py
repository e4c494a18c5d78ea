"""The contestants' common form in the benchmark `config`, and how a case is judged; treenail's own side."""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec
import torch
from scripts.benchmarks._config_corpus import CONFIGS, Case, variations
from scripts.benchmarks._config_parts import build_run

from treenail.adapters.config import InvalidConfigError, describe, load_run, parse_yaml
from treenail.contracts import Run
from treenail.kernel import Component

Stage = Literal["before", "building", "never", "n/a"]

# "run.yaml:12:3" of ours and of compilers, "line 12, column 3" of YAML parsers
_PLACE = re.compile(r":(\d+):(\d+)|line (\d+),? column (\d+)")


class Outcome(NamedTuple):
    """What a system did with a case.

    Args:
        stage: When it was refused: ``"before"`` anything was built, while ``"building"``, or ``"never"``.
        message: What the user reads; why the case is not for this system, where it is not.
        placed: Whether the message names line and column; for an override, whether it names the key.
        right: Whether one of them is the right place.
    """

    stage: Stage
    message: str = ""
    placed: bool = False
    right: bool = False


class NotExpressible(Exception):  # noqa: N818  # no error: the case is not for this system
    """The case has no counterpart in a system's idiom; the text says why."""


class System(Protocol):
    """A contestant: it writes a case in its own idiom, loads, and builds."""

    name: str

    def write(self, case: Case, folder: Path) -> Path:
        """Write the case's config as a file.

        Raises:
            NotExpressible: The case cannot be said in this system.
        """
        ...

    def load(self, path: Path, case: Case) -> Any:  # each system has a config type of its own
        """Load and validate as far as the system does, overrides included; nothing is built."""
        ...

    def plain(self, config: Any) -> object:  # likewise
        """Return a loaded config as plain data, to see whether it says the same as the right one."""
        ...

    def build(self, config: Any, directory: Path) -> None:  # likewise
        """Build every component."""
        ...


@runtime_checkable
class Reader(Protocol):
    """A system that can also read a file without its schema."""

    def read(self, path: Path) -> object:
        """Return the file's content, unchecked."""
        ...


class Treenail:
    """Ours: `load_run` checks, `build` builds."""

    name = "treenail"

    def write(self, case: Case, folder: Path) -> Path:
        """Write the text as it is."""
        path = folder / f"{case.base}.yaml"
        path.write_text(case.text, encoding="utf-8")
        return path

    def load(self, path: Path, case: Case) -> Run:
        """Load and check."""
        return load_run(path, [case.override] if case.override is not None else [])

    def read(self, path: Path) -> object:
        """Read the YAML alone, places included."""
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))

    def plain(self, config: Run) -> object:
        """Return the checked run as plain data."""
        return describe(config)

    def build(self, config: Run, directory: Path) -> None:
        """Build every component."""
        build_run(_fields(config), _make, directory)


def _fields(section: msgspec.Struct) -> dict[str, Any]:
    found = {name: getattr(section, name) for name in section.__struct_fields__}
    for name, value in found.items():
        if isinstance(value, msgspec.Struct):
            found[name] = _fields(value)
        elif isinstance(value, tuple):
            found[name] = [_fields(item) if isinstance(item, msgspec.Struct) else item for item in value]
    if found.get("metrics") == [] and type(section).__name__ == "Data":
        del found["metrics"]
    return found


def _make(_: str, component: Component[object], *awaited: object) -> object:
    return component.build(*awaited)  # type: ignore[attr-defined]  # Spec takes nothing, Late what it awaits


def judge(system: System, case: Case, meant: object = None) -> Outcome:
    """Let a system load and build one case, in a folder of its own.

    Args:
        system: The system.
        case: The case.
        meant: What the system reads from the right config, as plain data; see `read_right`.
    """
    written = io.StringIO()
    stage: Stage = "before"
    with TemporaryDirectory() as name, warnings.catch_warnings(), redirect_stderr(written), redirect_stdout(written):
        warnings.simplefilter("ignore")
        folder = Path(name)
        try:
            path = system.write(case, folder)
            config = system.load(path, case)
            if case.kind == "mistake" and case.override is None and _same(system.plain(config), meant):
                return Outcome("n/a", "the system reads it as the right value")
            stage = "building"
            system.build(config, folder / "work")
        except NotExpressible as reason:
            return Outcome("n/a", str(reason))
        except (Exception, SystemExit) as error:  # whatever a system raises is its answer
            message = f"{type(error).__name__}: {error}\n{written.getvalue()}".strip().replace(name + "/", "")
            placed, right = _placed(case, message, error)
            return Outcome(stage, message, placed, right)
        finally:
            torch.set_num_threads(1)
    return Outcome("never")


def _placed(case: Case, message: str, error: BaseException) -> tuple[bool, bool]:
    if case.override is not None:
        key = case.override.partition("=")[0].rpartition(".")[2] or case.override
        return key in message, case.override in message
    found = [tuple(int(part) for part in match if part) for match in _PLACE.findall(message)]
    if not isinstance(error, InvalidConfigError):
        return bool(found), False  # other systems read another text: their places are not compared
    if case.places:
        return bool(found), any(place in case.places for place in found)
    return bool(found), any(line in case.lines for line, _ in found)


def _same(one: object, other: object) -> bool:
    # as JSON, where 1 is not true
    return json.dumps(one, sort_keys=True, default=str) == json.dumps(other, sort_keys=True, default=str)


def read_right(system: System) -> dict[str, object]:
    """Return what a system reads from each right config, as plain data."""
    found = {}
    for case in variations():
        if case.category == "unchanged":
            with TemporaryDirectory() as name:
                found[case.base] = system.plain(system.load(system.write(case, Path(name)), case))
    return found


def base_text(case: Case) -> str:
    """Return the right config that a case was made from."""
    return CONFIGS[case.base].read_text(encoding="utf-8")


def summary(outcomes: Mapping[str, Outcome]) -> dict[str, dict[str, object]]:
    """Return outcomes as plain data."""
    return {case_id: dict(outcome._asdict()) for case_id, outcome in outcomes.items()}
