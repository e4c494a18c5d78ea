"""What a config file says beside its values: comments, the spelling of numbers, variables of the environment."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from treenail.adapters.config.freezing.imports import Imports
from treenail.adapters.config.freezing.layout import text_literal
from treenail.adapters.documents import Document, Location, Mark, TreePath, read_text

# As ruff writes numbers: no leading zeros, a small e, digits on both sides of the point.
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*(?:_[0-9]+)*)(?:\.[0-9]+)?(?:e-?[0-9]+)?(?=[\s,\]}#]|$)")
_REFERENCE = re.compile(
    r"\$\{env:(?P<name>\w+)(?P<default>:[^{}]*)?\}|(?P<dollar>\$\$\{)|(?P<braces>\{\{\s*'\{\{'\s*\}\})"
)
_MODELINE: Final = "yaml-language-server:"


class UnsayableError(ValueError):
    """Typed Python cannot say something; the text says why."""


class WrittenText:
    """The text that a document was read from, as far as it is one file's.

    Args:
        path: The file.
        document: What was read from it.

    Attributes:
        leading: Lines of the comment that the file begins with, without ``#``.
    """

    def __init__(self, path: Location, document: Document) -> None:
        text = read_text(path)
        self._document = document
        self._lines = text.splitlines()
        found = _comments(text, self._lines) if path.suffix.lower() in (".yaml", ".yml") else {}
        self.leading = found.pop(0, ([], ""))[0]
        self._comments = found

    def comments(self, path: TreePath) -> tuple[tuple[str, ...], str]:
        """Return, once, the comments above and beside the line that a part of the config begins in."""
        mark, exact = self._document.mark_of(path)
        if not exact or mark.source != self._document.source:
            return (), ""
        above, beside = self._comments.pop(mark.key_line or mark.line, ([], ""))
        return tuple(map(_comment, above)), _comment(beside) if beside else ""

    def spelling(self, value: float, path: TreePath) -> str | None:
        """Return how the file spells a number: ``2e-3``; None where that is not known, or is not Python."""
        mark, exact = self._document.mark_of(path)
        if not exact or not mark.line or mark.source != self._document.source or mark.line > len(self._lines):
            return None
        found = _NUMBER.match(self._lines[mark.line - 1], mark.column - 1)
        if found is None:
            return None
        read = ast.literal_eval(found[0])
        return found[0] if type(read) is type(value) and read == value else None

    def mark(self, path: TreePath) -> Mark | None:
        """Return the mark of a place, if it has its own."""
        mark, exact = self._document.mark_of(path)
        return mark if exact else None


def _comment(text: str) -> str:
    return f"# {text}".rstrip()


def _comments(text: str, lines: list[str]) -> dict[int, tuple[list[str], str]]:
    """Return the comments (above, beside) by the line of what they belong to; those before everything by 0."""
    covered: dict[int, int] = {}  # up to which column a line holds something else
    try:
        for token in YAML(typ="safe", pure=True).scan(text):
            start, end = token.start_mark, token.end_mark
            for number in range(start.line, end.line):
                covered[number] = len(lines[number]) if number < len(lines) else 0
            if end.line > start.line or end.column > start.column:
                covered[end.line] = max(covered.get(end.line, 0), end.column)
    except YAMLError:  # what reads configs takes a few texts more than this scanner
        return {}
    found: dict[int, tuple[list[str], str]] = {}
    waiting: list[str] = []
    begun = False
    for index, line in enumerate(lines):
        holds = index in covered and bool(line[: covered[index]].strip())
        rest = line[covered.get(index, 0) if holds else 0 :].strip()
        comment = rest[1:].strip() if rest.startswith("#") else None
        if not holds:
            waiting += [comment] if comment is not None and not comment.startswith(_MODELINE) else []
            continue
        if not begun:
            found[0], waiting, begun = (waiting, ""), [], True
        if waiting or comment:
            found[index + 1], waiting = (waiting, comment or ""), []
    return found


def from_environment(value: object, written: str, imports: Imports) -> str:
    """Return the expression that reads a value from the environment, as `written` says with ``${env:NAME:default}``.

    Raises:
        UnsayableError: The value is no text, number or truth value, or the variable's text is not simply that.
    """
    whole = _REFERENCE.fullmatch(written)
    if whole is None or whole["name"] is None:
        expression, text = _template(written, imports)
    else:
        expression, text = _lookup(whole, imports, '"')
    if isinstance(value, bool) and text.lower() in ("true", "false"):
        return f'{{"true": True, "false": False}}[{expression}.lower()]'  # another word is an error, as in the YAML
    if isinstance(value, str | int | float | Path) and not isinstance(value, bool):
        kind: Callable[[str], object] = Path if isinstance(value, Path) else type(value)
        if _as(kind, text) == value:
            name = imports.name("pathlib", "Path") if kind is Path else type(value).__name__
            return expression if kind is str else f"{name}({expression})"
    raise UnsayableError(f"how {written} becomes {value!r} cannot be said in typed Python; write the value itself here")


def _as(kind: Callable[[str], object], text: str) -> object:
    try:
        return kind(text)
    except ValueError:
        return None


def _lookup(reference: re.Match[str], imports: Imports, quote: str) -> tuple[str, str]:
    """Return the expression that looks a variable up, and its text now."""
    environ = f"{imports.module('os')}.environ"
    name, default = reference["name"], reference["default"]
    if default is None:
        return f"{environ}[{quote}{name}{quote}]", os.environ.get(name, "")
    text = default[1:]
    simple = f"{quote}{text}{quote}" if text.isalnum() else text_literal(text)
    return f"{environ}.get({quote}{name}{quote}, {simple})", os.environ.get(name, text)


def _template(written: str, imports: Imports) -> tuple[str, str]:
    """Return the f-string for a text with variables inside, and its text now."""
    inside, now, position = "", "", 0
    for reference in _REFERENCE.finditer(written):
        before = written[position : reference.start()]
        position = reference.end()
        if reference["name"] is None:
            expression, text = "", "${" if reference["dollar"] else "{{"
            before, text = before + text, ""
        else:
            expression, text = _lookup(reference, imports, "'")
            expression = "{" + expression.replace('"', "'") + "}"
        inside, now = inside + _braced(before) + expression, now + before + text
        if "\\" in expression or expression.count("'") > (4 if reference["default"] else 2):
            raise UnsayableError(
                f"the default in {reference[0]} cannot stand inside an f-string; write it without quotes"
            )
    return f'f"{inside}{_braced(written[position:])}"', now + written[position:]


def _braced(text: str) -> str:
    return repr("'" + text)[2:-1].replace('"', '\\"').replace("{", "{{").replace("}", "}}") if text else ""
