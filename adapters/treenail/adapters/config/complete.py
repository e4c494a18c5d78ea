"""What can follow the beginning of a ``key=value``: keys by the schema, along a config's own tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from treenail.adapters.config.cache import NotStoredError
from treenail.adapters.config.candidates import ANY_COMPONENT, Candidates
from treenail.adapters.config.form import form_in_slot, shared_by
from treenail.adapters.config.load import RUN
from treenail.adapters.config.rules import DEFAULTS
from treenail.adapters.config.schema import (
    ANYTHING,
    NONE,
    Anything,
    Choice,
    ComponentSchema,
    Field,
    Kind,
    ListOf,
    MapOf,
    Nested,
    OneOf,
    Raw,
    RecordOf,
    Scalar,
    TupleOf,
    Word,
)
from treenail.adapters.documents import NOTHING, parse_value
from treenail.kernel import TreenailError

_SIGNS: Final = ("+", "~")


class _Spot(NamedTuple):
    """A place in a config: what it takes, and what stands there.

    Args:
        kind: What it takes.
        value: What stands there; NOTHING where nothing does.
        shared: The parameter in which nested components get what the component around them gets.
        default: Whether it is an entry that a run has without being asked.
        names: The slot whose names it takes, if it is a ``type``.
    """

    kind: Kind
    value: object
    shared: str | None = None
    default: bool = False
    names: Nested | None = None


def complete_override(candidates: Candidates, data: object, word: str, imports: Iterable[str] = ()) -> list[str]:
    """Return what a word that begins a ``key=value`` can become: whole words, of which those that go on end in ``.`` or ``=``.

    Args:
        candidates: What can be named.
        data: The config as plain data; a mapping, or None if it could not be read.
        word: What was typed; ``+`` before it asks for keys that are not there yet, ``~`` for keys that are.
        imports: Prefixes of modules that the config may import from.
    """
    return sorted(_Completer(candidates, tuple(imports)).completions(_Spot(RecordOf(RUN), data), word))


class _Completer:
    def __init__(self, candidates: Candidates, imports: tuple[str, ...]) -> None:
        self._candidates = candidates
        self._names = candidates.names
        self._imports = imports

    def completions(self, spot: _Spot, word: str) -> Iterator[str]:
        """Yield what an override may go on with."""
        sign = word[:1] if word[:1] in _SIGNS else ""
        key, equals, typed = word.removeprefix(sign).partition("=")
        if equals and sign == "~":
            return
        *parents, last = key.split(".")
        for part in [*parents, last] if equals else parents:
            found = next((inner for name, inner in self._inside(spot) if name == part), None)
            if found is None:
                return
            spot = found
        if equals:
            yield from (f"{sign}{key}={value}" for value in self._values(spot) if value.startswith(typed))
            return
        for name, inner in self._inside(spot):
            by_number = isinstance(spot.value, list | tuple) and not last  # names of items only once one is begun
            if (
                name.startswith(last)
                and not any(each in name for each in ".= ")
                and (not by_number or name.isdecimal())
            ):
                yield from (f"{sign}{'.'.join([*parents, name])}{end}" for end in self._ends(inner, sign))

    def _ends(self, spot: _Spot, sign: str) -> Iterator[str]:
        """Yield what a key can end in: ``.`` where it leads on, ``=`` where a value can be given, nothing to remove it."""
        there = spot.value is not NOTHING or spot.default
        leads_on = any(True for _ in self._inside(spot))
        if leads_on and (there or sign != "~"):
            yield "."
        if sign == "~":
            yield from [""] if there else []
        elif not sign or spot.value is NOTHING or isinstance(spot.value, list):  # + also lengthens a list
            structured = all(isinstance(kind, Nested | RecordOf | MapOf) for kind in _members(spot.kind, null=True))
            if not (leads_on and structured):
                yield "="

    def _inside(self, spot: _Spot) -> Iterator[tuple[str, _Spot]]:
        """Yield the keys below a place, each once: those of the schema, then others that are there."""
        seen: set[str] = set()
        value = spot.value
        for kind in _members(spot.kind):
            for name, inner in self._below(kind, value, spot.shared):
                if name not in seen:
                    seen.add(name)
                    yield name, inner

    def _below(self, kind: Kind, value: object, shared: str | None) -> Iterator[tuple[str, _Spot]]:
        entries: Mapping[str | int, object] = value if isinstance(value, dict) else {}
        absent = value is NOTHING or value is None
        if isinstance(kind, RecordOf) and (entries or absent or isinstance(value, dict)):
            yield from self._fields(self._names.record(kind.record).fields, entries, shared)
        elif isinstance(kind, Nested) and (isinstance(value, dict) or absent):
            yield from self._component(kind, entries, shared)
        elif isinstance(kind, ListOf | TupleOf) and isinstance(value, list | tuple):
            for index, item in enumerate(value):
                inner = kind.item if isinstance(kind, ListOf) else kind.items[min(index, len(kind.items) - 1)]
                yield str(index), _Spot(inner, item, shared)
                yield from ((name, _Spot(inner, item, shared)) for name in _item_names(item) if _only_in(value, name))
        elif isinstance(kind, MapOf) and (isinstance(value, dict) or absent):
            defaults = self._defaults(kind)
            for name in dict.fromkeys([*entries, *defaults]):
                yield str(name), _Spot(kind.value, entries.get(name, NOTHING), shared, default=name in defaults)
        elif isinstance(kind, Anything):
            yield from self._unchecked(entries, value, shared)
        elif isinstance(kind, Raw):
            yield from self._below(MapOf(ANYTHING, kind) if entries else ListOf(kind), value, shared)

    def _unchecked(
        self, entries: Mapping[str | int, object], value: object, shared: str | None
    ) -> Iterator[tuple[str, _Spot]]:
        if isinstance(entries.get("type"), str):
            yield from self._component(ANY_COMPONENT, entries, shared)
        else:
            yield from self._below(MapOf(ANYTHING, ANYTHING) if entries else ListOf(ANYTHING), value, shared)

    def _defaults(self, kind: MapOf) -> tuple[str, ...]:
        """Return the entries of a mapping that a run has without being asked."""
        for section, entries in DEFAULTS.items():
            if any(each.name == section and each.kind == kind for each in self._names.record(RUN).fields):
                return entries
        return ()

    def _component(
        self, slot: Nested, entries: Mapping[str | int, object], shared: str | None
    ) -> Iterator[tuple[str, _Spot]]:
        yield "type", _Spot(Scalar("str"), entries.get("type", NOTHING), names=slot)
        schema = self._schema(slot, entries.get("type"))
        if schema is not None:
            inner = shared_by(slot) if slot.form == "late" else shared
            fields = form_in_slot(schema, slot, inner if inner not in entries else None).fields.values()
            yield from self._fields([each for each in fields if each.name != "type"], entries, inner)

    def _schema(self, slot: Nested, name: object) -> ComponentSchema | None:
        if not isinstance(name, str):
            return None
        try:
            return self._names.resolve(name, slot, self._imports)
        except (TreenailError, NotStoredError):
            return None  # the check tells what is wrong; here, nothing can be said of its parameters

    def _fields(
        self, fields: Iterable[Field], entries: Mapping[str | int, object], shared: str | None
    ) -> Iterator[tuple[str, _Spot]]:
        for field in fields:
            yield field.name, _Spot(field.kind, entries.get(field.name, NOTHING), shared)

    def _values(self, spot: _Spot) -> Iterator[str]:
        """Yield the values of a place that can be counted, as YAML; each once."""
        found = [value for kind in _members(spot.kind, null=True) for value in _values_of(kind)]
        found += self._candidates.fitting(spot.names) if spot.names else ()
        yield from dict.fromkeys(value for value in found if not any(each.isspace() for each in value))


def _values_of(kind: Kind) -> Iterator[str]:
    match kind:
        case Scalar(type="bool"):
            yield from ("true", "false")
        case Scalar(type="none"):
            yield "null"
        case Word(values=values):
            yield from values
        case Choice(values=values):
            for value in values:
                text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
                # A word that YAML reads as something else needs quotes, which the shell would take away.
                if parse_value(text, "value").data == value:
                    yield text
        case _:
            pass


def _item_names(item: object) -> list[str]:
    """Return what an override can call an item of a list, besides its number: its ``name`` and its ``type``."""
    named = item if isinstance(item, dict) else {}
    texts = [each for each in (named.get("name"), named.get("type")) if isinstance(each, str)]
    return list(dict.fromkeys([*texts, *(text.rpartition(":")[2] for text in texts)]))


def _only_in(items: Sequence[object], name: str) -> bool:
    return sum(name in _item_names(item) for item in items) == 1


def _members(kind: Kind, *, null: bool = False) -> list[Kind]:
    members = kind.members if isinstance(kind, OneOf) else (kind,)
    return [member for member in members if null or member != NONE]
