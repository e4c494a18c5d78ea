"""What may be written after ``type:``: the names that fit a slot, and the names that a person may have meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from treenail.adapters.config.cache import NotStoredError, load_stored, store
from treenail.adapters.config.catalog import Catalog, Names
from treenail.adapters.config.form import Form, form_in_slot, shared_by
from treenail.adapters.config.leaves import kind_name
from treenail.adapters.config.load import RUN
from treenail.adapters.config.ports import PORTS
from treenail.adapters.config.schema import (
    Anything,
    ComponentSchema,
    Kind,
    ListOf,
    MapOf,
    Nested,
    OneOf,
    Raw,
    RecordOf,
    Scalar,
    TupleOf,
)
from treenail.kernel import RegistryError, TreenailError, did_you_mean

ANY_COMPONENT: Final = Nested(None, "component")
"""The slot of a mapping with a ``type`` where anything may stand."""


class Match(NamedTuple):
    """A component that a name may mean.

    Args:
        name: What a config writes after ``type:``.
        port: Its port; None for what was named ``module:attribute``.
        schema: What it is.
    """

    name: str
    port: str | None
    schema: ComponentSchema

    def __str__(self) -> str:
        return f"{self.port}:{self.name}" if self.port else self.name


class Candidates:
    """The components that can be named.

    Args:
        names: Where names and schemas come from.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self._ports: dict[str, dict[str, ComponentSchema]] = {}
        self._fitting: dict[Nested, dict[str, ComponentSchema]] = {}

    def of_port(self, port: str) -> dict[str, ComponentSchema]:
        """Return what each name of a port stands for; those of ``package:name`` among them, sorted."""
        found = self._ports.get(port)
        if found is None:
            scoped = [
                f"{scope}:{name}"
                for scope, adapter in self.names.registries[port]
                for name in (adapter.name, *adapter.aliases)
            ]
            found = self._ports[port] = {}
            for name in sorted({*self.names.names(port), *scoped}):
                try:
                    found[name] = self.names.lookup(port, name)
                except (NotStoredError, TreenailError):
                    continue  # not installed here, broken, or declared by several packages
        return found

    def ambiguous(self, slot: Nested) -> list[str]:
        """Return the plain names that several packages declare for a slot, so that only ``_scope_`` makes them clear."""
        ports = [slot.port] if slot.port is not None else list(self.names.registries)
        owners: dict[tuple[str, str], set[str]] = {}
        for port in ports:
            for scope, adapter in self.names.registries[port]:
                for name in (adapter.name, *adapter.aliases):
                    owners.setdefault((port, name), set()).add(scope)
        return sorted({name for (_, name), scopes in owners.items() if len(scopes) > 1})

    def fitting(self, slot: Nested) -> dict[str, ComponentSchema]:
        """Return what each name that may stand in a slot stands for, sorted by name."""
        found = self._fitting.get(slot)
        if found is not None:
            return found
        if slot.port is not None:
            pairs = self.of_port(slot.port)
            found = {name: schema for name, schema in pairs.items() if self._takes(slot, schema)}
        else:
            meant: dict[str, dict[str, ComponentSchema]] = {}
            for port in self.names.registries:
                for name, schema in self.of_port(port).items():
                    if self.names.schemas.fits(schema, slot):
                        meant.setdefault(name, {})[schema.target] = schema
            clear = {name: next(iter(schemas.values())) for name, schemas in meant.items() if len(schemas) == 1}
            found = {name: clear[name] for name in sorted(clear) if self._takes(slot, clear[name])}
        self._fitting[slot] = found
        return found

    def _takes(self, slot: Nested, schema: ComponentSchema) -> bool:
        return not schema.abstract and self.names.schemas.fits(schema, slot)

    def slot_of(self, port: str | None) -> Nested:
        """Return the slot in which a run holds components of a port; one that keeps them if a run holds none."""
        run = [RUN, *(each.record for each in _records_in(self.names, RUN))]
        for key in run:
            for field in self.names.record(key).fields:
                for kind in parts_of(field.kind):
                    if isinstance(kind, Nested) and port is not None and kind.port == port:
                        return kind
        return Nested(PORTS.get(port or ""), port or "component", port, "spec")

    def form(self, match: Match) -> tuple[Nested, Form]:
        """Return the slot in which a run holds a component, and the form that the component takes there."""
        slot = self.slot_of(match.port)
        return slot, form_in_slot(match.schema, slot, shared_by(slot))

    def find(self, text: str, imports: Sequence[str] = ()) -> list[Match]:
        """Return what a name that a person gave means: the first, then others that differ from it in upper and lower case.

        Args:
            text: A name or alias in any case, ``package:name``, ``port:name``, or ``module:attribute`` below an import.
            imports: Prefixes of modules that may be imported.

        Raises:
            RegistryError: The name is unknown, means several components, or may not be imported.
            MissingDependencyError: It needs a package that is not installed.
        """
        first, colon, rest = text.partition(":")
        if colon and first not in self.names.registries and first not in self.names.scopes():
            return [Match(text, None, self.names.resolve(text, None, tuple(imports)))]
        ports = [first] if colon and first in self.names.registries else list(self.names.registries)
        wanted = rest if ports == [first] else text
        matches = [
            Match(self._primary(port, name), port, schema)
            for port in ports
            for name, schema in self.of_port(port).items()
            if name.casefold() == wanted.casefold()
        ]
        exact = [match for match in matches if wanted in self._spellings(match)]
        chosen = _by_target(exact or matches)
        if len(chosen) > 1:
            listed = ", ".join(f"'{match}'" for match in chosen)
            raise RegistryError(f"several components are called '{text}'", mend=f"write one of {listed}")
        if not chosen:
            self._refuse(wanted, ports)
        return [*chosen, *(each for each in _by_target(matches) if each.schema.target != chosen[0].schema.target)]

    def _spellings(self, match: Match) -> list[str]:
        ours = self.of_port(match.port or "")
        return [name for name, schema in ours.items() if schema.target == match.schema.target]

    def primary_names(self, slot: Nested) -> list[str]:
        """Return one name for each component that is known to fit a slot: that of its adapter, not an alias."""
        found: dict[str, str] = {}
        for name, schema in self.fitting(slot).items():
            if ":" not in name and (slot.port is not None or schema.produces is not None):
                ports = [slot.port] if slot.port is not None else [p for p in self._ports if name in self._ports[p]]
                found.setdefault(schema.target, self._primary(ports[0], name))
        return sorted(found.values())

    def _primary(self, port: str, name: str) -> str:
        """Return the name of the adapter that a name or alias means."""
        scope, _, plain = name.rpartition(":")
        for owner, adapter in self.names.registries[port]:
            if plain in adapter.aliases and scope in ("", owner):
                return f"{scope}:{adapter.name}" if scope else adapter.name
        return name

    def _refuse(self, wanted: str, ports: Sequence[str]) -> None:
        known = [(port, name) for port in ports for name in self.names.names(port)]
        for port, name in known:
            if name.casefold() == wanted.casefold():
                self.names.lookup(port, name)  # raises, with what it lacks
        of = f"unknown {ports[0]}" if len(ports) == 1 else "unknown component"
        mend = did_you_mean(wanted, [name for _, name in known]) or "`treenail adapters` lists what is known"
        raise RegistryError(f"{of} '{wanted}'", mend=mend)


def names_for(imports: Sequence[str] = ()) -> Names:
    """Return the stored names of this environment; where there are none, derive and store them, which imports torch.

    Args:
        imports: Prefixes of modules that may be imported; what lies below them is never stored here.
    """
    stored = None if imports else load_stored(())
    if stored is not None:
        return stored
    catalog = Catalog(described=True)
    store(catalog, ())
    return catalog


def parts_of(kind: Kind) -> list[Kind]:
    """Return a kind and every kind that it is made of; records and components are not entered."""
    inner: Sequence[Kind] = ()
    match kind:
        case ListOf(item=item):
            inner = (item,)
        case TupleOf(items=items):
            inner = items
        case MapOf(key=key, value=value):
            inner = (key, value)
        case OneOf(members=members):
            inner = members
        case _:
            pass
    return [kind, *(part for each in inner for part in parts_of(each))]


def kind_text(kind: Kind) -> str:
    """Describe a kind for a person who fills it in: ``list of 2: float, float``, ``int >= 1 or null``."""
    match kind:
        case ListOf(item=Anything()):
            return "list"
        case ListOf(item=item):
            return f"list of {_in_parentheses(item)}"
        case TupleOf(items=items):
            return f"list of {len(items)}: {', '.join(map(_in_parentheses, items))}"
        case MapOf(value=value):
            return (
                "mapping of plain data" if isinstance(value, Raw) else f"mapping of names to {_in_parentheses(value)}"
            )
        case OneOf(members=members):
            return " or ".join(dict.fromkeys(_in_parentheses(member) for member in members))
        case Scalar(limits=limits) if limits:
            told = [f"{_SIGNS.get(name, name.replace('_', ' '))} {limit}" for name, limit in limits.items()]
            return f"{kind_name(kind)} {' and '.join(told)}"
        case _:
            return kind_name(kind)


_SIGNS: Final = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def _in_parentheses(kind: Kind) -> str:
    return f"({kind_text(kind)})" if isinstance(kind, OneOf | TupleOf) else kind_text(kind)


def _records_in(names: Names, key: str) -> list[RecordOf]:
    found: dict[RecordOf, None] = {}
    for field in names.record(key).fields:
        for part in parts_of(field.kind):
            if isinstance(part, RecordOf) and part not in found:
                found |= dict.fromkeys([part, *_records_in(names, part.record)])
    return list(found)


def _by_target(matches: Sequence[Match]) -> list[Match]:
    found: dict[str, Match] = {}
    for match in matches:
        found.setdefault(match.schema.target, match)
    return list(found.values())
