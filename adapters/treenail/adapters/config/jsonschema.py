"""The JSON Schema of a run, for editors: every key, every registered component, what each parameter takes.

It is of draft 7, the newest that the YAML language server knows in all its releases. A component is told by its ``type``
with ``if``/``then`` rather than by a ``oneOf`` of 170 branches: an editor then reports the one wrong parameter, where it
could only say that no branch fits.

Each component, record and slot has up to two definitions. The plain one says what may be written; the one called
``whole…`` says besides what must be, and is not asked of a file with ``_base_``, whose bases may have written the rest.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from treenail.adapters.config.candidates import ANY_COMPONENT, Candidates, kind_text, parts_of
from treenail.adapters.config.catalog import Names, a
from treenail.adapters.config.check import SCOPE
from treenail.adapters.config.form import Form, form_in_slot, shared_by
from treenail.adapters.config.load import RUN
from treenail.adapters.config.rules import DEFAULTS, UNTYPED
from treenail.adapters.config.schema import (
    Anything,
    Choice,
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

Json = dict[str, Any]
"""A JSON Schema; its values are whatever JSON can hold, so no closer type can be said."""

DRAFT: Final = "http://json-schema.org/draft-07/schema#"

REFERENCE: Final = r"\$\{(env|base|file):[^}]*\}|\{\{.*\}\}"
"""What a text holds that stands for a value from elsewhere."""

_ATTRIBUTE: Final = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
_TYPES: Final = {"bool": "boolean", "int": "integer", "float": "number", "str": "string", "bytes": "string"}
_LIMITS: Final = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
    "min_length": "minLength",
    "max_length": "maxLength",
}
_BASE: Final[Json] = {
    "description": "The file, or files, that this one is laid over.",
    "type": ["string", "array"],
    "items": {"type": "string"},
}
_UNTYPED: Final[Json] = {"type": "object", "not": {"required": ["type"]}}
_MARKS: Final[Mapping[str, Json]] = {
    "_delete_": {"type": "boolean", "description": "true: this replaces what a base wrote here."},
    SCOPE: {"type": "string", "description": "The package whose components the plain names in here mean first."},
}


def json_schema(names: Names, imports: Sequence[str] | None = None, component: str | None = None) -> Json:
    """Return the JSON Schema of a whole run, or of one component as a run holds it.

    Args:
        names: What ``type:`` may name.
        imports: Prefixes below which ``module:attribute`` is right; below any, when None, for each config has its own.
        component: A component, by any name that `Candidates.find` knows.

    Raises:
        RegistryError: There is no such component.
        MissingDependencyError: The component needs a package that is not installed.
    """
    candidates = Candidates(names)
    writer = _Writer(candidates, imports)
    head: Json = {"$schema": DRAFT}
    if component is not None:
        match = candidates.find(component, imports or ())[0]
        slot, form = candidates.form(match)
        shared = shared_by(slot) if slot.form == "late" else None
        head |= {"title": match.schema.target.rpartition(":")[2], "type": "object", "required": ["type"]}
        head |= {"allOf": [writer.component(form, shared), *filter(None, [writer.whole_component(form, shared)])]}
        return head | {"definitions": writer.definitions()}
    run = names.record(RUN)
    part, whole = writer.record(RUN, None), writer.whole_record(RUN, None)
    writer.defined(part)["properties"]["_base_"] = _BASE
    head |= {"title": "Treenail run", "description": run.summary, "type": "object", "allOf": [part]}
    head |= {"if": {"required": ["_base_"]}, "else": whole}
    return head | {"definitions": writer.definitions()}


class _Writer:
    """Writes definitions, each once.

    Args:
        candidates: What can be named.
        imports: Prefixes below which ``module:attribute`` is right; below any when None.
    """

    def __init__(self, candidates: Candidates, imports: Sequence[str] | None) -> None:
        self._candidates = candidates
        self._names = candidates.names
        self._definitions: dict[str, Json] = _leaves()
        self._keys: dict[object, str] = {}
        self._by_body: dict[tuple[str, str], str] = {}
        scopes = "|".join(re.escape(scope) for scope in sorted(filter(None, self._names.scopes())))
        own = f"(?!({scopes}):)" if scopes else ""
        below = "|".join(re.escape(each) for each in sorted(imports or ()))
        module = rf"{own}{_ATTRIBUTE}" if imports is None else rf"{own}({below})(\.{_ATTRIBUTE})?"
        imported = rf"^{module}:{_ATTRIBUTE}$"
        self._definitions["imported"] = {
            "type": "string",
            "pattern": imported if imports is None or below else "^(?!)",
            "patternErrorMessage": "no registered component that fits here, and no module:attribute",
        }

    def definitions(self) -> Json:
        """Return all definitions, sorted."""
        return dict(sorted(self._definitions.items()))

    def defined(self, reference: Json) -> Json:
        """Return what a reference leads to."""
        return self._definitions[reference["$ref"].rpartition("/")[2]]

    def _define(self, identity: object, name: str, write: Callable[[], Json]) -> Json:
        """Return a reference to a definition; write it first if it is new."""
        key = self._keys.get(identity)
        if key is None:
            plain = key = re.sub(r"\W+", "_", name)
            number = 1
            while key in self._definitions:
                number += 1
                key = f"{plain}_{number}"
            self._keys[identity] = key
            self._definitions[key] = {}  # what is being written may hold itself
            body = write()
            # Of equal ones the first does for all; one that holds itself by its name has no equal.
            first = self._by_body.setdefault((plain, json.dumps(body)), key)
            if first == key:
                self._definitions[key] = body
            else:
                del self._definitions[key]
                key = self._keys[identity] = first
        return {"$ref": f"#/definitions/{key}"}

    def kind(self, kind: Kind, shared: str | None, *, whole: bool = False) -> Json:
        """Return the schema of a kind.

        Args:
            kind: The kind.
            shared: The parameter of nested components that gets what the component around them gets.
            whole: Whether what is required must be there.
        """
        match kind:
            case Scalar():
                return _scalar(kind)
            case Choice(values=values):
                return {"anyOf": [{"enum": list(values)}, _ref("reference")]}
            case Word(of=of, values=values):
                return self._define(("word", kind), of, lambda: _word(of, values))
            case Nested():
                return self._slot(kind, shared, whole=whole)
            case RecordOf(record=key):
                return self.whole_record(key, shared) if whole else self.record(key, shared)
            case ListOf(item=item, limits=limits):
                sizes = {f"{name[:3]}Items": limits[name] for name in ("min_length", "max_length") if name in limits}
                return {**_or_reference("array"), **_items(self.kind(item, shared, whole=whole)), **sizes}
            case TupleOf(items=items):
                each = [self.kind(item, shared, whole=whole) for item in items]
                sizes = {"minItems": len(items), "maxItems": len(items)}
                return {**_or_reference("array"), **({"items": each} if each else {}), **sizes}
            case MapOf():
                return self._map(kind, shared, whole=whole)
            case OneOf(members=members):
                return {"anyOf": [self.kind(member, shared, whole=whole) for member in members]}
            case Anything():
                return self._anything()
            case Raw():
                return {}

    def _map(self, kind: MapOf, shared: str | None, *, whole: bool) -> Json:
        value = self.kind(kind.value, shared, whole=whole)
        found: Json = {**_or_reference("object"), "properties": {"_delete_": _MARKS["_delete_"]}}
        if value:  # nothing is asked of plain data
            found["additionalProperties"] = value
        match kind.key:
            case Scalar(type="int"):
                found["propertyNames"] = {"pattern": r"^(-?\d+|_delete_)$"}
            case Choice(values=values):
                found["propertyNames"] = {"enum": [*(str(each) for each in values), "_delete_"]}
            case _:
                pass
        return found

    def _anything(self) -> Json:
        """Return what a value without a type may be; what its components require is left to the check."""

        def write() -> Json:
            inner = self._anything()
            typed = {"type": "object", "properties": {"type": {"type": "string"}}, "required": ["type"]}
            component = self._slot(ANY_COMPONENT, None, whole=False)
            return {"if": typed, "then": component, "else": {"items": inner, "additionalProperties": inner}}

        return self._define("anything", "anything", write)

    def _slot(self, slot: Nested, shared: str | None, *, whole: bool) -> Json:
        inner = shared_by(slot) if slot.form == "late" else shared
        if not any(field.name == inner for each in self._candidates.fitting(slot).values() for field in each.fields):
            inner = None  # nothing here takes it, so that one definition does for all places
        form: Literal["spec", "late"] = "late" if slot.form == "late" else "spec"
        kept = Nested(slot.wanted, slot.name, slot.port, form, slot.awaited, slot.function, slot.arity)
        found = self._define((kept, inner), f"slot_{slot.name}", lambda: self._named(kept, inner))
        if whole:
            part = found
            write = lambda: self._whole_slot(kept, inner, part)  # noqa: E731 - passed on, never called by its name
            found = self._define((kept, inner, "whole"), f"whole_slot_{slot.name}", write)
        if slot.function and slot.form == "object":
            return {"anyOf": [found, *self._words()]}
        return found

    def _words(self) -> list[Json]:
        """Return what a function may be written as besides ``{type: …}``: its name."""
        names = self._define("words", "words", lambda: {"enum": list(self._candidates.fitting(ANY_COMPONENT))})
        return [names, _ref("imported")]

    def _named(self, slot: Nested, shared: str | None) -> Json:
        fitting = self._candidates.fitting(slot)
        listed = sorted({*fitting, *self._candidates.ambiguous(slot)})
        types: Json = {"anyOf": [*([{"enum": listed}] if listed else []), _ref("imported"), _ref("reference")]}
        types["description"] = f"Which {slot.name}: a registered name, or module:attribute below one of `imports`."
        found: Json = {"description": f"{a(slot.name).capitalize()}, written {{type: NAME, …}}."}
        found |= {**_or_reference("object"), "properties": {"type": types}}
        return found | self._dispatch(slot, shared, self.component)

    def _whole_slot(self, slot: Nested, shared: str | None, part: Json) -> Json:
        rest = self._dispatch(slot, shared, self.whole_component).get("allOf", [])
        return {"required": ["type"], "allOf": [part, *rest]}

    def _dispatch(self, slot: Nested, shared: str | None, of: Callable[[Form, str | None], Json | None]) -> Json:
        """Return the branches by ``type``."""
        branches: dict[str, tuple[Json, list[str]]] = {}
        for name, schema in self._candidates.fitting(slot).items():
            then = of(form_in_slot(schema, slot, shared), shared)
            if then is not None:
                branches.setdefault(then["$ref"], (then, []))[1].append(name)
        return (
            {
                "allOf": [
                    {"if": {"properties": {"type": {"enum": named}}, "required": ["type"]}, "then": then}
                    for then, named in branches.values()
                ]
            }
            if branches
            else {}
        )

    def component(self, form: Form, shared: str | None) -> Json:
        """Return what may be given to a component."""
        name = form.schema.target.rpartition(":")[2]
        identity = (form.schema.target, frozenset(field.name for field in self._fields(form)), shared)
        return self._define(identity, name, lambda: self._parameters(form, shared))

    def _parameters(self, form: Form, shared: str | None) -> Json:
        fields = self._fields(form)
        found = self._keyed(fields, shared)
        summary = form.schema.summary
        found["properties"] = {"type": {"description": summary} if summary else {}, **found["properties"]}
        if form.further is not None:
            found["additionalProperties"] = self.kind(form.further.kind, shared)
        return {
            "title": form.schema.target.rpartition(":")[2],
            **({"description": summary} if summary else {}),
            **found,
        }

    def whole_component(self, form: Form, shared: str | None) -> Json | None:
        """Return what must be given to a component; None if nothing must."""
        required = [each for each in form.required if each != form.receives]
        fields = [field for field in self._fields(form) if _has_parts(field.kind)]
        if not required and not fields:
            return None
        name = f"whole_{form.schema.target.rpartition(':')[2]}"
        write = lambda: self._demands(fields, required, shared)  # noqa: E731 - passed on, never called by its name
        identity = (form.schema.target, tuple(required), tuple(field.name for field in fields), shared)
        return self._define(identity, name, write)

    def _fields(self, form: Form) -> list[Field]:
        named = list(form.fields.values())
        # Within another component, whoever gives what would be received gets the parameter back.
        received = [each for each in form.schema.fields if each.name == form.receives and form.kind == "spec"]
        return [each for each in [*received, *named] if each.name not in ("type", SCOPE)]

    def record(self, key: str, shared: str | None) -> Json:
        """Return what the mapping of a record may hold."""
        schema = self._names.record(key)

        def write() -> Json:
            summary = {"description": schema.summary} if schema.summary else {}
            return {"title": schema.name, **summary, **self._keyed(schema.fields, shared)}

        return self._define(("record", key, shared), schema.name, write)

    def whole_record(self, key: str, shared: str | None) -> Json:
        """Return what the mapping of a record may and must hold."""
        schema = self._names.record(key)
        parts = [field for field in schema.fields if _has_parts(field.kind)]
        required = [field.name for field in schema.fields if field.required]

        def write() -> Json:
            found = {"allOf": [self.record(key, shared)], **self._demands(parts, required, shared)}
            if key == RUN:
                hooks = found["properties"]["hooks"]
                options = {name: {"if": _UNTYPED, "else": hooks["additionalProperties"]} for name in UNTYPED}
                hooks["properties"] = {**hooks["properties"], **options}
            return found

        return self._define(("record", key, shared, "whole"), f"whole_{schema.name}", write)

    def _demands(self, parts: Sequence[Field], required: Sequence[str], shared: str | None) -> Json:
        inner = {field.name: self.kind(field.kind, shared, whole=True) for field in parts}
        return {**({"required": list(required)} if required else {}), **({"properties": inner} if inner else {})}

    def _keyed(self, fields: Sequence[Field], shared: str | None) -> Json:
        properties = {field.name: self._field(field, shared) for field in fields}
        for section, entries in DEFAULTS.items():
            kind = next((each.kind for each in fields if each.name == section), None)
            if isinstance(kind, MapOf):  # the entries that a run has without being asked can be completed
                value = self.kind(kind.value, shared)
                properties[section]["properties"] |= dict.fromkeys(entries, value)
                slot = _component_of(kind.value)
                if section == "hooks" and slot is not None:
                    for name in UNTYPED:
                        options = {"if": _UNTYPED, "then": self._options(slot, name, shared), "else": value}
                        properties[section]["properties"][name] = options
        return {**_or_reference("object"), "properties": {**properties, **_MARKS}, "additionalProperties": False}

    def _options(self, slot: Nested, name: str, shared: str | None) -> Json:
        """Return what may be given to a default hook without its type."""
        schema = self._candidates.fitting(slot).get(name)
        return {} if schema is None else self.component(form_in_slot(schema, slot, shared), shared)

    def _field(self, field: Field, shared: str | None) -> Json:
        found = self.kind(field.kind, shared)
        notes: Json = {}
        takes = f"Takes {kind_text(field.kind)}." if not isinstance(field.kind, Anything) else ""
        default = f"Default: {field.default_text}." if field.default_text is not None else ""
        notes["description"] = " ".join(filter(None, [field.description, takes, default]))
        if (field.default is not None or field.default_text == "None") and _is_json(field.default):
            notes["default"] = field.default
        # Beside a $ref, draft 7 ignores everything else.
        return {**notes, "allOf": [found]} if "$ref" in found else {**found, **notes}


def _component_of(kind: Kind) -> Nested | None:
    """Return the component of a kind that may be none."""
    members = kind.members if isinstance(kind, OneOf) else (kind,)
    return next((each for each in members if isinstance(each, Nested)), None)


def _has_parts(kind: Kind) -> bool:
    return any(isinstance(part, Nested | RecordOf) for part in parts_of(kind))


def _ref(name: str) -> Json:
    return {"$ref": f"#/definitions/{name}"}


def _items(item: Json) -> Json:
    return {"items": item} if item else {}


def _or_reference(plain: str) -> Json:
    """Return the schema of a type of JSON, or of a text that stands for a value of it."""
    return {
        "type": [plain, "string"],
        "pattern": REFERENCE,
        "patternErrorMessage": f"Incorrect type. Expected {plain}.",
    }


def _scalar(kind: Scalar) -> Json:
    if kind.type == "none":
        return {"type": "null"}
    limits = {_LIMITS[name]: limit for name, limit in kind.limits.items()}
    if kind.type in ("str", "bytes"):
        return {"anyOf": [{"type": "string", **limits}, _ref("reference")]} if limits else {"type": "string"}
    return {"allOf": [_ref(kind.type)], **limits} if limits else _ref(kind.type)


def _leaves() -> dict[str, Json]:
    """Return the definitions that every schema has."""
    return {
        "reference": {"type": "string", "pattern": REFERENCE},
        **{name: _or_reference(_TYPES[name]) for name in ("bool", "int", "float")},
    }


def _word(of: str, values: Sequence[str]) -> Json:
    if not values:
        return {"type": "string"}
    words = "|".join(values)
    further = rf"^({words})(:\d+)?$" if of == "device" else rf"^torch\.({words})$"
    return {"anyOf": [{"enum": list(values)}, {"type": "string", "pattern": further}, _ref("reference")]}


def _is_json(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(each is not None and _is_json(each) for each in value)  # None may stand for what no config can say
    if isinstance(value, dict):
        return all(each is not None and _is_json(each) for each in value.values())
    return True
