"""Plain data to checked Structs and Specs; every mistake is collected with its place, nothing is built."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin

import msgspec
import torch

from treenail.adapters.config.catalog import PORTS, Catalog, a, type_name
from treenail.adapters.config.signature import Field, form_in_slot, form_of
from treenail.adapters.config.slots import LISTS, SCALARS, is_enum, kind_of, takes, wanted_name
from treenail.adapters.documents import NOTHING, Document, InvalidConfigError, Mistake, TreePath, dotted
from treenail.kernel import Component, Late, Spec, SpecError, TreenailError, did_you_mean

S = TypeVar("S", bound=msgspec.Struct)

WRONG: Final = object()
"""What stands for a value that a mistake was noted for."""


Rules = Callable[[Mapping[TreePath, object]], Iterable[tuple[TreePath, str]]]
"""What the parts of a config demand of each other: (converted parts by place) → (place, message) of each mistake."""


def convert(document: Document, kind: type[S], catalog: Catalog, rules: Rules | None = None) -> S:
    """Convert a document to a Struct. What a Python config holds and no override touches stays the very object.

    Args:
        document: The config.
        kind: The Struct.
        catalog: What ``type:`` may name.
        rules: Further mistakes.

    Raises:
        InvalidConfigError: All the mistakes in the document.
    """
    imports: object = document.data.get("imports") if isinstance(document.data, dict) else None
    allowed = tuple(each for each in imports if isinstance(each, str)) if isinstance(imports, list | tuple) else ()
    converter = _Converter(document, catalog, allowed)
    found = converter.convert(document.data, kind, ())
    for path, message in rules(converter.found) if rules else ():
        converter.wrong(path, message)
    if converter.mistakes:
        raise InvalidConfigError(converter.mistakes)
    return cast(S, found)  # a Struct of `kind`, or there was a mistake


class _Converter:
    def __init__(
        self, document: Document, catalog: Catalog, imports: tuple[str, ...], shared: str | None = None
    ) -> None:
        self.mistakes: list[Mistake] = []
        self.found: dict[TreePath, object] = {}
        self._document = document
        self._catalog = catalog
        self._imports = imports
        self._shared = shared  # the parameter of nested components that gets what the Late around them gets

    def wrong(self, path: TreePath, message: str, *, key: bool = False) -> object:
        self.mistakes.append(Mistake(self._document.locate(path, key=key), dotted(path), message))
        return WRONG

    def convert(self, value: object, kind: object, path: TreePath) -> object:
        """Convert one value to a type; notes mistakes and returns WRONG where there are any."""
        original = self._document.original(path)
        if original is NOTHING:
            found = self._convert(value, kind, path)
        elif self._document.led_through(path):
            found = self._convert(value, kind_of(original, kind), path)
            found = tuple(found) if isinstance(original, tuple) and isinstance(found, list) else found
        elif self._is_argument(path) or (isinstance(original, Component) and takes(kind, original)):
            found = original
        elif isinstance(original, Component):
            found = self.wrong(path, f"expected {a(wanted_name(kind))}, got {original!r}")
        else:  # only to find mistakes
            found = self._convert(value, kind_of(original, kind), path)
            found = original if found is not WRONG else WRONG
        self.found[path] = found
        return found

    def _is_argument(self, path: TreePath) -> bool:
        """Whether a place is inside a component of a Python config; what it holds was checked where it was written."""
        return any(isinstance(self._document.original(path[:length]), Component) for length in range(len(path)))

    def _convert(self, value: object, kind: object, path: TreePath) -> object:
        plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        origin = get_origin(plain)
        if plain is Any or plain is object or isinstance(plain, TypeVar):
            return self._untyped(value, path)
        if isinstance(plain, type) and issubclass(plain, msgspec.Struct):
            return self._struct(value, plain, path)
        if origin in (Union, UnionType):
            return self._union(value, kind, get_args(plain), path)
        if origin in (Spec, Late):
            return self._component(value, get_args(plain)[-1], path, get_args(plain)[0] if origin is Late else None)
        if (origin or plain) in LISTS:
            return self._list(value, plain, path)
        if (origin or plain) in (dict, Mapping):
            return self._dict(value, plain, path)
        if origin is Literal or plain in (*SCALARS, None, NoneType) or is_enum(plain):
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
            trial = _Converter(self._document, self._catalog, self._imports, self._shared)
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
        if isinstance(self._document.original(path), dict):
            key_kind = Any  # keys of a Python config stay as they are
        found = {
            key if key_kind is Any else self.convert(key, key_kind, (*path, key)): self.convert(
                item, value_kind, (*path, key)
            )
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
            return self._component(value, kind, path)
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
            return self._component(value, Any, path)
        if isinstance(value, dict):
            return self._dict(value, dict[Any, Any], path)
        if isinstance(value, list | tuple):
            return self._list(value, list[Any] if isinstance(value, list) else tuple[Any, ...], path)
        return value

    def _resolve(self, name: str, slot: object, path: TreePath) -> Callable[..., object] | object:
        try:
            return self._catalog.resolve(name, slot, self._imports)
        except TreenailError as error:
            place = f" ({error.where})" if error.where else ""
            mend = f"; {error.mend}" if error.mend else ""
            return self.wrong(path, f"{error.message}{place}{mend}")

    def _component(self, value: object, slot: object, path: TreePath, awaited: object = None) -> object:
        """Convert a mapping to a component; `awaited` is the type of what comes later, None if nothing does."""
        if not isinstance(value, dict):
            return self.wrong(path, f"expected {a(type_name(slot))} as a mapping {{type: …}}, got {_shown(value)}")
        name = value.get("type")
        if not isinstance(name, str):
            problem = "'type' is missing" if "type" not in value else f"'type' must be a name, got {_shown(name)}"
            return self.wrong(
                (*path, "type") if "type" in value else path, f"{problem}; write type: NAME of {a(type_name(slot))}"
            )
        given = {key: item for key, item in value.items() if key != "type"}
        shared = self._shared
        if awaited is not None:
            shared = next((port for port, kind in PORTS.items() if kind == awaited), None)
        original = self._document.original(path)
        if isinstance(original, Component) and (*path, "type") not in self._document.overrides:
            form = form_of(original)
            if self._document.original((*path, "type")) is not NOTHING:
                given["type"] = name  # an argument of this name
        else:
            target = self._resolve(name, slot, (*path, "type"))
            if target is WRONG or not callable(target):
                return WRONG
            form = form_in_slot(target, slot, late=awaited is not None, shared=shared if shared not in given else None)
        around, self._shared = self._shared, shared
        arguments = self._arguments(given, form.fields, path, of=name)
        self._shared = around
        if arguments is None:
            return WRONG
        try:
            return form.make(*arguments, where=f"{self._document.locate(path)}: {dotted(path)}")
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
