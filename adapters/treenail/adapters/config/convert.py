"""Plain data to checked Structs and Specs; every mistake is collected with its place, nothing is built."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin

import msgspec
import torch

from treenail.adapters.config.catalog import Catalog, a, type_name
from treenail.adapters.config.document import Document, InvalidConfigError, Mistake, TreePath, dotted
from treenail.adapters.config.signature import Field, fields_of
from treenail.kernel import Component, Late, Spec, SpecError, TreenailError, did_you_mean, name_of

S = TypeVar("S", bound=msgspec.Struct)

WRONG: Final = object()
"""What stands for a value that a mistake was noted for."""

_SCALARS = (bool, int, float, str, bytes)
_LISTS = (list, tuple, set, frozenset, Sequence, Iterable)


def convert(
    document: Document,
    kind: type[S],
    catalog: Catalog,
    targets: Mapping[str, Callable[..., object]] | None = None,
) -> S:
    """Convert a document to a Struct.

    Args:
        document: The config.
        kind: The Struct.
        catalog: What ``type:`` may name.
        targets: Further names, for configs that come from Python.

    Raises:
        InvalidConfigError: All the mistakes in the document.
    """
    imports: object = document.data.get("imports") if isinstance(document.data, dict) else None
    allowed = tuple(each for each in imports if isinstance(each, str)) if isinstance(imports, list | tuple) else ()
    converter = _Converter(document, catalog, allowed, targets or {})
    found = converter.convert(document.data, kind, ())
    if converter.mistakes:
        raise InvalidConfigError(converter.mistakes)
    return cast(S, found)  # a Struct of `kind`, or there was a mistake


class _Converter:
    def __init__(
        self,
        document: Document,
        catalog: Catalog,
        imports: tuple[str, ...],
        targets: Mapping[str, Callable[..., object]],
    ) -> None:
        self.mistakes: list[Mistake] = []
        self._document = document
        self._catalog = catalog
        self._imports = imports
        self._targets = targets

    def wrong(self, path: TreePath, message: str, *, key: bool = False) -> object:
        self.mistakes.append(Mistake(self._document.locate(path, key=key), dotted(path), message))
        return WRONG

    def convert(self, value: object, kind: object, path: TreePath) -> object:
        """Convert one value to a type; notes mistakes and returns WRONG where there are any."""
        plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        origin = get_origin(plain)
        if plain is Any or plain is object or isinstance(plain, TypeVar):
            return self._untyped(value, path)
        if isinstance(plain, type) and issubclass(plain, msgspec.Struct):
            return self._struct(value, plain, path)
        if origin in (Union, UnionType):
            return self._union(value, kind, get_args(plain), path)
        if origin in (Spec, Late):
            return self._component(value, get_args(plain)[-1], path, late=origin is Late)
        if (origin or plain) in _LISTS:
            return self._list(value, plain, path)
        if (origin or plain) in (dict, Mapping):
            return self._dict(value, plain, path)
        if origin is Literal or plain in (*_SCALARS, None, NoneType) or _is_enum(plain):
            return self._leaf(value, kind, path)
        if origin is Callable or isinstance(origin or plain, type):
            return self._object(value, plain, path)
        return self._untyped(value, path)

    def _leaf(self, value: object, kind: object, path: TreePath) -> object:
        try:
            return msgspec.convert(value, kind, strict=True)
        except msgspec.ValidationError as error:
            text = str(error).replace("`", "'")
            message = (text[:1].lower() + text[1:]).replace("'null'", "null").replace("'NoneType'", "null")
            choices = [each for each in get_args(kind) if isinstance(each, str)] if get_origin(kind) is Literal else []
            if choices:
                shown = ", ".join(f"'{choice}'" for choice in choices)
                guess = did_you_mean(value, choices) if isinstance(value, str) else None
                message = f"expected one of {shown}, got {value!r}" + (f"; {guess}" if guess else "")
            elif isinstance(value, str) and "got 'str'" in message:
                message += f" ('{value[:40]}')"
            elif "got" not in message:
                message += f", got {value!r}"
            return self.wrong(path, message)

    def _union(self, value: object, kind: object, members: tuple[object, ...], path: TreePath) -> object:
        if value is None and NoneType in members:
            return None
        rest = [member for member in members if member is not NoneType]
        if len(rest) == 1:
            return self.convert(value, rest[0], path)
        tried: list[list[Mistake]] = []
        for member in rest:
            trial = _Converter(self._document, self._catalog, self._imports, self._targets)
            found = trial.convert(value, member, path)
            if not trial.mistakes:
                return found
            tried.append(trial.mistakes)
        if isinstance(value, dict) and "type" in value:  # a component: the member that came furthest explains best
            nearest = max(tried, key=lambda mistakes: len(mistakes[0].path))
            self.mistakes += nearest
            return WRONG
        expected = " or ".join(dict.fromkeys(type_name(member) for member in members))
        return self.wrong(path, f"expected {expected}, got {_shown(value)}")

    def _list(self, value: object, kind: object, path: TreePath) -> object:
        origin, args = get_origin(kind) or kind, get_args(kind)
        if not isinstance(value, list | tuple):
            return self.wrong(path, f"expected a list, got {_shown(value)}")
        if origin is tuple and args and args[-1] is not Ellipsis:
            if len(value) != len(args):
                return self.wrong(path, f"expected a list of {len(args)}, got {len(value)}")
            kinds: Sequence[object] = args
        else:
            kinds = [args[0] if args else Any] * len(value)
        found = [self.convert(item, each, (*path, i)) for i, (item, each) in enumerate(zip(value, kinds, strict=True))]
        if any(item is WRONG for item in found):
            return WRONG
        return (tuple if origin is tuple else set if origin is set else list)(found)

    def _dict(self, value: object, kind: object, path: TreePath) -> object:
        key_kind, value_kind = get_args(kind) or (Any, Any)
        if not isinstance(value, dict):
            return self.wrong(path, f"expected a mapping, got {_shown(value)}")
        found = {
            self.convert(key, key_kind, (*path, key)): self.convert(item, value_kind, (*path, key))
            for key, item in value.items()
        }
        return WRONG if any(WRONG in pair for pair in found.items()) else found

    def _struct(self, value: object, kind: type[msgspec.Struct], path: TreePath) -> object:
        if not isinstance(value, dict):
            return self.wrong(path, f"expected a mapping of {kind.__name__}'s fields, got {_shown(value)}")
        fields = [Field(each.encode_name, each.type, each.required) for each in msgspec.structs.fields(kind)]
        arguments = self._arguments(value, fields, path, of=kind.__name__)
        return WRONG if arguments is None else kind(**arguments[1])

    def _object(self, value: object, kind: object, path: TreePath) -> object:
        """A parameter that takes an object: a nested component, or one of the few that a word can name."""
        if isinstance(value, dict):
            return self._component(value, kind, path, late=False)
        if kind is Path and isinstance(value, str):
            return Path(value)
        if kind is torch.device and isinstance(value, str):
            return torch.device(value)
        if kind is torch.dtype and isinstance(getattr(torch, str(value), None), torch.dtype):
            return getattr(torch, str(value))
        if get_origin(kind) is Callable and isinstance(value, str):
            return self._resolve(value, Any, path)
        plain = get_origin(kind) or kind
        if not isinstance(value, str | int | float | list | None) or (
            isinstance(plain, type) and isinstance(value, plain)
        ):
            return value  # an object that a Python config holds
        return self.wrong(path, f"expected {a(type_name(kind))} as a mapping {{type: …}}, got {_shown(value)}")

    def _untyped(self, value: object, path: TreePath) -> object:
        if isinstance(value, dict) and isinstance(value.get("type"), str):
            return self._component(value, Any, path, late=False)
        if isinstance(value, dict):
            return self._dict(value, dict[Any, Any], path)
        if isinstance(value, list | tuple):
            return self._list(value, list[Any] if isinstance(value, list) else tuple[Any, ...], path)
        return value

    def _resolve(self, name: str, slot: object, path: TreePath) -> Callable[..., object] | object:
        if name in self._targets:
            return self._targets[name]
        try:
            return self._catalog.resolve(name, slot, self._imports)
        except TreenailError as error:
            mend = f"; {error.mend}" if error.mend else ""
            return self.wrong(path, f"{error.message}{mend}")

    def _component(self, value: object, slot: object, path: TreePath, *, late: bool) -> object:
        if not isinstance(value, dict):
            return self.wrong(path, f"expected {a(type_name(slot))} as a mapping {{type: …}}, got {_shown(value)}")
        name = value.get("type")
        if not isinstance(name, str):
            problem = "'type' is missing" if "type" not in value else f"'type' must be a name, got {_shown(name)}"
            return self.wrong(
                (*path, "type") if "type" in value else path, f"{problem}; write type: NAME of {a(type_name(slot))}"
            )
        target = self._resolve(name, slot, (*path, "type"))
        if target is WRONG or not callable(target):
            return WRONG
        # A function in the slot of a function is not called but completed: {type: cross_entropy, label_smoothing: 0.1}.
        completed = get_origin(slot) is Callable and not isinstance(target, type)
        awaited = len(get_args(slot)[0]) if completed else int(late)
        given = {key: item for key, item in value.items() if key != "type"}
        fields = fields_of(target, awaited)
        if fields is None:  # a builtin without a signature: only the call can check it
            fields = [Field("kwargs", Any, required=False, kind="kwargs")]
        arguments = self._arguments(given, fields, path, of=name)
        if arguments is None:
            return WRONG
        where = f"{self._document.locate(path)}: {dotted(path)}"
        try:
            if completed:
                return Spec(functools.partial, (target, *arguments[0]), arguments[1], where=where)
            kind: type[Component[object]] = Late if late else Spec
            return kind(target, *arguments, awaited=awaited, where=where)
        except SpecError as error:
            return self.wrong(path, error.message)

    def _arguments(
        self, given: Mapping[str, object], fields: Sequence[Field], path: TreePath, *, of: str
    ) -> tuple[tuple[object, ...], dict[str, Any]] | None:
        """Convert the given arguments to (positional, by name); None if there was a mistake."""
        known = {field.name: field for field in fields if field.kind != "kwargs"}
        further = next((field for field in fields if field.kind == "kwargs"), None)
        before = len(self.mistakes)
        misspelt: set[str] = set()
        converted: dict[str, object] = {}
        for name, value in given.items():
            field = known.get(name) or further
            if field is None:
                mend = did_you_mean(str(name), known) or f"it takes {', '.join(known) or 'nothing'}"
                misspelt |= {each for each in known if f"'{each}'" in mend}
                self.wrong((*path, name), f"{of} takes no '{name}'; {mend}", key=True)
            else:
                kind = list[Any] if field.kind == "args" and field.type is Any else field.type
                kind = list[field.type] if field.kind == "args" and field.type is not Any else kind  # type: ignore[name-defined]  # a type made at run time
                converted[name] = self.convert(value, kind, (*path, name))
        for field in fields:
            if field.required and field.name not in given and field.name not in misspelt:
                self.wrong(path, f"{of} needs '{field.name}', which is missing")
        if len(self.mistakes) > before:
            return None
        positional: list[object] = []
        for field in fields:
            if field.name in converted and field.kind == "position":
                positional.append(converted.pop(field.name))
            elif field.name in converted and field.kind == "args":
                leading = [each.name for each in fields[: fields.index(field)] if each.name in converted]
                positional += [converted.pop(name) for name in leading]
                positional += cast(list[object], converted.pop(field.name))  # converted to a list above
        return tuple(positional), converted


def _is_enum(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _shown(value: object) -> str:
    if value is None:
        return "nothing (null)"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return f"'{value[:40]}'"
    return f"{type(value).__name__} {value!r}"


def describe(value: object, targets: dict[str, Callable[..., object]]) -> object:
    """Return a Struct tree as plain data, each component as ``{type: module:name, …}``; fields at their default left out.

    Args:
        value: A Struct, component or plain value; other objects stay as they are.
        targets: Filled with the callable of each name, so that `convert` finds them again.
    """
    from treenail.adapters.config.signature import named_arguments

    if isinstance(value, Component):
        component = value
        if component.target is functools.partial and component.args and callable(component.args[0]):
            component = Component(component.args[0], component.args[1:], component.kwargs, awaited=2)
        name = name_of(component.target)
        targets[name] = component.target
        return {"type": name} | {key: describe(item, targets) for key, item in named_arguments(component).items()}
    if isinstance(value, msgspec.Struct):
        changed = {
            each.name: getattr(value, each.name)
            for each in msgspec.structs.fields(value)
            if each.required or getattr(value, each.name) != _default(each)
        }
        return {name: describe(item, targets) for name, item in changed.items()}
    if isinstance(value, dict):
        return {key: describe(item, targets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item, targets) for item in value]
    return value


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default is not msgspec.NODEFAULT else cast(object, field.default_factory())
