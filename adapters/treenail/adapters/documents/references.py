"""References in the texts of a config file: ``${env:NAME:default}``, ``${base:a.b.0}``, ``${file:stem}``, and mmengine's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from treenail.adapters.documents.document import Map, Mark, Mistake, Seq, TreePath, dotted
from treenail.adapters.documents.limits import (
    MAX_DEPTH,
    MAX_SCALAR,
    MAX_VALUES,
    MAX_WRITTEN,
    TOO_DEEP,
    TOO_LONG,
    RefusedValueError,
    checked_text,
)
from treenail.adapters.documents.scalars import resolve
from treenail.adapters.documents.uris import Location, Uri
from treenail.adapters.documents.yaml import parse_value
from treenail.kernel import ConfigError, did_you_mean

_BRACES: Final = r"\{\{\s*(?P<braces>_base_[^{}]*|file[A-Z][^{}]*|\$[^{}]*|'\{\{'\s*)\}\}"
_TOKEN = re.compile(rf"(?P<escaped>\$\$\{{)|\$\{{(?P<reference>[^{{}}]*)\}}|(?P<open>\$\{{)|{_BRACES}")
_ESCAPED = re.compile(rf"\$\{{|{_BRACES}")
_BRACES_TEXT: Final = "{{ '{{' }}"  # what Jinja's users write for a plain {{
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"\\]|\\.)*\"")
_FILE_WORDS: Final = {
    "fileDirname": "dirname",
    "fileBasename": "basename",
    "fileBasenameNoExtension": "stem",
    "fileExtname": "extension",
}
_PLAIN: Final = "write $${ for a plain ${"


class Spent:
    """What references have copied and written so far; a file of some lines could otherwise fill the memory.

    Attributes:
        values: Number of values copied from bases.
        characters: Length of the texts put together.
    """

    def __init__(self) -> None:
        self.values = 0
        self.characters = 0


class _RefusedReferenceError(Exception):
    """A reference is wrong; the text says why and what to do."""


class _Found(NamedTuple):
    """What a reference stands for: as a value of its own, and inside a longer text."""

    value: object
    mark: Mark
    text: str | None  # None: it has none, it is a mapping or a list
    written: str  # how a dump writes that text


class References:
    """Resolves the references in the texts of one file; keys are left alone.

    Args:
        path: The file.
        environment: Variables for ``${env:…}``.
        bases: What ``${base:…}`` looks into; None where it may not stand.
        no_bases: Why it may not.
        spent: Counted up; shared by all files of one load.
    """

    def __init__(
        self, path: Location, environment: Mapping[str, str], bases: Map | None, no_bases: str, spent: Spent
    ) -> None:
        self._path = path
        self._environment = environment
        self._bases = bases
        self._no_bases = no_bases
        self._spent = spent
        self.mistakes: list[Mistake] = []

    def resolve(self, value: object, mark: Mark, path: TreePath = ()) -> tuple[object, Mark]:
        """Return a value without references, and its mark; the wrong ones are noted in `mistakes`."""
        if isinstance(value, str):
            return self._resolve_text(value, mark, path) if "${" in value or "{{" in value else (value, mark)
        if isinstance(value, Map):
            mapping = Map()
            for key, inner in value.items():
                found = self.resolve(inner, value.marks.get(key, mark), (*path, key))
                mapping[key], mapping.marks[key] = found
            return mapping, mark
        if isinstance(value, Seq) or (isinstance(value, tuple) and _has_references(value)):
            marks = value.marks if isinstance(value, Seq) and value.marks else [mark] * len(value)
            found_items = [
                self.resolve(inner, inner_mark, (*path, index))
                for index, (inner, inner_mark) in enumerate(zip(value, marks, strict=True))
            ]
            return Seq([item for item, _ in found_items], [item_mark for _, item_mark in found_items]), mark
        return value, mark

    def _resolve_text(self, text: str, mark: Mark, path: TreePath) -> tuple[object, Mark]:
        try:
            token = _TOKEN.fullmatch(text)
            if token is not None and not token["escaped"] and not (token["braces"] or "").startswith("'"):
                found = self._find(token, len(path))
                value: object = found.value
                if isinstance(value, Map | Seq):
                    value = self._copied(value, len(path))
                return value, mark._replace(written=found.mark.written)
            filled, written = self._filled(text, len(path))
            return filled, mark._replace(written=written)
        except (_RefusedReferenceError, RefusedValueError) as error:
            self.mistakes.append(Mistake(mark.place(), dotted(path), str(error)))
            return text, mark

    def _filled(self, text: str, depth: int) -> tuple[str, str | None]:
        """Return a text with its references filled in; and how to write it so that `${env:…}` stays, None if there is none."""
        pieces: list[str] = []
        written: list[str] = []
        position, from_environment = 0, False
        for token in _TOKEN.finditer(text):
            before = text[position : token.start()]
            position = token.end()
            if token["escaped"]:
                piece, as_written = "${", "$${"
            elif (token["braces"] or "").startswith("'"):
                piece, as_written = "{{", _BRACES_TEXT
            else:
                found = self._find(token, depth)
                if found.text is None:
                    kind = "a mapping" if isinstance(found.value, dict) else "a list"
                    raise _RefusedReferenceError(f"{token[0]} is {kind}, which cannot stand inside a longer text")
                piece, as_written = found.text, found.written
                from_environment |= found.mark.written is not None
            pieces += (before, piece)
            written += (before, as_written)
            self._spend(characters=len(before) + len(piece))
        pieces.append(text[position:])
        filled = "".join(pieces)
        if len(filled) > MAX_SCALAR:
            raise _RefusedReferenceError(TOO_LONG)
        return filled, "".join((*written, text[position:])) if from_environment else None

    def _find(self, token: re.Match[str], depth: int) -> _Found:
        if token["open"]:
            raise _RefusedReferenceError(f"this ${{ is not closed by a }}; {_PLAIN}")
        if token["braces"] is not None:
            return self._find_braces(token["braces"].strip(), token[0], depth)
        scheme, colon, rest = token["reference"].partition(":")
        if colon and scheme == "env":
            return self._variable(rest, token[0])
        if colon and scheme == "base":
            return self._from_bases(rest, token[0], depth)
        if colon and scheme == "file":
            return self._about_file(rest, token[0])
        if not colon and _VARIABLE.fullmatch(scheme):
            known = f"write ${{env:{scheme}}} for a variable of the environment, ${{base:{scheme}}} for a value of the bases"
            raise _RefusedReferenceError(f"{token[0]} is not a reference; {known}, $${{ for a plain ${{")
        near = did_you_mean(scheme, ("env", "base", "file")) or "references begin with ${env:, ${base: or ${file:"
        raise _RefusedReferenceError(f"{token[0]} is not a reference; {near}; {_PLAIN}")

    def _find_braces(self, word: str, whole: str, depth: int) -> _Found:
        if word.startswith("_base_."):
            return self._from_bases(word.removeprefix("_base_."), whole, depth)
        if word in _FILE_WORDS:
            return self._about_file(_FILE_WORDS[word], whole)
        if word.startswith("$"):
            mend = "write ${env:NAME} or ${env:NAME:default} for a variable of the environment"
        elif word.startswith("_base_"):
            mend = "write ${base:a.b} for a value of the bases"
        else:
            mend = did_you_mean(word, _FILE_WORDS) or f"known are {', '.join(_FILE_WORDS)}"
        raise _RefusedReferenceError(f"{whole} is not a reference; {mend}; write {_BRACES_TEXT} for plain {{{{")

    def _variable(self, rest: str, whole: str) -> _Found:
        name, colon, default = rest.partition(":")
        if not _VARIABLE.fullmatch(name):
            raise _RefusedReferenceError(f"{whole}: '{name}' is no name of a variable; write ${{env:NAME:default}}")
        text = self._environment.get(name, default if colon else None)
        if text is None:
            near = did_you_mean(name, self._environment, cutoff=0.8)
            hint = f"; {near}" if near else ""
            raise _RefusedReferenceError(
                f"the environment variable {name} is not set{hint}; set it, or give a default: ${{env:{name}:default}}"
            )
        if len(text) > MAX_SCALAR:
            raise _RefusedReferenceError(f"{whole}: {TOO_LONG}")
        try:
            checked_text(text)
        except RefusedValueError as error:
            raise _RefusedReferenceError(f"{whole}: {error}") from None
        self._spend(characters=len(text))
        return _Found(typed(text), Mark("", written=whole), text, whole)

    def _from_bases(self, dots: str, whole: str, depth: int) -> _Found:
        if self._bases is None:
            raise _RefusedReferenceError(f"{whole}: {self._no_bases}")
        node: object = self._bases
        mark = Mark("")
        so_far: TreePath = ()
        for part in dots.strip().split("."):
            key = _key_in(node, part)
            if key is None:
                raise _RefusedReferenceError(f"{whole}: {_nothing_there(node, so_far, part)}")
            mark = _mark_at(node, key) or mark
            node = node[key]  # type: ignore[index]  # _key_in found the key in it
            so_far = (*so_far, key)
        if isinstance(node, tuple):
            node = Seq(node, [mark] * len(node))
        if isinstance(node, Map | Seq):
            return _Found(node, Mark(""), None, "")
        if mark.written is not None:  # it came from the environment: inside a text it is the variable's own text
            text, written = self._filled(mark.written, depth)
            return _Found(node, mark, text, written or escape(text))
        text = _as_text(node)
        return _Found(node, Mark(""), text, escape(text))

    def _about_file(self, word: str, whole: str) -> _Found:
        about = {
            "dirname": self._path.directory if isinstance(self._path, Uri) else str(self._path.absolute().parent),
            "basename": self._path.name,
            "stem": self._path.stem,
            "extension": self._path.suffix,
        }
        if word not in about:
            hint = did_you_mean(word, about) or f"known are {', '.join(about)}"
            raise _RefusedReferenceError(f"{whole}: nothing is known of the file by the name '{word}'; {hint}")
        return _Found(about[word], Mark(""), about[word], escape(about[word]))

    def _copied(self, value: object, depth: int) -> object:
        if depth > MAX_DEPTH:
            raise _RefusedReferenceError(TOO_DEEP)
        self._spend(values=1)
        if isinstance(value, Map):
            return Map({key: self._copied(inner, depth + 1) for key, inner in value.items()}, value.marks)
        if isinstance(value, Seq):
            return Seq([self._copied(inner, depth + 1) for inner in value], value.marks)
        return value

    def _spend(self, *, values: int = 0, characters: int = 0) -> None:
        self._spent.values += values
        self._spent.characters += characters
        if self._spent.values > MAX_VALUES:
            raise _RefusedReferenceError(f"references copy more than {MAX_VALUES:,} values; keep data out of configs")
        if self._spent.characters > MAX_WRITTEN:
            raise _RefusedReferenceError(
                f"references write more than {MAX_WRITTEN:,} characters; keep data out of configs"
            )


def typed(text: str) -> object:
    """Return what a text from the environment is as one YAML scalar; the empty text is the empty text, not null.

    Raises:
        RefusedValueError: It is a number that is too large.
    """
    if _QUOTED.fullmatch(text):
        try:
            return parse_value(text, "").data
        except ConfigError:  # an escape that YAML does not know
            return text
    return resolve(text) if text else ""


def escape(text: str) -> str:
    """Return a text in which nothing is a reference any more when it is read."""
    if "${" not in text and "{{" not in text:
        return text
    return _ESCAPED.sub(lambda found: "$${" if found["braces"] is None else _BRACES_TEXT + found[0][2:], text)


def _has_references(value: object) -> bool:
    if isinstance(value, str):
        return "${" in value or "{{" in value
    return isinstance(value, tuple) and any(map(_has_references, value))


def _as_text(value: object) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _key_in(node: object, part: str) -> str | int | None:
    number = int(part) if part.isdecimal() and len(part) < 10 else None
    if isinstance(node, dict):
        return part if part in node else number if number in node else None
    return number if number is not None and isinstance(node, list | tuple) and number < len(node) else None


def _mark_at(node: object, key: str | int) -> Mark | None:
    if isinstance(node, Map):
        return node.marks.get(key)
    return node.marks[key] if isinstance(node, Seq) and isinstance(key, int) and node.marks else None


def _nothing_there(node: object, path: TreePath, part: str) -> str:
    inside = f"'{dotted(path)}' of the bases" if path else "the bases"
    if isinstance(node, dict):
        hint = did_you_mean(part, map(str, node)) or f"there are {', '.join(map(str, node)) or 'no keys at all'}"
        return f"there is no '{part}' in {inside}; {hint}"
    if isinstance(node, list | tuple):
        return f"{inside} is a list of {len(node)}; '{part}' is not one of its numbers"
    return f"{inside} is neither a mapping nor a list, it has no '{part}'"
