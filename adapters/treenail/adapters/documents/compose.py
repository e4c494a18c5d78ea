"""The events of a YAML parser as plain data that knows where each part was written, in one pass and without a node tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple, TypeGuard

from ruamel.yaml.events import (
    AliasEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from treenail.adapters.documents.document import Document, InvalidConfigError, Map, Mark, Mistake, Seq, dotted
from treenail.adapters.documents.limits import (
    BAD_KEY,
    MAX_DEPTH,
    MAX_MISTAKES,
    MAX_VALUES,
    TOO_DEEP,
    TOO_MANY,
    TOO_WRONG,
    LimitError,
    RefusedValueError,
    checked_text,
    empty_file,
    real_number,
)
from treenail.adapters.documents.scalars import resolve

_CORE: Final = "tag:yaml.org,2002:"
_TYPES: Final = {"int": int, "float": float, "bool": bool, "null": type(None)}
_MERGE: Final = "merge keys (<<) are not supported; write the fields out"
_UNSEEN: Final = object()
_make_mark: Callable[[tuple[str, int, int, int, int, None]], Mark] = partial(
    tuple.__new__, Mark
)  # Mark(…) itself takes twice as long


class _Anchor(NamedTuple):
    """What an anchor names: a value, how many values it holds, and where it was written."""

    value: object
    size: int
    line: int
    column: int


class Composer:
    """Turns events into a document and collects the mistakes in it.

    Args:
        next_event: Returns the next event of the parser.
        source: Name of the file, for places.
        resolver: Says what a plain scalar stands for.

    Attributes:
        mistakes: What was found to be wrong so far.
        reached: Line and column of the last scalar or collection that was begun.
    """

    def __init__(self, next_event: Callable[[], Event], source: str, resolver: Callable[[str], object]) -> None:
        self._next = next_event
        self._source = source
        self._resolver = resolver
        self._resolved: dict[str, object] = {}  # most scalars of a config occur many times
        self._anchors: dict[str, _Anchor | None] = {}  # None while the value is being read
        self._path: list[str | int] = []
        self._count = 0
        self._depth = 0
        self.mistakes: list[Mistake] = []
        self.reached = (1, 1)

    def document(self) -> Document:
        """Read the one document.

        Raises:
            InvalidConfigError: There are mistakes.
            ConfigError: There is nothing in it.
            YAMLError: The parser found wrong syntax; `mistakes` holds what was found before it.
        """
        try:
            data, mark = self._document()
        except LimitError as error:
            self.mistakes.append(Mistake(f"{self._source}:{error.line}:{error.column}", "", error.message))
        if self.mistakes:
            raise InvalidConfigError(self.mistakes)
        return Document(self._source, data, mark)

    def _document(self) -> tuple[object, Mark]:
        self._next()  # the stream's start
        start = self._next()
        if isinstance(start, StreamEndEvent):
            raise empty_file(self._source)
        root = self._root()
        self._next()  # the document's end
        after = self._next()
        if not isinstance(after, StreamEndEvent):
            self._mistake(after, "another document begins here; a config file holds one")
        return root

    def _root(self) -> tuple[object, Mark]:
        event = self._next()
        if isinstance(event, ScalarEvent) and event.ctag is None and not event.style and not event.value:
            raise empty_file(self._source)
        assert isinstance(event, NodeEvent)
        data, line, column = self._node(event)
        return data, Mark(self._source, line, column)

    def _mapping(self, start: Event) -> Map:
        self._enter(start)
        found = Map()
        marks, path, source, mistakes = found.marks, self._path, self._source, self.mistakes
        next_event, read, read_scalar = self._next, self._node, self._scalar
        while True:
            event = next_event()
            if isinstance(event, MappingEndEvent):
                break
            before = len(mistakes)
            key = read_scalar(event) if isinstance(event, ScalarEvent) and event.anchor is None else read(event)[0]
            at = event.start_mark
            key_line, key_column = at.line + 1, at.column + 1
            usable = None
            if _is_key(key) and key not in marks:
                usable = key
                path.append(key)
            elif len(mistakes) == before:
                self._refuse_key(event, key, marks)
            event = next_event()
            value, line, column = read(event)
            if value is None and _is_absent(event):
                line, column = key_line, key_column  # the parsers do not agree where nothing stands
            if usable is not None:
                path.pop()
                found[usable] = value
                marks[usable] = _make_mark((source, line, column, key_line, key_column, None))
        self._depth -= 1
        return found

    def _sequence(self, start: Event) -> Seq:
        self._enter(start)
        found = Seq()
        add, add_mark, path, source = found.append, found.marks.append, self._path, self._source
        next_event, read = self._next, self._node
        path.append(0)
        while True:
            event = next_event()
            if isinstance(event, SequenceEndEvent):
                break
            value, line, column = read(event)
            add(value)
            add_mark(_make_mark((source, line, column, 0, 0, None)))
            path[-1] = len(found)
        path.pop()
        self._depth -= 1
        return found

    def _enter(self, start: Event) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise LimitError(TOO_DEEP, start.start_mark.line + 1, start.start_mark.column + 1)

    def _node(self, event: Event) -> tuple[object, int, int]:
        """Return the value that begins with an event, and where it was written."""
        at = event.start_mark
        line, column = self.reached = at.line + 1, at.column + 1
        self._count += 1
        if self._count > MAX_VALUES:
            raise LimitError(TOO_MANY, line, column)
        if isinstance(event, AliasEvent):
            return self._aliased(event, line, column)
        assert isinstance(event, NodeEvent)  # what else can begin is a stream's or a document's
        anchor, before = event.anchor, self._count
        if anchor is not None:
            self._anchors[anchor] = None
        if isinstance(event, ScalarEvent):
            value = self._scalar(event)
        elif isinstance(event, MappingStartEvent):
            self._check_tag(event, "map")
            value = self._mapping(event)
        else:
            assert isinstance(event, SequenceStartEvent)
            self._check_tag(event, "seq")
            value = self._sequence(event)
        if anchor is not None:
            self._anchors[anchor] = _Anchor(value, self._count - before + 1, line, column)
        return value, line, column

    def _scalar(self, event: ScalarEvent) -> object:
        plain = event.ctag is None and not event.style
        if plain:
            value = self._resolved.get(event.value, _UNSEEN)
            if value is not _UNSEEN:
                return value
        try:
            value = self._content(event)
        except RefusedValueError as error:
            self._mistake(event, str(error))
            return None
        if plain:
            self._resolved[event.value] = value
        return value

    def _content(self, event: ScalarEvent) -> object:
        text = checked_text(event.value)
        if event.tag is not None:
            return _tagged(event.tag, text)
        if event.style:
            return text
        if text == "<<":
            raise RefusedValueError(_MERGE)
        return self._resolver(text)

    def _aliased(self, event: AliasEvent, line: int, column: int) -> tuple[object, int, int]:
        """Return a copy of what an alias names; its size is known, so that nothing too large is ever made."""
        if event.anchor not in self._anchors:
            self._mistake(event, f"the alias *{event.anchor} names nothing; its anchor (&) must stand before it")
            return None, line, column
        anchor = self._anchors[event.anchor]
        if anchor is None:
            self._mistake(
                event,
                f"the alias *{event.anchor} is a part of what it names, which would be nested too deeply;"
                " write the value out",
            )
            return None, line, column
        self._count += anchor.size - 1
        if self._count > MAX_VALUES:
            raise LimitError(TOO_MANY, line, column)
        if self._depth + _height(anchor.value) > MAX_DEPTH:
            raise LimitError(TOO_DEEP, line, column)
        return _copy(anchor.value), anchor.line, anchor.column

    def _refuse_key(self, event: Event, key: object, marks: Mapping[str | int, Mark]) -> None:
        if not _is_key(key):
            self._mistake(event, BAD_KEY)
            return
        self._path.append(key)
        self._mistake(event, f"this key occurs twice, first in line {marks[key].key_line}")
        self._path.pop()

    def _check_tag(self, event: MappingStartEvent | SequenceStartEvent, wanted: str) -> None:
        tag = event.tag
        if tag is None or tag == _CORE + wanted:
            return
        if _core_name(tag) is None:
            self._mistake(event, _tag_refused(tag))
        else:
            found = "a mapping" if wanted == "map" else "a list"
            self._mistake(event, f"the tag {_short(tag)} does not agree with {found}; remove the tag")

    def _mistake(self, event: Event, message: str) -> None:
        at = event.start_mark
        where = f"{self._source}:{at.line + 1}:{at.column + 1}"
        self.mistakes.append(Mistake(where, dotted(tuple(self._path)), message))
        if len(self.mistakes) >= MAX_MISTAKES:
            raise LimitError(TOO_WRONG, *self.reached)


def _is_key(key: object) -> TypeGuard[str | int]:
    return key.__class__ is str or key.__class__ is int  # a bool is an int too, and no key


def _is_absent(event: Event) -> bool:
    """Return whether an event stands for a value that was not written: ``lr:`` with nothing after it."""
    return isinstance(event, ScalarEvent) and not event.value and event.ctag is None and event.anchor is None


def _tagged(tag: str, text: str) -> object:
    """Return the value of a scalar with an explicit tag.

    Raises:
        RefusedValueError: The tag is not one of the core schema, or the text is of another type.
    """
    name = _core_name(tag)
    if name is None:
        raise RefusedValueError(_tag_refused(tag))
    if name == "str":
        return text
    value = resolve(text)
    if name == "float" and type(value) is int:
        return real_number(str(value))
    if name not in _TYPES or type(value) is not _TYPES[name]:
        raise RefusedValueError(f"the tag !!{name} does not agree with {_shown(text)}; remove the tag")
    return value


def _core_name(tag: str) -> str | None:
    name = tag.removeprefix(_CORE)
    return name if name != tag and name in (*_TYPES, "str", "map", "seq") else None


def _tag_refused(tag: str) -> str:
    if tag == "!required":  # what templates put where there is no default
        return "a value is required here; write it in the place of !required"
    return f"the tag {_short(tag)} is not allowed, tags can name code; write plain values"


def _short(tag: str) -> str:
    name = tag.replace(_CORE, "!!")
    return name if len(name) <= 80 else f"{name[:77]}…"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}…")


def _copy(value: object) -> object:
    if isinstance(value, Map):
        return Map({key: _copy(inner) for key, inner in value.items()}, value.marks)
    if isinstance(value, Seq):
        return Seq(map(_copy, value), value.marks)
    return value


def _height(value: object) -> int:
    """Return how many collections are nested in a value."""
    if isinstance(value, Map):
        return 1 + max(map(_height, value.values()), default=0)
    if isinstance(value, Seq):
        return 1 + max(map(_height, value), default=0)
    return 0
