"""Plain data against schemas: every mistake is collected with its place, nothing is built.

The same walk checks and converts. Without a `Maker` it only checks, and needs no class that a schema names.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, cast

from treenail.adapters.config import leaves
from treenail.adapters.config.catalog import Names, a, explain
from treenail.adapters.config.form import Form, by_name, form_in_slot, positional, shared_by
from treenail.adapters.config.leaves import LeafError, kind_name, shown_value
from treenail.adapters.config.maker import Maker, Visit
from treenail.adapters.config.mmengine_names import mmengine_hint
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
from treenail.adapters.documents import (
    MASK,
    NOTHING,
    Document,
    Map,
    Mistake,
    TreePath,
    dotted,
    holds_secret,
    value_at,
)
from treenail.kernel import Component, SpecError, TreenailError, did_you_mean

WRONG: Final = object()
"""What stands for a value that a mistake was noted for."""

SCOPE: Final = "_scope_"
"""The key that names the package whose adapters the plain names in a mapping mean first."""


_ANY_COMPONENT: Final = Nested(None, "component")


class _Wrong(NamedTuple):
    """A mistake whose place is not looked up yet."""

    path: TreePath
    message: str
    key: bool


class Checker:
    """Checks one document, and converts it if there is a maker.

    Args:
        document: The config.
        names: What ``type:`` may name.
        imports: Prefixes of modules that ``type:`` may import from.
        maker: What makes objects; None only checks.

    Attributes:
        visits: The components and records that were found right.
        unchecked: (target, parameter) of what was given to parameters without an annotation.
    """

    def __init__(self, document: Document, names: Names, imports: tuple[str, ...], maker: Maker | None = None) -> None:
        self._wrong: list[_Wrong] = []
        self.visits: list[Visit] = []
        self.unchecked: dict[tuple[str, str], None] = {}
        self._document = document
        self._names = names
        self._imports = imports
        self._maker = maker
        self._shared: str | None = None  # the parameter of nested components that gets what the Late around them gets
        self._scope: str | None = None
        self._inside = False  # a component
        self._forms: dict[tuple[str, int, str | None, str | None], Form] = {}  # slots outlive a checker
        self._records: dict[str, Form] = {}
        self._originals = document.has_originals
        self._convert: dict[type, Callable[[Any, Any, TreePath], object]] = {
            Scalar: self._scalar,
            Choice: self._leaf,
            Word: self._leaf,
            ListOf: self._list,
            TupleOf: self._tuple,
            MapOf: self._map,
            RecordOf: self._record,
            OneOf: self._union,
            Nested: self._nested,
            Anything: self._anything,
            Raw: self._raw,
        }

    @property
    def mistakes(self) -> list[Mistake]:
        """What was found to be wrong, with its places."""
        return [
            Mistake(self._document.locate(path, key=key), dotted(path), self._covered(text, path))
            for path, text, key in self._wrong
        ]

    def _covered(self, text: str, path: TreePath) -> str:
        """Return a message without the value that it is about, where that is a secret."""
        if not holds_secret(path):
            return text
        value = value_at(self._document.data, path)
        shown = repr(value) if repr(value) in text else f"'{str(value)[:40]}'"
        return text.replace(shown, MASK)

    def wrong(self, path: TreePath, message: str, *, key: bool = False) -> object:
        """Note a mistake."""
        self._wrong.append(_Wrong(path, message, key))  # most are of a union's other members, and forgotten
        return WRONG

    def convert(self, value: object, kind: Kind, path: TreePath) -> object:
        """Convert one value to a kind; notes mistakes and returns WRONG where there are any."""
        if self._originals:
            return self._convert_original(value, kind, path)
        return self._convert[type(kind)](value, kind, path)

    def _convert_original(self, value: object, kind: Kind, path: TreePath) -> object:
        original, maker = self._document.original(path), self._maker
        if original is NOTHING or maker is None:
            return self._convert[type(kind)](value, kind, path)
        if self._document.led_through(path):
            closer = maker.kind_of(original, kind)
            found = self._convert[type(closer)](value, closer, path)
            return tuple(found) if isinstance(original, tuple) and isinstance(found, list) else found
        # What is inside a component of a Python config was checked where it was written.
        inside = any(isinstance(self._document.original(path[:length]), Component) for length in range(len(path)))
        if inside or maker.keeps(original, kind):
            if isinstance(original, Component) and isinstance(value, dict):
                self._visit_original(original, value, path)
            return original
        if isinstance(original, Component):
            return self.wrong(path, f"expected {a(_slot_name(kind))}, got {original!r}")
        closer = maker.kind_of(original, kind)
        found = self._convert[type(closer)](value, closer, path)  # only to find mistakes
        return original if found is not WRONG else WRONG

    def _visit_original(self, original: Component[object], value: dict[str | int, object], path: TreePath) -> None:
        if self._maker is not None:
            self.visits.append(Visit(path, self._maker.form_of(original).schema, value))

    def _scalar(self, value: object, kind: Scalar, path: TreePath) -> object:
        if kind.type == "str" and not isinstance(value, str) and path in self._document.overrides:
            value = self._document.overrides[path].partition("=")[2].strip()  # `name=12` is a text where one is wanted
        try:
            return leaves.scalar(value, kind)
        except LeafError as error:
            return self.wrong(path, str(error))

    def _leaf(self, value: object, kind: Choice | Word, path: TreePath) -> object:
        try:
            found = leaves.choice(value, kind) if isinstance(kind, Choice) else leaves.word(value, kind)
        except LeafError as error:
            return self.wrong(path, str(error))
        return self._maker.leaf(found, kind) if self._maker else found

    def _list(self, value: object, kind: ListOf, path: TreePath) -> object:
        if not isinstance(value, list | tuple):
            return self.wrong(path, f"expected a list, got {shown_value(value)}")
        least, most = kind.limits.get("min_length", 0), kind.limits.get("max_length")
        if len(value) < least or (most is not None and len(value) > most):
            wanted = f"at least {least}" if len(value) < least else f"at most {most}"
            return self.wrong(path, f"expected a list of {wanted}, got {len(value)}")
        found = [self.convert(item, kind.item, (*path, index)) for index, item in enumerate(value)]
        if WRONG in found:
            return WRONG
        try:
            return found if kind.container == "list" else _CONTAINERS[kind.container](found)
        except TypeError:  # only a set asks this of its items
            return self.wrong(path, "the items must be plain values, for they go into a set")

    def _tuple(self, value: object, kind: TupleOf, path: TreePath) -> object:
        if not isinstance(value, list | tuple):
            return self.wrong(path, f"expected a list of {len(kind.items)}, got {shown_value(value)}")
        if len(value) != len(kind.items):
            return self.wrong(path, f"expected a list of {len(kind.items)}, got {len(value)}")
        pairs = enumerate(zip(value, kind.items, strict=True))
        found = tuple(self.convert(item, each, (*path, index)) for index, (item, each) in pairs)
        return WRONG if WRONG in found else found

    def _map(self, value: object, kind: MapOf, path: TreePath) -> object:
        if not isinstance(value, dict):
            return self.wrong(path, f"expected a mapping, got {shown_value(value)}")
        from_python = self._originals and isinstance(self._document.original(path), dict)
        key_kind = ANYTHING if from_python else kind.key  # keys of a Python config stay as they are
        found: dict[object, object] = {}
        right = True
        is_raw = isinstance(kind.value, Raw)
        around, self._scope = self._scope, self._scope if is_raw else self._scope_of(value, path)
        for key, item in value.items():
            if key == SCOPE and not (from_python or is_raw):
                continue
            inner = (*path, key)
            if inner in self._document.created:
                right = self._refuse_new(inner) is not WRONG
            name = key if isinstance(key_kind, Anything) else self._convert[type(key_kind)](key, key_kind, inner)
            converted = self.convert(item, kind.value, inner)
            right = right and name is not WRONG and converted is not WRONG
            if right:
                found[name] = converted
        self._scope = around
        return found if right else WRONG

    def _refuse_new(self, path: TreePath) -> object:
        """Note that an override names nothing, where any name could be added."""
        mend = self._document.created[path]
        return self.wrong(path, f"'{dotted(path[:-1])}' has no '{path[-1]}'; {mend}")

    def _record(self, value: object, kind: RecordOf, path: TreePath) -> object:
        schema = self._names.record(kind.record)
        if not isinstance(value, dict):
            return self.wrong(path, f"expected a mapping of {schema.name}'s fields, got {shown_value(value)}")
        around, self._scope = self._scope, self._scope_of(value, path)
        form = self._records.get(kind.record)
        if form is None:
            callee = ComponentSchema(target=kind.record, fields=schema.fields)
            form = self._records[kind.record] = Form(callee, "spec", *by_name(schema.fields))
        arguments = self._arguments(value, form, path, of=schema.name, reserved=(SCOPE,))
        self._scope = around
        if arguments is None:
            return WRONG
        self.visits.append(Visit(path, schema, value))
        return self._maker.record(kind.record, arguments[1], inside=self._inside) if self._maker else arguments[1]

    def _scope_of(self, value: Mapping[str | int, object], path: TreePath) -> str | None:
        scope = value.get(SCOPE, self._scope)
        if SCOPE in value and not self._originals and not self._is_package(scope):
            known = sorted(self._names.scopes())
            guess = did_you_mean(str(scope), known) or f"there are {', '.join(known)}"
            self.wrong((*path, SCOPE), f"there is no package {shown_value(scope)} with adapters; {guess}")
            return None
        return scope if isinstance(scope, str) else None

    def _is_package(self, scope: object) -> bool:
        """Return whether there is such a package; one that only has configs need not have adapters."""
        if not isinstance(scope, str) or not scope.isidentifier():
            return False
        return scope in self._names.scopes() or importlib.util.find_spec(scope) is not None

    def _union(self, value: object, kind: OneOf, path: TreePath) -> object:
        members = kind.members
        if value is None and NONE in members:
            return None
        rest = [member for member in members if member != NONE]
        if len(rest) == 1:
            return self.convert(value, rest[0], path)
        for member in rest:  # most values are of the very type of a member
            if isinstance(member, Scalar) and not member.limits and type(value).__name__ == member.type:
                return self._scalar(value, member, path)
        tried: list[list[_Wrong]] = []
        wrong, visits = self._wrong, self.visits
        is_known = False  # as a component, so that it is no data
        for member in rest:
            if is_known and isinstance(member, MapOf) and isinstance(member.value, Raw):
                break
            self._wrong, self.visits = [], []
            found = self.convert(value, member, path)
            failed, visited = self._wrong, self.visits
            self._wrong, self.visits = wrong, visits
            if not failed:
                self.visits += visited
                return found
            tried.append(failed)
            named = isinstance(member, Nested) and isinstance(value, dict) and isinstance(value.get("type"), str)
            is_known |= named and all(each.path != (*path, "type") for each in failed)
        near = [failed for member, failed in zip(rest, tried, strict=False) if self._is_alike(value, member)]
        if not near and all(isinstance(member, Nested) for member in rest):  # all are written as the first is
            near = tried[:1]
        if len(near) == 1 or (near and isinstance(value, dict)):  # the member that came furthest explains best
            nearest: list[_Wrong] = max(
                near, key=lambda failed: (len(failed[0].path), failed[0].path[-1:] != ("type",), not failed[0].key)
            )
            self._wrong += nearest
            return WRONG
        return self.wrong(path, f"expected {leaves.kind_names(members)}, got {shown_value(value)}")

    def _is_alike(self, value: object, kind: Kind) -> bool:
        """Whether a value is written as values of a kind are: as a list, a mapping, a number."""
        if isinstance(value, dict):
            if isinstance(kind, MapOf) and isinstance(kind.value, Nested):  # components by name
                return all(isinstance(each, dict) for each in value.values())
            if isinstance(kind, MapOf) and isinstance(
                kind.value, RecordOf
            ):  # records by name, or one with a mistake in it
                fields = {field.name for field in self._names.record(kind.value.record).fields}
                return not fields & value.keys()
            return isinstance(kind, MapOf | RecordOf | Nested)
        if isinstance(value, list | tuple):
            return isinstance(kind, ListOf | TupleOf)
        if isinstance(kind, Scalar):
            return type(value).__name__ == kind.type
        return isinstance(kind, Word | Choice) and isinstance(value, str)

    def _anything(self, value: object, kind: Anything, path: TreePath) -> object:
        if isinstance(value, dict):
            if isinstance(value.get("type"), str):
                return self._component(value, _ANY_COMPONENT, path)
            return self._map(value, MapOf(kind, kind), path)
        if isinstance(value, list | tuple):
            return self._list(value, ListOf(kind, "tuple" if isinstance(value, tuple) else "list"), path)
        return value

    def _raw(self, value: object, kind: Raw, path: TreePath) -> object:
        if isinstance(value, dict):
            return self._map(value, MapOf(ANYTHING, kind), path)
        if isinstance(value, list | tuple):
            return self._list(value, ListOf(kind, "tuple" if isinstance(value, tuple) else "list"), path)
        return value

    def _nested(self, value: object, slot: Nested, path: TreePath) -> object:
        if isinstance(value, dict):
            return self._component(value, slot, path)
        if slot.function and slot.form == "object" and isinstance(value, str):
            found = self._resolve(value, None, path)
            return self._maker.function(found) if isinstance(found, ComponentSchema) and self._maker else found
        if self._maker is not None and self._maker.keeps(value, slot):
            return value  # an object that a Python config holds
        return self.wrong(path, f"expected {a(slot.name)} as a mapping {{type: …}}, got {shown_value(value)}")

    def _resolve(self, name: str, slot: Nested | None, path: TreePath) -> ComponentSchema | object:
        try:
            return self._names.resolve(name, slot, self._imports, self._scope)
        except TreenailError as error:
            unchecked = slot is _ANY_COMPONENT and not error.mend
            hint = "; a parameter annotated as `dict` gets such a mapping as it is" if unchecked else ""
            return self.wrong(path, explain(error) + hint)

    def _component(self, value: dict[str | int, object], slot: Nested, path: TreePath) -> object:
        name = value.get("type")
        if not isinstance(name, str):
            problem = "'type' is missing" if "type" not in value else f"'type' must be a name, got {shown_value(name)}"
            place = (*path, "type") if "type" in value else path
            return self.wrong(place, f"{problem}; write type: NAME of {a(slot.name)}{self._mend_missing(value)}")
        if slot.form == "spec" and self._inside:
            message = f"nested components are built first, so no Spec can be given; annotate this with {slot.name}"
            return self.wrong(path, message)
        before = self._shared, self._scope, self._inside
        self._scope = self._scope_of(value, path)
        shared = shared_by(slot) if slot.form == "late" else self._shared
        form = self._form(value, name, slot, path, shared)
        from_run = form is not None and slot.form == "late" and any(each.name == shared for each in form.schema.fields)
        if shared is not None and shared in value and from_run:
            self.wrong((*path, shared), f"'{shared}' comes from the run; leave it out", key=True)
            form = None
        found: object = WRONG
        if form is not None:
            self._shared, self._inside = shared, True
            reserved = (SCOPE,) if self._is_argument_named_type(path) else ("type", SCOPE)
            arguments = self._arguments(value, form, path, of=name.rpartition(":")[2], reserved=reserved)
            if arguments is not None:
                self.visits.append(Visit(path, form.schema, value))
                found = self._made(form, arguments, path)
        self._shared, self._scope, self._inside = before
        return found

    def _mend_missing(self, value: Mapping[str | int, object]) -> str:
        guess = next((key for key in value if isinstance(key, str) and did_you_mean(key, ["type"])), None)
        return f" (is '{guess}' meant to be 'type'?)" if guess else ""

    def _is_argument_named_type(self, path: TreePath) -> bool:
        return self._originals and (
            isinstance(self._document.original(path), Component)
            and (*path, "type") not in self._document.overrides
            and self._document.original((*path, "type")) is not NOTHING
        )

    def _form(
        self, value: Mapping[str | int, object], name: str, slot: Nested, path: TreePath, shared: str | None
    ) -> Form | None:
        if self._originals and self._maker is not None:
            original = self._document.original(path)
            if isinstance(original, Component) and (*path, "type") not in self._document.overrides:
                return self._maker.form_of(original)
        written = shared if shared is not None and shared not in value else None
        key = (name, id(slot), written, self._scope)
        form = self._forms.get(key)
        if form is None:
            schema = self._resolve(name, slot, (*path, "type"))
            if not isinstance(schema, ComponentSchema):
                return None
            if schema.abstract:
                self.wrong((*path, "type"), f"'{name}' lacks methods of its port; write {', '.join(schema.abstract)}")
                return None
            form = self._forms[key] = form_in_slot(schema, slot, written)
        return form

    def _made(self, form: Form, arguments: tuple[tuple[object, ...], dict[str, Any]], path: TreePath) -> object:
        if self._maker is None:
            return None
        try:
            return self._maker.component(form, *arguments, where=f"{self._document.locate(path)}: {dotted(path)}")
        except SpecError as error:
            return self.wrong(path, error.message)

    def _arguments(
        self,
        given: Mapping[str | int, object],
        form: Form,
        path: TreePath,
        *,
        of: str,
        reserved: tuple[str, ...],
    ) -> tuple[tuple[object, ...], dict[str, Any]] | None:
        """Convert the given arguments to (positional, by name); None if there was a mistake."""
        known, further = form.fields, form.further
        before = len(self._wrong)
        misspelt: set[str] = set()
        converted: dict[str, Any] = {}
        for name, value in given.items():
            if name in reserved:
                continue
            field = known.get(cast(str, name)) or further  # a number is no parameter's name, and found in no mapping
            if field is None:
                misspelt |= self._unknown(name, given, known, path, of=of)
                continue
            if field is further and (*path, name) in self._document.created:
                self._refuse_new((*path, name))
            if not field.annotated:
                self.unchecked[form.schema.target, field.name] = None
            converted[cast(str, name)] = self.convert(value, field.kind, (*path, name))
        for name in form.required:
            if name in reserved:
                self.wrong(path, f"{of} needs an argument called '{name}', which a config cannot give; rename it")
            elif name not in given and name not in misspelt:
                self.wrong(path, f"{of} needs '{name}', which is missing")
        self._check_order(form, converted, path, of=of)
        if len(self._wrong) > before:
            return None
        return positional(form, converted)

    def _check_order(self, form: Form, converted: Mapping[str, object], path: TreePath, *, of: str) -> None:
        """Note what must be written because Python passes it by position, before what is written."""
        last = next((field.name for field in form.fields.values() if field.how == "args"), None)
        if last is None or converted.get(last) in (None, [], WRONG):
            return
        for field in form.fields.values():
            if field.name == last:
                return
            if field.name not in converted and not field.required:
                default = f", for example {field.default_text}" if field.default_text is not None else ""
                self.wrong((*path, last), f"{of} takes '{field.name}' before '{last}'; write it, too{default}")

    def _unknown(
        self,
        name: str | int,
        given: Mapping[str | int, object],
        known: Mapping[str, Field],
        path: TreePath,
        *,
        of: str,
    ) -> set[str]:
        """Note a key that a component or record does not take; return the names that may have been meant."""
        mend = mmengine_hint(of, str(name), path) or did_you_mean(str(name), known)
        mend = mend or f"it takes {', '.join(known) or 'nothing'}"
        marks = given.marks if isinstance(given, Map) else {}
        sources = {marks[key].source for key in (name, "type") if key in marks}
        from_base = len(sources) == 2 and not any(each.startswith("override ") for each in sources)
        if from_base and "did" not in mend and not any(isinstance(part, int) for part in path):
            mend += f"; {marks['type'].source} chose the type: `_delete_: true` beside it drops what a base wrote"
        self.wrong((*path, name), f"{of} takes no '{name}'; {mend}", key=True)
        return {each for each in known if f"'{each}'" in mend}


_CONTAINERS: Final[Mapping[str, Callable[[list[object]], object]]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}


def _slot_name(kind: Kind) -> str:
    """Name what a slot of a Python config takes: ``Spec``, ``int``, ``Spec or null``."""
    if isinstance(kind, OneOf):
        return " or ".join(_slot_name(member) for member in kind.members)
    if isinstance(kind, Nested) and kind.form != "object":
        return kind.form.capitalize()
    return kind_name(kind)
