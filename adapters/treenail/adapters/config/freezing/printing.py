"""The values of a config as expressions of Python, and the functions that nested components need."""

from __future__ import annotations

import keyword
import math
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple, NoReturn, cast

import msgspec

from treenail.adapters.config.catalog import Catalog
from treenail.adapters.config.form import Form
from treenail.adapters.config.freezing.annotations import awaited_type, type_text
from treenail.adapters.config.freezing.imports import Imports, public_place
from treenail.adapters.config.freezing.layout import Group, Item, Text, text_literal
from treenail.adapters.config.freezing.transcript import Call, Leaf, Record, Reference
from treenail.adapters.config.freezing.written import UnsayableError, WrittenText, from_environment
from treenail.adapters.config.schema import Choice, ComponentSchema, Field, Kind, ListOf, MapOf, Nested, OneOf, TupleOf
from treenail.adapters.documents import Document, InvalidConfigError, Mistake, TreePath, dotted
from treenail.kernel import ConfigError

_KERNEL: Final = "treenail.kernel"
_OBJECT: Final = Nested(None, "component")


class Slot(NamedTuple):
    """Where a value stands.

    Args:
        path: Its place.
        kinds: What it may be.
        owner: The class or callable that a field or parameter with this value belongs to.
        parameter: That field or parameter.
    """

    path: TreePath
    kinds: tuple[Kind, ...]
    owner: object
    parameter: str

    def inner(self, key: str | int) -> Slot:
        """Return the slot of an item or entry."""
        found: list[Kind] = []
        for kind in self.kinds:
            if isinstance(kind, ListOf):
                found.append(kind.item)
            elif isinstance(kind, TupleOf) and isinstance(key, int) and key < len(kind.items):
                found.append(kind.items[key])
            elif isinstance(kind, MapOf):
                found.append(kind.value)
        return Slot((*self.path, key), _flat(found), self.owner, self.parameter)


class Function(NamedTuple):
    """A function that builds a component out of nested ones.

    Args:
        head: ``def model() -> nn.Sequential:``.
        body: What it returns.
    """

    head: str
    body: Text | Group


class Printer:
    """Prints values.

    Args:
        document: The config, for places.
        catalog: Holds what the config names.
        imports: Collects what is named.
        written: What the file says beside the values.

    Attributes:
        functions: What the printed expressions call, each before those that call it.
    """

    def __init__(self, document: Document, catalog: Catalog, imports: Imports, written: WrittenText) -> None:
        self.functions: list[Function] = []
        self._document = document
        self._catalog = catalog
        self._imports = imports
        self._written = written
        self._nested = 0  # how many components were printed as plain calls, which need a function around them
        self._received = ""  # what the function being printed calls its first argument

    def value(self, value: object, slot: Slot) -> Text | Group:
        """Return the expression of a value.

        Raises:
            InvalidConfigError: Typed Python cannot say it.
        """
        mark = self._written.mark(slot.path)
        try:
            if mark is not None and mark.written is not None:
                return Text(self._from_environment(value, mark.written), slot.path)
            return self._value(value, slot)
        except UnsayableError as error:
            self._refuse(slot.path, str(error))
        except ConfigError as error:
            if isinstance(error, InvalidConfigError):
                raise
            self._refuse(slot.path, str(error))

    def record(self, record: Record, path: TreePath, *, spread: bool = False) -> Group:
        """Return the call that makes a record."""
        kind = self._catalog.derivation.objects[record.key]
        names = _python_names(kind)
        fields = {field.name: field for field in self._catalog.record(record.key).fields}
        items = [
            self._argument(names.get(name, name), value, Slot((*path, name), _flat([fields[name].kind]), kind, name))
            for name, value in record.fields.items()
        ]
        return Group(self._name(kind, record.key), "()", tuple(items), path, spread)

    def _value(self, value: object, slot: Slot) -> Text | Group:
        path = slot.path
        if isinstance(value, Call):
            return self._component(value, slot)
        if isinstance(value, Record):
            return self.record(value, path)
        if isinstance(value, Leaf):
            return Text(self._leaf(value), path)
        if isinstance(value, Reference):
            return Text(self._target(value.schema, path), path)
        if isinstance(value, dict):
            entries = [self._item(f"{_literal(key)}: ", item, slot.inner(key)) for key, item in value.items()]
            return Group("", "{}", tuple(entries), path)
        if isinstance(value, list | tuple):
            items = [self._item("", item, slot.inner(index)) for index, item in enumerate(value)]
            return Group("", "[]" if isinstance(value, list) else "()", tuple(items), path)
        if isinstance(value, set | frozenset):
            return self._set(value, path)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return Text(self._written.spelling(value, path) or _literal(value), path)
        return Text(_literal(value), path)

    def _argument(self, name: str, value: object, slot: Slot) -> Item:
        if name and (not name.isidentifier() or keyword.iskeyword(name)):
            self._refuse(
                slot.path, f"'{name}' is no name in Python, so that it cannot be given as an argument", key=True
            )
        return self._item(f"{name}=" if name else "", value, slot)

    def _item(self, prefix: str, value: object, slot: Slot) -> Item:
        above, beside = self._written.comments(slot.path)  # before what is inside takes them
        return Item(prefix, self.value(value, slot), above, beside)

    def _set(self, value: set[object] | frozenset[object], path: TreePath) -> Text | Group:
        items = cast(Sequence[object], _data_at(self._document.data, path))  # checked to be a list
        for index in range(len(items)):
            mark = self._written.mark((*path, index))
            if mark is not None and mark.written is not None:
                self._refuse((*path, index), f"{mark.written} goes into a set; write the value itself")
        parts = sorted(self._leaf(item) if isinstance(item, Leaf) else _literal(item) for item in value)
        braces = Group("", "{}", tuple(Item("", Text(part)) for part in parts), path)
        if not parts:
            return Text(f"{type(value).__name__}()", path)
        return braces if isinstance(value, set) else Group("frozenset", "()", (Item("", braces),), path)

    def _leaf(self, leaf: Leaf) -> str:
        value, kind = leaf
        if isinstance(kind, Choice):
            if kind.enum is None:
                return _literal(value)
            enum = cast(type[Enum], self._catalog.derivation.objects[kind.enum])  # that is what the key is of
            return f"{self._name(enum, kind.enum)}.{value if kind.by_name else enum(value).name}"
        if kind.of == "path":
            return f"{self._imports.name('pathlib', 'Path')}({_literal(value)})"
        if kind.of == "device":
            return f"{self._imports.name('torch', 'device')}({_literal(value)})"
        return self._imports.name("torch", str(value))

    def _from_environment(self, value: object, written: str) -> str:
        if not isinstance(value, Leaf):
            return from_environment(value, written, self._imports)
        kind = value.kind
        if isinstance(kind, Choice):
            right = " or ".join(map(repr, kind.values))
            raise UnsayableError(f"{written} can be any text, but only {right} is right here; write the value itself")
        if kind.of != "path":
            raise UnsayableError(f"{written} can be any text, but a {kind.of} is needed here; write the value itself")
        text = from_environment(value.value, written, self._imports)
        return f"{self._imports.name('pathlib', 'Path')}({text})"

    def _component(self, call: Call, slot: Slot) -> Text | Group:
        place = self._place_of(call, slot)
        if place.form == "object":
            self._nested += 1
            return self._call(call, slot.path, self._arguments(call, slot.path))
        around = self._nested, self._received
        self._nested, self._received = 0, self._first_parameter(call)
        items = self._arguments(call, slot.path)
        if self._nested or call.form.receives:
            found: Text | Group = self._by_function(call, items, slot, place)
        else:
            found = self._described(call, items, slot.path)
        self._nested, self._received = around
        return found

    def _place_of(self, call: Call, slot: Slot) -> Nested:
        """Return the slot's kind that the component was taken for."""
        fits = self._catalog.schemas.fits
        nested = (kind for kind in slot.kinds if isinstance(kind, Nested))
        return next((kind for kind in nested if fits(call.form.schema, kind)), _OBJECT)

    def _described(self, call: Call, items: list[Item], path: TreePath) -> Group:
        target = self._target(call.form.schema, path)
        if call.form.completes and (call.form.awaited != 2 or call.args):
            partial = f"{self._imports.module('functools')}.partial"
            head = f"{self._imports.name(_KERNEL, 'spec')}({partial})"
            return Group(head, "()", (Item("", Text(target)), *items), path)
        wrapper = "partial" if call.form.completes else call.form.kind
        return Group(f"{self._imports.name(_KERNEL, wrapper)}({target})", "()", tuple(items), path)

    def _call(self, call: Call, path: TreePath, items: list[Item]) -> Text | Group:
        target = self._target(call.form.schema, path)
        if call.form.completes:
            if not items:
                return Text(target, path)
            partial = f"{self._imports.module('functools')}.partial"
            return Group(partial, "()", (Item("", Text(target)), *items), path)
        receives, fields = call.form.receives, call.form.schema.fields
        if receives and fields[0].name == receives and not call.args:
            items = [Item("", Text(self._received)), *items]
        elif receives:
            items = [*items, Item(f"{receives}=", Text(self._received))]
        return Group(target, "()", tuple(items), path)

    def _first_parameter(self, call: Call) -> str:
        if call.form.kind != "late":
            return self._received
        if call.form.receives:
            return call.form.receives
        fields = call.form.schema.fields
        return fields[0].name if fields and fields[0].how in ("name", "position") else "first"

    def _by_function(self, call: Call, items: list[Item], slot: Slot, place: Nested) -> Group:
        """Define the function that builds a component, and return its description."""
        path, parameters = slot.path, []
        if call.form.kind == "late":
            awaited = type_text(awaited_type(slot.owner, slot.parameter), self._name)
            parameters.append(f"{self._received}: {awaited}")
            if not call.form.receives:
                items = [Item("", Text(self._received)), *items]
        seed = self._open_seed(call, place)
        if seed is not None:
            parameters.append(f"seed: int = {seed.default_text or 0}")
            items = [*items, Item("seed=", Text("seed"))]
        result = self._result(call, place)
        body = self._call(call, path, items)
        name = self._imports.own_name(_function_name(path))
        self.functions.append(Function(f"def {name}({', '.join(parameters)}) -> {result}:", body))
        return Group(f"{self._imports.name(_KERNEL, call.form.kind)}({name})", "()", (), path)

    def _open_seed(self, call: Call, place: Nested) -> Field | None:
        """Return the ``seed`` that a run fills in where a sampler takes one and none is written."""
        field = call.form.fields.get("seed") if place.port == "sampler" else None
        return field if field is not None and "seed" not in call.kwargs else None

    def _result(self, call: Call, place: Nested) -> str:
        target = self._catalog.callable_of(call.form.schema)
        if isinstance(target, type) and not getattr(target, "__parameters__", ()):
            return self._name(target, call.form.schema.target)
        if place.port == "loss":
            return self._imports.name("treenail.contracts", "Loss")
        wanted = self._catalog.derivation.objects.get(place.wanted or "")
        return type_text(wanted, self._name) if isinstance(wanted, type) else "object"

    def _arguments(self, call: Call, path: TreePath) -> list[Item]:
        owner = self._catalog.callable_of(call.form.schema)
        known, further = call.form.fields, call.form.further
        given = _data_at(self._document.data, path)
        places = _positions(call.form, given if isinstance(given, dict) else {})
        items = [
            self._argument("", value, Slot((*path, *place), _flat([kind]), owner, str(place[0])))
            for value, (place, kind) in zip(call.args, places, strict=True)
        ]
        for name, value in call.kwargs.items():
            field = known.get(name) or further
            kinds = _flat([field.kind]) if field is not None else ()
            items.append(self._argument(name, value, Slot((*path, name), kinds, owner, name)))
        return items

    def _target(self, schema: ComponentSchema, path: TreePath) -> str:
        mark = self._written.mark((*path, "type"))
        if mark is not None and mark.written is not None:
            self._refuse((*path, "type"), f"{mark.written} can be any component; write the name of one")
        given = _data_at(self._document.data, path)
        written = given.get("type") if isinstance(given, dict) else given
        named = written if isinstance(written, str) and ":" in written else None
        return self._name(self._catalog.callable_of(schema), schema.target, named)

    def _name(self, target: object, key: str | None = None, named: str | None = None) -> str:
        key = key or self._catalog.derivation.key(target)
        others = [each.module for registry in self._catalog.registries.values() for each in registry.namespaces]
        return self._imports.name(*public_place(target, key, named, others))

    def _refuse(self, path: TreePath, message: str, *, key: bool = False) -> NoReturn:
        raise InvalidConfigError([Mistake(self._document.locate(path, key=key), dotted(path), message)]) from None


def _flat(kinds: Sequence[Kind]) -> tuple[Kind, ...]:
    return tuple(each for kind in kinds for each in (kind.members if isinstance(kind, OneOf) else (kind,)))


def _positions(form: Form, given: Mapping[str | int, object]) -> Iterator[tuple[TreePath, Kind]]:
    """Yield the place and kind of each positional argument, in the order that a check gives them."""
    passed: list[Field] = []
    for field in form.fields.values():
        if field.name in given and field.how == "position":
            yield (field.name,), field.kind
        elif field.name in given and field.how == "args":
            for each in passed:
                yield (each.name,), each.kind
            items = cast(Sequence[object], given[field.name])  # checked to be a list
            kind = field.kind.item if isinstance(field.kind, ListOf) else field.kind
            yield from (((field.name, index), kind) for index in range(len(items)))
        elif field.name in given:
            passed.append(field)


def _python_names(kind: object) -> dict[str, str]:
    """Return the fields of a Struct by the names that a config gives them."""
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return {}
    return {each.encode_name: each.name for each in msgspec.structs.fields(kind)}


def _function_name(path: TreePath) -> str:
    """Return a name for what builds the component at a place: ``train_dataset``, ``metric``, ``scheduler``."""
    words = [part for part in path if isinstance(part, str)]
    last = max((at for at, part in enumerate(path) if isinstance(part, int)), default=-1)
    after = [part for part in path[last + 1 :] if isinstance(part, str)]
    name = "_".join(after or [words[-1].removesuffix("s")])
    name = "".join(each if each.isalnum() else "_" for each in name)
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"build_{name}"


def _data_at(data: object, path: TreePath) -> object:
    for part in path:
        data = cast(Mapping[str | int, object], data)[part]  # a path leads through mappings and lists
    return data


def _literal(value: object) -> str:
    if isinstance(value, str):
        return text_literal(value)
    if isinstance(value, float):
        return repr(value).replace("e+", "e") if math.isfinite(value) else f'float("{value}")'
    return repr(value)
