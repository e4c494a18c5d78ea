"""TOML 1.0 as plain data that knows where each part was written. Python's own tomllib decides what is right."""

from __future__ import annotations

import re
from datetime import date, datetime, time

from treenail.adapters.documents.document import Document, InvalidConfigError, Map, Mark, Mistake, Seq, TreePath, dotted
from treenail.adapters.documents.limits import (
    MAX_DEPTH,
    MAX_DIGITS,
    TOO_DEEP,
    LimitError,
    RefusedValueError,
    checked_source,
    checked_text,
    empty_file,
    real_number,
)
from treenail.adapters.documents.lines import Lines
from treenail.adapters.documents.toml_places import TomlPlaces, first_too_deep

# tomllib takes quadratic time for a name of many parts and recurses into brackets: both are looked at before it runs.
_LONG_NAME = re.compile(
    r"""(?:\.[ \t]*+(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+)""" + f"{{{MAX_DEPTH}}}",
    re.ASCII,
)
_LONG_NUMBER = re.compile(rf"(?:[0-9]_?){{{MAX_DIGITS + 1}}}")
_MAX_BITS = 14_284  # of a number of MAX_DIGITS digits
_PLACE = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")


class _Real(str):
    """A float as it was written, so that one that overflows can be told with its place."""

    __slots__ = ()


def parse_toml(text: str, source: str) -> Document:
    """Parse a TOML text. Dates and times become text, as they were written: no format of ours has another kind of them.

    Every key and value has its own place, those inside of inline tables and arrays as well. A table that is only named
    within a longer name, like `a` in ``[a.b]`` or ``a.b = 1``, has the place of its first mention.

    Args:
        text: The text.
        source: Name of the file, for places.

    Raises:
        InvalidConfigError: The syntax is wrong (which includes a key that occurs twice), or a limit is passed.
        ConfigError: The text holds nothing.
    """
    text = checked_source(text, source)
    lines = Lines(text, source)
    long_name = _LONG_NAME.search(text)
    deep = long_name.start() if long_name else first_too_deep(text)
    if deep is not None:
        raise InvalidConfigError([Mistake(lines.where(deep), "", TOO_DEEP)])
    data = _loads(text, source, lines)
    if not data:
        raise empty_file(source)
    places = TomlPlaces(text, lines)
    try:
        places.scan()
    except LimitError as error:
        raise InvalidConfigError([Mistake(f"{source}:{error.line}:{error.column}", "", error.message)]) from None
    builder = _Builder(places, lines, source)
    built = builder.build(data, ())
    if builder.mistakes:
        raise InvalidConfigError(builder.mistakes)
    return Document(source, built, Mark(source, 1, 1))


def _loads(text: str, source: str, lines: Lines) -> dict[str, object]:
    import tomllib  # takes 4 ms, which only TOML needs

    try:
        return tomllib.loads(text, parse_float=_Real)
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.search(str(error))
        message = str(error)[: place.start()] if place else str(error)
        where = f"{source}:{place['line']}:{place['column']}" if place and place["line"] else lines.where(len(text))
        raise InvalidConfigError([Mistake(where, "", f"TOML syntax: {message[:1].lower()}{message[1:]}")]) from None
    except ValueError:  # of int(): Python refuses to convert so many digits
        found = _LONG_NUMBER.search(text)
        where = lines.where(found.start()) if found else source
        raise InvalidConfigError([Mistake(where, "", f"this number has more than {MAX_DIGITS:,} digits")]) from None


class _Builder:
    """Gives the plain data of tomllib its places."""

    def __init__(self, places: TomlPlaces, lines: Lines, source: str) -> None:
        self._places = places
        self._lines = lines
        self._source = source
        self.mistakes: list[Mistake] = []

    def build(self, value: object, path: TreePath) -> object:
        """Return a value with the places of its parts."""
        if isinstance(value, dict):
            found = Map()
            for key, inner in value.items():
                mark = self._mark((*path, key))
                try:
                    name = checked_text(key)
                except RefusedValueError as error:
                    self.mistakes.append(Mistake(mark.place(key=True), dotted(path), str(error)))
                    continue
                found[name] = self.build(inner, (*path, key))
                found.marks[name] = mark
            return found
        if isinstance(value, list):
            items = [self.build(inner, (*path, index)) for index, inner in enumerate(value)]
            return Seq(items, [self._mark((*path, index)) for index in range(len(items))])
        return self._checked(value, path)

    def _checked(self, value: object, path: TreePath) -> object:
        try:
            return self._scalar(value, path)
        except RefusedValueError as error:
            self.mistakes.append(Mistake(self._mark(path).place(), dotted(path), str(error)))
            return None

    def _scalar(self, value: object, path: TreePath) -> object:
        if isinstance(value, _Real):
            return real_number(value)
        if isinstance(value, str):
            return checked_text(value)
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise RefusedValueError(f"this number has more than {MAX_DIGITS:,} digits")
        if isinstance(value, date | datetime | time):
            return self._places.written(path)
        return value

    def _mark(self, path: TreePath) -> Mark:
        place = self._places.of(path)
        key_at = self._lines.at(place.key) if place.key is not None else (0, 0)
        return Mark(self._source, *self._lines.at(place.value), *key_at)
