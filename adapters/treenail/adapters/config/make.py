"""Objects from checked data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from typing_extensions import is_typeddict

from treenail.adapters.config.catalog import Catalog
from treenail.adapters.config.derive import struct_fields
from treenail.adapters.config.form import Form, form_of
from treenail.adapters.config.schema import (
    ANYTHING,
    Anything,
    Choice,
    ComponentSchema,
    Kind,
    ListOf,
    MapOf,
    Nested,
    OneOf,
    Raw,
    RecordOf,
    TupleOf,
    Word,
)
from treenail.kernel import Component, Late, Spec


class Making:
    """Makes what schemas stand for; see `treenail.adapters.config.maker.Maker`.

    Args:
        catalog: Holds the callables and classes.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._objects = catalog.derivation.objects

    def component(self, form: Form, args: tuple[object, ...], kwargs: dict[str, object], where: str) -> object:
        """Return a `Spec` or `Late`.

        Raises:
            SpecError: The target does not take the arguments.
        """
        return form.make(self._catalog.callable_of(form.schema), args, kwargs, where)

    def record(self, key: str, fields: dict[str, Any], *, inside: bool) -> object:
        """Return a Struct, NamedTuple or dict; inside a component, a `Spec` of one that holds components itself."""
        kind = cast(Callable[..., object], self._objects[key])  # records are derived from classes
        if is_typeddict(kind):
            return fields
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            names = {each.encode_name: each.name for each in struct_fields(kind)}
            fields = {names[name]: value for name, value in fields.items()}
        if inside and any(_holds_spec(value) for value in fields.values()):
            return Spec(kind, kwargs=fields)
        return kind(**fields)

    def leaf(self, value: object, kind: Choice | Word) -> object:
        """Return the Enum member, path, device or dtype that a leaf stands for."""
        if isinstance(kind, Choice) and kind.by_name:
            return getattr(self._objects[kind.enum or ""], str(value))
        if isinstance(kind, Choice):
            return cast(Callable[..., object], self._objects[kind.enum])(value) if kind.enum else value  # an Enum
        text = str(value)
        return Path(text) if kind.of == "path" else torch.device(text) if kind.of == "device" else getattr(torch, text)

    def function(self, schema: ComponentSchema) -> object:
        """Return what a schema was derived from."""
        return self._catalog.callable_of(schema)

    def form_of(self, component: Component[object]) -> Form:
        """Return the form that a component of a Python config has."""
        return form_of(component, self._catalog.derivation)

    def kind_of(self, original: object, kind: Kind) -> Kind:
        """Return the kind to convert a part of a Python config to: what it is says more than the slot."""
        if isinstance(original, msgspec.Struct):
            return RecordOf(self._catalog.derivation.record(type(original)))
        if isinstance(original, Component) and not isinstance(kind, Nested | OneOf | RecordOf):
            return ANYTHING
        inner = kind if isinstance(kind, Raw) else ANYTHING
        if isinstance(original, dict) and not isinstance(kind, MapOf | OneOf):
            return MapOf(ANYTHING, inner)
        if isinstance(original, list | tuple) and not isinstance(kind, ListOf | TupleOf | OneOf):
            return ListOf(inner)
        return kind

    def keeps(self, original: object, kind: Kind) -> bool:
        """Return whether a part of a Python config may stay where a kind is wanted, though data could not say it."""
        if isinstance(kind, OneOf):
            return any(self.keeps(original, member) for member in kind.members)
        if isinstance(original, Component):
            return isinstance(kind, Nested) and isinstance(original, _FORMS.get(kind.form, ()))
        if isinstance(kind, Anything | Raw):
            return not isinstance(original, str | int | float | list | dict | None)
        wanted = self._objects.get(kind.wanted or "") if isinstance(kind, Nested) and kind.form == "object" else None
        return isinstance(wanted, type) and not isinstance(original, dict) and _is_instance(original, wanted)


_FORMS: Mapping[str, type[Component[object]]] = {"spec": Spec, "late": Late}


def _holds_spec(value: object) -> bool:
    if isinstance(value, dict):
        return any(_holds_spec(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_holds_spec(item) for item in value)
    return isinstance(value, Spec)


def _is_instance(value: object, wanted: type) -> bool:
    try:
        return isinstance(value, wanted)
    except TypeError:  # a Protocol that is not runtime_checkable
        return False
