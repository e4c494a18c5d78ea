"""The corpus of the benchmark `config`: right configs, single mistakes in them, and right variations of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

from ruamel.yaml import YAML

FOLDER = Path(__file__).with_name("config_corpus")
CONFIGS = {"digits": FOLDER.parents[2] / "configs" / "digits.yaml"} | {
    path.stem: path for name in ("mlp", "transformer", "forecast", "ensemble") for path in [FOLDER / f"{name}.yaml"]
}
"""The right configs, by name."""

PLACE = "‸"  # in a row of the tables, before the place that a message must name


class Case(NamedTuple):
    """One edit of a right config, or one override of it.

    Args:
        id: Unique, and the same in every run.
        kind: Whether the result is wrong.
        category: What is tried.
        base: Name of the right config.
        text: The edited config.
        places: (line, column), from 1, of which a good message names one. Empty for overrides and variations, and where
            a parser cannot tell more than the line.
        lines: Lines of which a good message names one.
        override: What stands on the command line, if that is what is wrong.
        edit: What was done, for people.
    """

    id: str
    kind: Literal["mistake", "variation"]
    category: str
    base: str
    text: str
    places: tuple[tuple[int, int], ...] = ()
    lines: tuple[int, ...] = ()
    override: str | None = None
    edit: str = ""


def mistakes() -> list[Case]:
    """Return the mistakes."""
    return _cases("mistake")


def variations() -> list[Case]:
    """Return the right variations, the unchanged configs first."""
    unchanged = [
        Case(f"unchanged/{name}", "variation", "unchanged", name, _read(path)) for name, path in CONFIGS.items()
    ]
    return unchanged + _cases("variation")


def _cases(kind: Literal["mistake", "variation"]) -> list[Case]:
    tables = YAML(typ="safe", pure=True).load(_read(FOLDER / f"{kind}s.yaml"))
    bases = {name: _read(path) for name, path in CONFIGS.items()}
    cases = []
    for category, rows in tables.items():
        slug = re.sub("[^a-z]+", "-", category.lower().replace("'", "")).strip("-")
        for number, (base, *row) in enumerate(rows, start=1):
            case_id = f"{slug}/{number:02}"
            if len(row) == 1:
                edit = f"{base}.yaml, and on the command line {row[0]}"
                cases.append(Case(case_id, kind, category, base, bases[base], override=row[0], edit=edit))
            else:
                cases.append(_edited(Case(case_id, kind, category, base, bases[base]), *row))
    return cases


def _edited(case: Case, old: str, new: str, within: str | None = None) -> Case:
    if case.text.count(old) != 1:
        raise ValueError(f"{case.id}: {old!r} occurs {case.text.count(old)} times in {case.base}.yaml, must be once")
    start = case.text.index(old)
    text = case.text.replace(old, new.replace(PLACE, ""))
    offsets = [start + match.start() - index for index, match in enumerate(re.finditer(PLACE, new))]
    if within is not None:
        offsets.append(text.index(within))
    places = tuple(_place(text, offset) for offset in offsets)
    first, last = _place(text, start)[0], _place(text, start + len(new.rstrip()))[0]
    lines = tuple(sorted({line for line, _ in places})) or tuple(range(first, _next_written(text, last) + 1))
    edit = f"{case.base}.yaml:{first}: {old!r} → {new.replace(PLACE, '')!r}"
    return case._replace(text=text, places=places, lines=lines if case.kind == "mistake" else (), edit=edit)


def _next_written(text: str, line: int) -> int:
    """Return the number of the first line after one that is not blank."""
    following = text.split("\n")[line:]
    return line + 1 + next((index for index, each in enumerate(following) if each.strip()), 0)


def _place(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
