"""A callable's parameters as a msgspec Struct, for those who decode and validate with msgspec themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import msgspec
import torch

from treenail.adapters.config.catalog import Catalog
from treenail.adapters.config.check import Checker
from treenail.adapters.config.derive import Derivation
from treenail.adapters.config.make import Making
from treenail.adapters.config.schema import (
    Choice,
    Field,
    Kind,
    ListOf,
    MapOf,
    Nested,
    OneOf,
    RecordOf,
    Scalar,
    TupleOf,
    Word,
)
from treenail.adapters.documents import Document
from treenail.kernel import Late, Spec

_TYPES: dict[str, object] = {"bool": bool, "int": int, "float": float, "str": str, "bytes": bytes, "none": None}
_WORDS: dict[str, object] = {"path": Path, "device": torch.device, "dtype": torch.dtype}
_CONTAINERS: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


def struct_of(
    target: Callable[..., object], *, awaited: int = 0, derivation: Derivation | None = None
) -> type[msgspec.Struct]:
    """Derive the Struct whose fields are a callable's parameters; unknown fields are forbidden where the callable forbids them.

    A parameter that takes a component has the field type `Spec`; `component_hook` decodes it. Descriptions of the
    docstring are in the fields' `msgspec.Meta`. Unions that msgspec cannot decode, such as of two classes, are Any.

    Args:
        target: The callable.
        awaited: How many leading parameters are left out: an optimizer's ``params``.
        derivation: Where schemas are kept; a new one when None.
    """
    derivation = derivation or Derivation()
    schema = derivation.component(target)
    fields = [field for field in schema.fields[awaited:] if field.how != "kwargs"]
    open_ended = any(field.how == "kwargs" for field in schema.fields)
    return msgspec.defstruct(
        getattr(target, "__name__", "Arguments"),
        [_field(field, derivation) for field in fields],
        kw_only=True,
        frozen=True,
        forbid_unknown_fields=not open_ended,
        module=getattr(target, "__module__", None),
        namespace={"__doc__": schema.summary},
    )


def component_hook(catalog: Catalog, imports: Sequence[str] = ()) -> Callable[[Any, Any], Any]:
    """Return a ``dec_hook`` for msgspec that decodes what `struct_of` gives the types `Spec`, `Late`, Path, device and dtype.

    Args:
        catalog: What ``type:`` may name.
        imports: Prefixes of modules that ``type:`` may import from.
    """

    def decode(kind: object, value: object) -> object:
        checker = Checker(Document("", value), catalog, tuple(imports), Making(catalog))
        found = checker.convert(value, catalog.derivation.kind(kind), ())
        if checker.mistakes:
            raise ValueError("; ".join(f"{each.path}: {each.message}".lstrip(": ") for each in checker.mistakes))
        return found

    return decode


def _field(field: Field, derivation: Derivation) -> tuple[str, Any] | tuple[str, Any, Any]:
    kind = _type(field.kind, derivation)
    if field.description:
        kind = Annotated[kind, msgspec.Meta(description=field.description)]
    if field.required:
        return (field.name, kind)
    default = field.default
    if field.how == "args":
        default = []
    if isinstance(default, list | dict):
        return (field.name, kind, msgspec.field(default_factory=default.copy))
    return (field.name, kind, default)


def _type(kind: Kind, derivation: Derivation) -> Any:  # Any: a type made at run time
    match kind:
        case Scalar(type=name, limits=limits):
            return Annotated[_TYPES[name], _limits(limits)] if limits else _TYPES[name]
        case Choice(values=values, enum=enum):
            return derivation.objects[enum] if enum else Literal[values]
        case Word(of=name):
            return _WORDS[name]
        case ListOf(item=item, container=container, limits=limits):
            items = _CONTAINERS[container]
            whole = items[_type(item, derivation), ...] if items is tuple else items[_type(item, derivation)]
            return Annotated[whole, _limits(limits)] if limits else whole
        case TupleOf(items=members):
            return _generic(tuple, tuple(_type(each, derivation) for each in members))
        case MapOf(key=key, value=value):
            return _generic(dict, (_type(key, derivation), _type(value, derivation)))
        case RecordOf(record=record):
            return derivation.objects[record]
        case OneOf(members=members):
            return _union(members, derivation)
        case Nested(form="late", wanted=wanted):
            return _generic(Late, (Any, derivation.objects.get(wanted or "", Any)))
        case Nested(wanted=wanted):
            return _generic(Spec, derivation.objects.get(wanted or "", Any))
        case _:
            return Any


def _generic(origin: Any, arguments: object) -> Any:  # Any: types made at run time
    return origin[arguments]


def _limits(limits: Mapping[str, Any]) -> msgspec.Meta:  # Any: the values of Meta's arguments
    return msgspec.Meta(**limits)


def _union(members: Sequence[Kind], derivation: Derivation) -> Any:
    union = _generic(Union, tuple(_type(each, derivation) for each in members))
    try:
        msgspec.json.Decoder(union)
    except TypeError:
        return Any
    return union
