"""Descriptions of parameters, from the docstrings that people write: Google, NumPy and Sphinx style."""

from __future__ import annotations

import inspect
import re
from typing import Final

_SECTION: Final = re.compile(
    r"^(args|arguments|parameters|params|keyword args|keyword arguments|other parameters):?$", re.IGNORECASE
)
_ENTRY: Final = re.compile(
    r"^[*`]*(\w+)`*(?:\s*,\s*[*`]*(\w+)`*)*\s*(?:\([^)]*(?:\([^)]*\)[^)]*)*\))?\s*:(?:\s+(.*)|$)"
)
_NUMPY_ENTRY: Final = re.compile(r"^[*]*(\w+(?:\s*,\s*[*]*\w+)*)\s*(?::.*)?$")
_SPHINX: Final = re.compile(r"^:param(?:eter)?\s+(?:[^:]*\s)?[*]*(\w+)\s*:\s*(.*)$")
_ROLE: Final = re.compile(r":\w+(?::\w+)*:`~?([^`<]*?)(?:\s*<[^>]*>)?`")


def summary_of(documented: object) -> str:
    """Return the first paragraph of a docstring in one line; empty where there is none."""
    text = _doc_of(documented)
    paragraph = text.strip().partition("\n\n")[0]
    return "" if _is_signature(paragraph) else _plain(paragraph)


def parameters_of(documented: object) -> dict[str, str]:
    """Return what a docstring says of each parameter, each as one line."""
    lines = _doc_of(documented).splitlines()
    found: dict[str, str] = {}
    for index, line in enumerate(lines):
        sphinx = _SPHINX.match(line.strip())
        if sphinx:
            found.setdefault(sphinx[1], _plain(" ".join([sphinx[2], *_deeper(lines, index)])))
        elif _SECTION.match(line.strip()):
            underlined = index + 1 < len(lines) and set(lines[index + 1].strip()) == {"-"}
            entries = _numpy(lines, index + 2) if underlined else _google(lines, index)
            found = {**entries, **found}
    return found


def _google(lines: list[str], section: int) -> dict[str, str]:
    """Return the entries of a section whose entries stand deeper than its heading."""
    found: dict[str, str] = {}
    depth = _indent(lines[section])
    first: int | None = None
    for index in range(section + 1, len(lines)):
        line = lines[index]
        if not line.strip():
            continue
        if _indent(line) <= depth:
            break
        first = _indent(line) if first is None else first
        entry = _ENTRY.match(line.strip()) if _indent(line) == first else None
        if entry:
            text = _plain(" ".join([entry[3] or "", *_deeper(lines, index)]))
            found |= dict.fromkeys([name for name in (entry[1], entry[2]) if name], text)
    return found


def _numpy(lines: list[str], start: int) -> dict[str, str]:
    found: dict[str, str] = {}
    depth = _indent(lines[start]) if start < len(lines) else 0
    for index in range(start, len(lines)):
        line = lines[index]
        if index + 1 < len(lines) and line.strip() and set(lines[index + 1].strip()) == {"-"}:
            break
        entry = _NUMPY_ENTRY.match(line.strip()) if line.strip() and _indent(line) == depth else None
        if entry:
            names = [name.strip(" *") for name in entry[1].split(",")]
            found |= dict.fromkeys(names, _plain(" ".join(_deeper(lines, index))))
    return found


def _deeper(lines: list[str], index: int) -> list[str]:
    """Return the lines after one that stand deeper than it, up to the first empty line."""
    found = []
    for line in lines[index + 1 :]:
        if not line.strip() or _indent(line) <= _indent(lines[index]):
            break
        found.append(line.strip())
    return found


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _doc_of(documented: object) -> str:
    text = vars(documented).get("__doc__") if isinstance(documented, type) else getattr(documented, "__doc__", None)
    return inspect.cleandoc(text) if isinstance(text, str) else ""


def _is_signature(paragraph: str) -> bool:
    return bool(re.match(r"^[\w.]+\(.*\)( ->.*)?$", paragraph, re.DOTALL))


def _plain(text: str) -> str:
    text = _ROLE.sub(r"\1", " ".join(text.split()))
    return text.replace("``", "`").strip()
