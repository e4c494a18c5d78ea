"""One signature is the schema: the fields of a component, derived from its callable."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_type_hints

from treenail.kernel import Component
from treenail.kernel.spec import signature_of


class Field(NamedTuple):
    """A parameter that a config can give.

    Args:
        name: Its name; in a config, the key.
        type: Its annotation, resolved; Any where it has none.
        required: Whether there is no default.
        kind: How it is passed: by ``"name"``, by ``"position"``, as ``"args"`` (a list) or ``"kwargs"`` (further keys).
    """

    name: str
    type: object
    required: bool
    kind: Literal["name", "position", "args", "kwargs"] = "name"


_KINDS: dict[object, Literal["name", "position", "args", "kwargs"]] = {
    inspect.Parameter.POSITIONAL_ONLY: "position",
    inspect.Parameter.VAR_POSITIONAL: "args",
    inspect.Parameter.VAR_KEYWORD: "kwargs",
}


def fields_of(target: Callable[..., object], awaited: int = 0) -> list[Field] | None:
    """Return the fields of a callable, without its first `awaited` parameters; None if it publishes no signature."""
    signature = signature_of(target)
    if signature is None:
        return None
    hints = _hints(target)
    fields = [
        Field(
            name=name,
            type=hints.get(name, Any),
            required=parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD),
            kind=_KINDS.get(parameter.kind, "name"),
        )
        for name, parameter in signature.parameters.items()
    ]
    return fields[awaited:] if not fields or fields[0].kind != "args" else fields


def _hints(target: Callable[..., object]) -> dict[str, object]:
    function: object = target
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, type):
        function = getattr(function, "__init__" if "__init__" in _defined(function) else "__new__")
        if getattr(function, "__annotations__", None) is None:  # a Struct or NamedTuple: its fields are its parameters
            function = target
    try:
        return dict(get_type_hints(function, include_extras=True))
    except (NameError, TypeError, AttributeError, SyntaxError):
        return _hints_one_by_one(function)


def _defined(cls: type) -> set[str]:
    return {name for base in cls.__mro__ if base is not object for name in vars(base)}


def _hints_one_by_one(function: object) -> dict[str, object]:
    """Resolve each annotation alone, so that one that only a type checker can resolve does not hide the others."""
    names = vars(sys.modules[getattr(function, "__module__", "builtins")])
    hints: dict[str, object] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        holder = type("Holder", (), {"__annotations__": {name: annotation}})
        try:
            hints |= get_type_hints(holder, globalns=names, include_extras=True)
        except (NameError, TypeError, AttributeError, SyntaxError):
            hints[name] = Any
    return hints


def named_arguments(component: Component[object]) -> dict[str, object]:
    """Return a component's arguments by parameter name; those of ``*args`` as one list."""
    signature = signature_of(component.target)
    if signature is None:
        return dict(component.kwargs)
    bound = signature.bind_partial(*(None,) * component.awaited, *component.args, **component.kwargs)
    named: dict[str, object] = {}
    for name, value in list(bound.arguments.items())[component.awaited :]:
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            named |= value
        else:
            named[name] = list(value) if kind is inspect.Parameter.VAR_POSITIONAL else value
    return named
