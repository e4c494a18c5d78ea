"""JSON (RFC 8259) as plain data that knows where each part was written; strict, with the places of its mistakes."""

from __future__ import annotations

import re
from json import JSONDecodeError, JSONDecoder
from typing import Final

from treenail.adapters.documents.document import Document, InvalidConfigError, Map, Mark, Mistake, Seq, dotted
from treenail.adapters.documents.limits import (
    MAX_DEPTH,
    MAX_MISTAKES,
    MAX_VALUES,
    TOO_DEEP,
    TOO_MANY,
    TOO_WRONG,
    LimitError,
    RefusedValueError,
    checked_source,
    checked_text,
    empty_file,
    real_number,
    whole_number,
)
from treenail.adapters.documents.lines import Lines

_BLANKS = re.compile(r"[ \t\n]*")
_WORD = re.compile(r"[-+.\w]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?P<real>(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)")
_WORDS: Final[dict[str, object]] = {"true": True, "false": False, "null": None}
_OTHER_WORDS: Final = {"True": "true", "False": "false", "None": "null", "undefined": "null"}
_NOT_FINITE: Final = frozenset(("NaN", "Infinity", "-Infinity", "+Infinity", "nan", "inf", "-inf", "+inf"))


def parse_json(text: str, source: str) -> Document:
    """Parse a JSON text.

    Args:
        text: The text.
        source: Name of the file, for places.

    Raises:
        InvalidConfigError: The syntax is wrong, a key occurs twice, or a limit is passed; holds all mistakes up to where
            reading could not go on.
        ConfigError: The text is empty.
    """
    text = checked_source(text, source)
    if not text.strip():
        raise empty_file(source)
    return _Reader(text, source).document()


class _SyntaxError(Exception):
    """The text cannot be read on from an offset."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset


class _Reader:
    """Reads values by descent, and notes their places and mistakes."""

    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source
        self._lines = Lines(text, source)
        self._path: list[str | int] = []
        self._count = 0
        self._depth = 0
        self._decoder = JSONDecoder(strict=True)  # for strings and their escapes
        self._mistakes: list[Mistake] = []

    def document(self) -> Document:
        """Read the one value of the text."""
        start = self._after_blanks(0)
        try:
            data, end = self._value(start)
            self._end(self._after_blanks(end))
        except _SyntaxError as error:
            self._mistakes.append(Mistake(self._lines.where(error.offset), "", f"JSON syntax: {error}"))
        except LimitError as error:
            self._mistakes.append(Mistake(f"{self._source}:{error.line}:{error.column}", "", error.message))
        if self._mistakes:
            raise InvalidConfigError(self._mistakes)
        return Document(self._source, data, Mark(self._source, *self._lines.at(start)))

    def _end(self, offset: int) -> None:
        if offset < len(self._text):
            raise _SyntaxError(offset, self._unexpected(offset, "the end of the file"))

    def _after_blanks(self, offset: int) -> int:
        found = _BLANKS.match(self._text, offset)
        return found.end() if found else offset

    def _value(self, offset: int) -> tuple[object, int]:
        """Return the value that begins at an offset, and where it ends."""
        self._count += 1
        if self._count > MAX_VALUES:
            raise LimitError(TOO_MANY, *self._lines.at(offset))
        begin = self._text[offset : offset + 1]
        if begin == '"':
            return self._string(offset)
        if begin and begin in "{[":
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise LimitError(TOO_DEEP, *self._lines.at(offset))
            read = self._object(offset + 1) if begin == "{" else self._array(offset + 1)
            self._depth -= 1
            return read
        word = _WORD.match(self._text, offset)
        if word is None:
            raise _SyntaxError(offset, self._unexpected(offset, "a value"))
        if word[0] in _WORDS:
            return _WORDS[word[0]], word.end()
        number = _NUMBER.fullmatch(word[0])
        if number is None:
            raise _SyntaxError(offset, _wrong_word(word[0]))
        try:
            value: object = real_number(number[0]) if number["real"] else whole_number(number[0])
        except RefusedValueError as error:
            self._mistake(offset, str(error))
            value = None
        return value, word.end()

    def _string(self, offset: int) -> tuple[str, int]:
        try:
            text, end = self._decoder.raw_decode(self._text, offset)
        except JSONDecodeError as error:
            raise _SyntaxError(*self._wrong_string(offset, error)) from None
        try:
            return checked_text(text), end
        except RefusedValueError as error:
            self._mistake(offset, str(error))
            return "", end

    def _object(self, offset: int) -> tuple[Map, int]:
        found = Map()
        offset = self._after_blanks(offset)
        if self._text.startswith("}", offset):
            return found, offset + 1
        while True:
            if not self._text.startswith('"', offset):
                raise _SyntaxError(offset, self._unexpected(offset, "a key in double quotes"))
            key_offset = offset
            key, offset = self._string(offset)
            offset = self._after_blanks(offset)
            if not self._text.startswith(":", offset):
                raise _SyntaxError(offset, self._unexpected(offset, "':' after the key"))
            offset = self._after_blanks(offset + 1)
            at, key_at = self._lines.at(offset), self._lines.at(key_offset)
            self._path.append(key)
            if key in found:
                self._mistake(key_offset, f"this key occurs twice, first in line {found.marks[key].key_line}")
            value, offset = self._value(offset)
            self._path.pop()
            if key not in found:
                found[key] = value
                found.marks[key] = Mark(self._source, *at, *key_at)
            offset, ended = self._after_item(offset, "}")
            if ended:
                return found, offset

    def _array(self, offset: int) -> tuple[Seq, int]:
        found = Seq()
        offset = self._after_blanks(offset)
        if self._text.startswith("]", offset):
            return found, offset + 1
        while True:
            self._path.append(len(found))
            mark = Mark(self._source, *self._lines.at(offset))
            value, offset = self._value(offset)
            self._path.pop()
            found.append(value)
            found.marks.append(mark)
            offset, ended = self._after_item(offset, "]")
            if ended:
                return found, offset

    def _after_item(self, offset: int, end: str) -> tuple[int, bool]:
        """Return where to go on after an item, and whether the closing bracket stood there."""
        offset = self._after_blanks(offset)
        if self._text.startswith(end, offset):
            return offset + 1, True
        if not self._text.startswith(",", offset):
            raise _SyntaxError(offset, self._unexpected(offset, f"',' or '{end}'"))
        after = self._after_blanks(offset + 1)
        if self._text.startswith(end, after):
            raise _SyntaxError(offset, f"JSON has no comma before '{end}'; remove it")
        return after, False

    def _unexpected(self, offset: int, wanted: str) -> str:
        found = self._text[offset : offset + 1]
        if not found:
            return f"the file ends where {wanted} is expected"
        if found == "'":
            return "JSON has no single quotes; write double quotes"
        if found == "#" or self._text.startswith(("//", "/*"), offset):
            return "JSON has no comments; remove it, or write the config in YAML or TOML"
        return f"{wanted} is expected here, not {found!r}"

    def _wrong_string(self, offset: int, error: JSONDecodeError) -> tuple[int, str]:
        if error.msg.startswith("Unterminated"):
            return offset, "this string is not closed"
        if error.msg.startswith("Invalid control character"):
            if self._text.startswith("\n", error.pos):
                return offset, "this string is not closed in its line; a line break in it is written \\n"
            return error.pos, "a tab in a string is written \\t"
        return error.pos, "this is no escape of JSON; a backslash itself is written \\\\"

    def _mistake(self, offset: int, message: str) -> None:
        self._mistakes.append(Mistake(self._lines.where(offset), dotted(tuple(self._path)), message))
        if len(self._mistakes) >= MAX_MISTAKES:
            raise LimitError(TOO_WRONG, *self._lines.at(offset))


def _wrong_word(word: str) -> str:
    shown = repr(word if len(word) <= 40 else f"{word[:37]}…")
    if word in _NOT_FINITE:
        return f"JSON has no {shown}; write null, or the config in YAML (.nan, .inf) or TOML (nan, inf)"
    if word in _OTHER_WORDS:
        return f"{shown} is not a value of JSON; write {_OTHER_WORDS[word]}"
    return f"{shown} is not a value of JSON; text stands in double quotes, numbers are like 10, -0.5 or 1e-3"
