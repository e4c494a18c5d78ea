"""Where the keys and values of a TOML text stand."""

from __future__ import annotations

import re
from typing import NamedTuple

from treenail.adapters.documents.document import TreePath
from treenail.adapters.documents.limits import MAX_DEPTH, MAX_VALUES, TOO_DEEP, TOO_MANY, LimitError
from treenail.adapters.documents.lines import Lines

_BLANKS = re.compile(r"[ \t]*+")
_GAP = re.compile(r"(?:[ \t\n]|#[^\n]*+)*+")
_KEY = re.compile(r"""(?P<bare>[\w-]++)|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+'""", re.ASCII)
_STRING = re.compile(
    r'''
      """ (?: [^"\\]++ | \\. | "{1,2}(?!") )*+ (?: "{3,5} | \Z )
    | \'\'\' (?: [^']++ | '{1,2}(?!') )*+ (?: '{3,5} | \Z )
    | " (?: [^"\\\n]++ | \\. )*+ (?: " | (?=\n) | \Z )
    | ' [^'\n]*+ (?: ' | (?=\n) | \Z )
    ''',  # one that is not closed goes on to its end, so that looking for strings takes linear time in wrong texts too
    re.DOTALL | re.VERBOSE,
)
_BARE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ ][0-9]{2}:[^\s,\]}#]*+|[^\s,\]}#]++")
_BRACKET = re.compile(rf"(?P<string>{_STRING.pattern})|\#[^\n]*+|(?P<open>[\[{{])|(?P<close>[\]}}])", _STRING.flags)


class Place(NamedTuple):
    """Where a part of a text stands, in offsets.

    Args:
        value: Where the value begins; for a table where its name stands.
        end: Where the value ends.
        key: Where its key begins; None for an item of an array.
    """

    value: int
    end: int
    key: int | None = None


class TomlPlaces:
    r"""Finds the places in a text that tomllib has accepted: it relies on the syntax being right.

    Args:
        text: The text, with ``\n`` between its lines.
        lines: Its lines.
    """

    def __init__(self, text: str, lines: Lines) -> None:
        self._text = text
        self._lines = lines
        self._places: dict[TreePath, Place] = {}
        self._tables: dict[TreePath, int] = {}  # how many tables an array of tables has so far

    def of(self, path: TreePath) -> Place:
        """Return the place of a key's value or of an item."""
        return self._places[path]

    def written(self, path: TreePath) -> str:
        """Return a value as it was written."""
        place = self._places[path]
        return self._text[place.value : place.end]

    def scan(self) -> None:
        """Find all places.

        Raises:
            LimitError: The text holds too many values, or is nested too deeply.
        """
        table: TreePath = ()
        offset = self._after(_GAP, 0)
        while offset < len(self._text):
            if self._text.startswith("[", offset):
                table, offset = self._header(offset)
            else:
                offset = self._entry(offset, table)
            offset = self._after(_GAP, offset)

    def _after(self, pattern: re.Pattern[str], offset: int) -> int:
        found = pattern.match(self._text, offset)
        return found.end() if found else offset

    def _header(self, offset: int) -> tuple[TreePath, int]:
        """Read ``[name]`` or ``[[name]]``; return the table's path and where the header ends."""
        several = self._text.startswith("[[", offset)
        names, end = self._names(offset + 1 + several)
        path: TreePath = ()
        for name, at in names[:-1]:
            path = (*path, name)
            self._note(path, Place(at, at, at), again=False)
            if path in self._tables:
                path = (*path, self._tables[path] - 1)
        name, at = names[-1]
        path = (*path, name)
        self._note(path, Place(at, at, at), again=not several)
        if several:
            self._tables[path] = self._tables.get(path, 0) + 1
            path = (*path, self._tables[path] - 1)
            self._note(path, Place(offset, offset))
        return path, end + 1 + several

    def _entry(self, offset: int, table: TreePath) -> int:
        """Read ``name = value``; return where it ends."""
        names, offset = self._names(offset)
        path = table
        for name, at in names[:-1]:
            path = (*path, name)
            self._note(path, Place(at, at, at), again=False)
        name, at = names[-1]
        return self._value(self._after(_BLANKS, offset + 1), (*path, name), at)

    def _names(self, offset: int) -> tuple[list[tuple[str, int]], int]:
        """Return the parts of a dotted name with their offsets, and where what follows it begins."""
        names: list[tuple[str, int]] = []
        while True:
            offset = self._after(_BLANKS, offset)
            found = _KEY.match(self._text, offset)
            assert found is not None, "tomllib has accepted the text"
            names.append((_name(found), offset))
            offset = self._after(_BLANKS, found.end())
            if not self._text.startswith(".", offset):
                return names, offset
            offset += 1

    def _value(self, offset: int, path: TreePath, key: int | None = None) -> int:
        """Note the place of a value and of what is in it; return where it ends."""
        self._note(path, Place(offset, offset, key))
        if self._text.startswith("[", offset):
            end = self._array(offset, path)
        elif self._text.startswith("{", offset):
            end = self._inline_table(offset, path)
        elif self._text.startswith(('"', "'"), offset):
            end = self._after(_STRING, offset)
        else:
            end = self._after(_BARE, offset)
        self._places[path] = Place(offset, end, key)
        return end

    def _array(self, offset: int, path: TreePath) -> int:
        offset, index = self._after(_GAP, offset + 1), 0
        while not self._text.startswith("]", offset):
            offset = self._after(_GAP, self._value(offset, (*path, index)))
            if self._text.startswith(",", offset):
                offset = self._after(_GAP, offset + 1)
            index += 1
        return offset + 1

    def _inline_table(self, offset: int, path: TreePath) -> int:
        offset = self._after(_GAP, offset + 1)
        while not self._text.startswith("}", offset):
            offset = self._after(_GAP, self._entry(offset, path))
            if self._text.startswith(",", offset):
                offset = self._after(_GAP, offset + 1)
        return offset + 1

    def _note(self, path: TreePath, place: Place, *, again: bool = True) -> None:
        if len(path) > MAX_DEPTH:
            raise LimitError(TOO_DEEP, *self._lines.at(place.value))
        if len(self._places) >= MAX_VALUES:
            raise LimitError(TOO_MANY, *self._lines.at(place.value))
        if again or path not in self._places:
            self._places[path] = place


def first_too_deep(text: str) -> int | None:
    """Return the offset of the first bracket that is nested too deeply; takes linear time for any text, TOML or not."""
    depth = 0
    for found in _BRACKET.finditer(text):
        depth += (found["open"] is not None) - (found["close"] is not None and depth > 0)
        if depth > MAX_DEPTH:
            return found.start()
    return None


def _name(found: re.Match[str]) -> str:
    """Return the name that a part of a key stands for."""
    if found["bare"] is not None:
        return found[0]
    import tomllib  # takes 4 ms, which only TOML needs

    return next(iter(tomllib.loads(f"{found[0]}=0")))
