"""One signature is the schema: what a config can say, derived from annotated callables, classes and types."""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections import abc
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path, PurePath
from types import FunctionType, NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NewType,
    NotRequired,
    Required,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_overloads,
    get_type_hints,
)

import msgspec
import torch
from typing_extensions import get_protocol_members, is_protocol, is_typeddict

from treenail.adapters.config import docstrings
from treenail.adapters.config.ports import PORTS
from treenail.adapters.config.schema import (
    ANYTHING,
    NONE,
    RAW,
    Choice,
    ClassSchema,
    ComponentSchema,
    Field,
    Kind,
    ListOf,
    MapOf,
    Nested,
    OneOf,
    Plain,
    RecordOf,
    RecordSchema,
    Scalar,
    Schemas,
    TupleOf,
    Word,
)
from treenail.contracts import DEVICE_TYPES, Loss
from treenail.kernel import Late, Spec, name_of, signature_of

_SCALARS: Final[Mapping[object, Scalar]] = {
    bool: Scalar("bool"),
    int: Scalar("int"),
    float: Scalar("float"),
    str: Scalar("str"),
    bytes: Scalar("bytes"),
    None: NONE,
    NoneType: NONE,
}
_LISTS: Final[Mapping[object, Literal["list", "tuple", "set", "frozenset"]]] = {
    list: "list",
    tuple: "tuple",
    set: "set",
    frozenset: "frozenset",
    abc.Sequence: "list",
    abc.MutableSequence: "list",
    abc.Iterable: "list",
    abc.Collection: "list",
    abc.Set: "set",
}
_MAPS: Final = (dict, abc.Mapping, abc.MutableMapping)
_LIMITS: Final = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length")
_DTYPES: Final = tuple(sorted(name for name, value in vars(torch).items() if isinstance(value, torch.dtype)))
_HOW: Final[Mapping[object, Literal["name", "position", "args", "kwargs"]]] = {
    inspect.Parameter.POSITIONAL_ONLY: "position",
    inspect.Parameter.VAR_POSITIONAL: "args",
    inspect.Parameter.VAR_KEYWORD: "kwargs",
}
_OF_TORCH: Final[Mapping[str, object]] = {"device": torch.device | None, "dtype": torch.dtype | None}
"""What torch's modules take without saying so."""


class Derivation:
    """Derives schemas and keeps them, with the objects that their keys stand for.

    Args:
        described: Whether to read docstrings, too, which a check has no use for.

    Attributes:
        schemas: What was derived.
        objects: Callables and classes by key.
    """

    def __init__(self, *, described: bool = True) -> None:
        self._described = described
        self.schemas = Schemas()
        self.objects: dict[str, object] = {}
        self._keys: dict[int, str] = {}
        self._components: dict[int, ComponentSchema] = {}

    def _summary(self, documented: object) -> str:
        return docstrings.summary_of(documented) if self._described else ""

    def _descriptions(self, documented: object) -> Mapping[str, str]:
        return _descriptions(documented) if self._described else {}

    def key(self, named: object) -> str:
        """Return the key of a callable or class; another one for another object of the same name."""
        known = self._keys.get(id(named))
        if known is not None:
            return known
        name = name_of(named)
        key, number = name, 1
        while key in self.objects:
            number += 1
            key = f"{name}#{number}"
        self._keys[id(named)] = key
        self.objects[key] = named  # also keeps the id from being used again
        return key

    def component(self, target: Callable[..., object]) -> ComponentSchema:
        """Return the schema of a callable."""
        known = self._components.get(id(target))
        if known is None:
            key = self.key(target)
            produced = _produced(target)
            known = ComponentSchema(
                target=key,
                fields=self._fields(target),
                is_class=isinstance(target, type),
                produces=self.class_of(produced) if isinstance(produced, type) else None,
                summary=self._summary(target),
                published=signature_of(target) is not None,
                trains_itself=hasattr(target, "train_step") if isinstance(target, type) else None,
                step_takes_metric=_step_takes_metric(target),
                abstract=tuple(sorted(getattr(target, "__abstractmethods__", ()))),
            )
            self._components[id(target)] = self.schemas.components[key] = known
        return known

    def record(self, kind: object) -> str:
        """Derive the fields that a mapping gives a Struct, NamedTuple or TypedDict; return its key."""
        key = self.key(kind)
        if key not in self.schemas.records:
            name = getattr(kind, "__name__", key)
            self.schemas.records[key] = RecordSchema(name=name, fields=())  # a record may hold itself
            fields = self._struct_fields(kind) if _is_struct(kind) else None
            if fields is None:
                fields = self._typed_dict_fields(kind) if is_typeddict(kind) else self._fields(cast(type, kind))
            self.schemas.records[key] = RecordSchema(name=name, fields=fields, summary=self._summary(kind))
        return key

    def class_of(self, kind: type) -> str:
        """Note what decides whether objects of a class fit slots; return its key."""
        key = self.key(kind)
        if key not in self.schemas.classes:
            for base in kind.__mro__:
                if base is object:
                    continue
                protocol = is_protocol(base)
                members = get_protocol_members(base) if protocol else frozenset()
                self.schemas.classes[self.key(base)] = ClassSchema(
                    bases=tuple(self.key(each) for each in base.__mro__ if each is not object),
                    defines=frozenset(vars(base)),
                    protocol=protocol,
                    # Attributes that are not methods may be set later, in __init__.
                    methods=tuple(sorted(name for name in members if _is_method(base, name))),
                )
        return key

    def kind(self, annotation: object) -> Kind:  # noqa: PLR0912 - one line for each form that a type can have
        """Return what a value of an annotated type can be in a config."""
        if get_origin(annotation) is Annotated:
            plain, *notes = get_args(annotation)
            return _limited(self.kind(plain), [note for note in notes if isinstance(note, msgspec.Meta)])
        origin, args = get_origin(annotation), get_args(annotation)
        plain = origin or annotation
        if annotation in _SCALARS if isinstance(annotation, type | NoneType) else False:
            return _SCALARS[annotation]
        if origin in (Union, UnionType):
            return self._union(args)
        if origin is Literal:
            return Choice(tuple(each.value if isinstance(each, Enum) else cast(Plain, each) for each in args))
        if origin in (Required, NotRequired) or (isinstance(annotation, TypeVar) and annotation.__bound__ is not None):
            return self.kind(args[0] if args else cast(TypeVar, annotation).__bound__)
        if isinstance(annotation, NewType):
            return self.kind(annotation.__supertype__)
        if origin is Spec:
            return self._nested(args[0], "spec")
        if origin is Late:
            return self._nested(args[1], "late", awaited=args[0])
        if plain is abc.Callable:
            return self._nested(annotation, "object")
        if plain is tuple and args and args[-1] is not Ellipsis:
            return TupleOf(tuple(self.kind(each) for each in args if each != ()))
        if plain in _LISTS if _hashable(plain) else False:
            return ListOf(self.kind(args[0]) if args else ANYTHING, _LISTS[plain])
        if plain in _MAPS:
            key, value = [self.kind(each) for each in args] if len(args) == 2 else [ANYTHING, ANYTHING]
            return MapOf(key, RAW if value == ANYTHING else value)
        if _is_record(plain):
            return RecordOf(self.record(plain))
        return self._of_class(plain)

    def _of_class(self, plain: object) -> Kind:
        if not isinstance(plain, type) or plain is object:
            return ANYTHING
        if issubclass(plain, Enum):
            values = tuple(member.value for member in plain)
            if all(isinstance(value, str | int | float | None) for value in values):
                return Choice(values, enum=self.key(plain))
            return Choice(tuple(member.name for member in plain), enum=self.key(plain), by_name=True)
        if plain is torch.device:
            return Word("device", DEVICE_TYPES)
        if plain is torch.dtype:
            return Word("dtype", _DTYPES)
        if issubclass(plain, PurePath) and issubclass(Path, plain):
            return Word("path")
        for base in (bool, int, float, str, bytes):
            if issubclass(plain, base):
                return _SCALARS[base]
        return self._nested(plain, "object")

    def _union(self, members: tuple[object, ...]) -> Kind:
        kinds: list[Kind] = []
        for member in members:
            kind = self.kind(member)
            for each in kind.members if isinstance(kind, OneOf) else (kind,):
                if each not in kinds:
                    kinds.append(each)
        if any(kind == ANYTHING for kind in kinds):
            return ANYTHING
        return OneOf(tuple(kinds)) if len(kinds) > 1 else kinds[0]

    def _nested(self, wanted: object, form: Literal["spec", "late", "object"], awaited: object = None) -> Kind:
        plain = get_origin(wanted) or wanted
        waits = port_of(awaited) or type_name(awaited) if awaited is not None else None
        if wanted in (Any, object):
            return Nested(None, "component", form=form, awaited=waits) if form != "object" else ANYTHING
        if plain is abc.Callable:
            given = get_args(wanted)
            arity = len(given[0]) if given and isinstance(given[0], list) else None
            port = port_of(wanted)
            return Nested(None, port or "function", port, form, waits, function=True, arity=arity)
        if isinstance(plain, TypeVar) or not isinstance(plain, type):
            return Nested(None, "component", form=form, awaited=waits) if form != "object" else ANYTHING
        return Nested(self.class_of(plain), type_name(wanted), port_of(wanted), form, waits)

    def _fields(self, target: Callable[..., object]) -> tuple[Field, ...]:
        signature = signature_of(target)
        if signature is None:  # a builtin that publishes none
            return (Field(name="args", kind=ANYTHING, how="args"), Field(name="kwargs", kind=ANYTHING, how="kwargs"))
        overloads = _overloads(target)
        parameters = list(signature.parameters.values())
        hints = _hints(_function_of(target))
        whole = [each for each in overloads if _names_parameters(each)]
        if whole and all(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in parameters):
            if len(parameters) == 2:  # (*args, **kwargs): what it takes stands in its overload
                parameters = list(inspect.signature(whole[0]).parameters.values())[1:]
            hints = {**_hints(whole[0]), **hints}
        described = self._descriptions(target)
        return tuple(self._field(each, hints, described, target) for each in parameters)

    def _field(
        self,
        parameter: inspect.Parameter,
        hints: Mapping[str, object],
        described: Mapping[str, str],
        target: Callable[..., object],
    ) -> Field:
        name, how = parameter.name, _HOW.get(parameter.kind, "name")
        annotation = hints.get(name, parameter.empty)
        if annotation is parameter.empty and getattr(target, "__module__", "").startswith("torch."):
            annotation = _OF_TORCH.get(name, parameter.empty)
        kind = ANYTHING if annotation is parameter.empty else self.kind(annotation)
        if how == "args":
            kind = ListOf(kind)
        default = None if parameter.default is parameter.empty else parameter.default
        return Field(
            name=name,
            kind=kind,
            required=parameter.default is parameter.empty and how not in ("args", "kwargs"),
            how=how,
            default=_plain(default),
            default_text=None if parameter.default is parameter.empty else _text(default),
            description=described.get(name, ""),
            annotated=annotation is not parameter.empty,
        )

    def _struct_fields(self, kind: object) -> tuple[Field, ...]:
        described = self._descriptions(kind)
        fields = []
        for each in struct_fields(cast(type[msgspec.Struct], kind)):
            has_factory = each.default_factory is not msgspec.NODEFAULT
            default = None if each.required else each.default_factory() if has_factory else each.default
            fields.append(
                Field(
                    name=each.encode_name,
                    kind=self.kind(each.type),
                    required=each.required,
                    default=_plain(default),
                    default_text=None if each.required else _text(default),
                    description=described.get(each.name, ""),
                )
            )
        return tuple(fields)

    def _typed_dict_fields(self, kind: object) -> tuple[Field, ...]:
        required: frozenset[str] = getattr(kind, "__required_keys__", frozenset())
        described = self._descriptions(kind)
        return tuple(
            Field(name=name, kind=self.kind(each), required=name in required, description=described.get(name, ""))
            for name, each in get_type_hints(kind, include_extras=True).items()
        )


def type_name(slot: object) -> str:
    """Name a slot's type for messages: the port's name where it is one."""
    return port_of(slot) or getattr(slot, "__name__", None) or str(slot)


def port_of(slot: object) -> str | None:
    """Return the port that a slot's type belongs to."""
    if slot == Loss:
        return "loss"
    if not isinstance(slot, type):
        return None
    name = name_of(slot)
    return next((port for port, wanted in PORTS.items() if wanted == name), None)


def _hashable(value: object) -> bool:
    return getattr(type(value), "__hash__", None) is not None


def _is_struct(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _is_record(kind: object) -> bool:
    if not isinstance(kind, type):
        return False
    named_tuple = issubclass(kind, tuple) and hasattr(kind, "_fields")
    return _is_struct(kind) or named_tuple or is_typeddict(kind)


def _limited(kind: Kind, notes: list[msgspec.Meta]) -> Kind:
    limits = {name: getattr(note, name) for note in notes for name in _LIMITS if getattr(note, name) is not None}
    if isinstance(kind, Scalar):
        return Scalar(kind.type, {**kind.limits, **limits}) if limits else kind
    if isinstance(kind, ListOf):
        return ListOf(kind.item, kind.container, {**kind.limits, **limits}) if limits else kind
    if isinstance(kind, OneOf):
        return OneOf(tuple(member if member == NONE else _limited(member, notes) for member in kind.members))
    return kind


def _function_of(target: object) -> object:
    """Return what bears the annotations of a callable."""
    while isinstance(target, functools.partial):
        target = target.func
    if isinstance(target, type) and hasattr(target, "_fields") and issubclass(target, tuple):
        return target  # a NamedTuple: its __new__ was made by code in no module
    if isinstance(target, type):
        defined = {name for base in target.__mro__ if base is not object for name in vars(base)}
        function: object = getattr(target, "__init__" if "__init__" in defined else "__new__")
        if getattr(function, "__annotations__", None) is None:  # a Struct: its fields are its parameters
            return target
        return function
    if not isinstance(target, FunctionType) and not hasattr(target, "__annotations__") and callable(target):
        return target.__call__
    return target


def _overloads(target: object) -> list[Callable[..., object]]:
    function = _function_of(target)
    return list(get_overloads(function)) if isinstance(function, FunctionType) else []


def _names_parameters(overload: Callable[..., object]) -> bool:
    """Whether an overload says more than ``(*args, **kwargs)``."""
    return bool(getattr(overload, "__annotations__", None)) and any(
        each.annotation is not each.empty for each in inspect.signature(overload).parameters.values()
    )


@functools.lru_cache(maxsize=256)  # each use resolves all annotations anew
def struct_fields(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Return the fields of a Struct."""
    return msgspec.structs.fields(kind)


def _hints(function: object) -> Mapping[str, object]:
    return _cached_hints(function) if _hashable(function) else _resolved_hints(function)


@functools.lru_cache(maxsize=1024)
def _cached_hints(function: object) -> Mapping[str, object]:
    return _resolved_hints(function)


def _resolved_hints(function: object) -> Mapping[str, object]:
    try:
        return dict(get_type_hints(function, include_extras=True))
    except Exception:  # an annotation that is text can raise anything
        return _hints_one_by_one(function)


def _hints_one_by_one(function: object) -> dict[str, object]:
    """Resolve each annotation alone, so that one that only a type checker can resolve does not hide the others."""
    module = sys.modules.get(getattr(function, "__module__", ""), sys.modules["builtins"])
    # What modules import for type checkers only is mostly from these two.
    names = {**vars(typing), **vars(abc), **vars(module)}
    hints: dict[str, object] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        holder = type("Holder", (), {"__annotations__": {name: annotation}})
        try:
            hints |= get_type_hints(holder, globalns=names, include_extras=True)
        except Exception:
            continue  # as if it had none
    return hints


def _produced(target: Callable[..., object]) -> object:
    if isinstance(target, type):
        return target
    produced: object = _hints(_function_of(target)).get("return")
    return get_origin(produced) or produced


def _is_method(protocol: type, name: str) -> bool:
    return any(isinstance(vars(base).get(name), FunctionType) for base in protocol.__mro__)


def _descriptions(target: object) -> dict[str, str]:
    """Return what the docstrings of a callable, and of the classes that it inherits its parameters from, say."""
    if not isinstance(target, type):
        return docstrings.parameters_of(target)
    found: dict[str, str] = {}
    for base in reversed([each for each in target.__mro__ if each is not object]):
        found |= docstrings.parameters_of(base)
        found |= docstrings.parameters_of(vars(base).get("__init__"))
    return found


def _step_takes_metric(target: Callable[..., object]) -> bool | None:
    step = getattr(target, "step", None)
    signature = signature_of(step) if isinstance(target, type) and callable(step) else None
    if signature is None:
        return None
    first = next(iter(list(signature.parameters.values())[1:]), None)
    if first is not None and first.kind is first.VAR_POSITIONAL:
        return None
    return first is not None and first.default is first.empty and first.kind is not first.VAR_KEYWORD


def _plain(value: object) -> object:
    """Return a default as plain data; None where it is something else, which its text tells."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, int) and abs(value) >= 2**63:  # more than can be stored
        return None
    if isinstance(value, str) and not value.isascii() and _has_surrogates(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return None


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= sign <= "\udfff" for sign in text)


def _text(value: object) -> str:
    if isinstance(value, type) or callable(value):
        return getattr(value, "__name__", type(value).__name__)
    text = ascii(value) if isinstance(value, str) and _has_surrogates(value) else repr(value)
    return type(value).__name__ if " at 0x" in text else text
