"""One signature is the schema: the fields of a component, derived from its callable."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from treenail.kernel import AWAITED, Component, Late, Spec, signature_of


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


class Form(NamedTuple):
    """How a component is made from the arguments in a config.

    Args:
        kind: `Spec` or `Late`.
        target: What is called.
        fields: What the config can give.
        awaited: How many leading arguments come later.
        receives: A parameter that gets what the outermost `Late` around it is built with, if there is one.
        completes: The target, a function, is not called but completed: ``{type: cross_entropy, label_smoothing: 0.1}``.
    """

    kind: type[Component[object]]
    target: Callable[..., object]
    fields: list[Field]
    awaited: int = 0
    receives: str | None = None
    completes: bool = False

    def make(self, args: tuple[object, ...], kwargs: dict[str, object], where: str) -> Component[object]:
        """Return the component with arguments.

        Raises:
            SpecError: The target does not take them.
        """
        if self.completes:
            return Spec(functools.partial, (self.target, *args), kwargs, where=where)
        if self.receives:
            kwargs = {**kwargs, self.receives: AWAITED}
        return self.kind(self.target, args, kwargs, awaited=self.awaited, where=where)


def form_of(component: Component[object]) -> Form:
    """Return the form that a component has."""
    if component.target is functools.partial and len(component.args) == 1 and callable(component.args[0]):
        target = component.args[0]
        fields = [field._replace(required=False) for field in fields_of(target)]
        return Form(Spec, target, fields, completes=True)
    receives = next((name for name, value in component.kwargs.items() if value is AWAITED), None)
    fields = [field for field in fields_of(component.target, component.awaited) if field.name != receives]
    return Form(type(component), component.target, fields, component.awaited, receives)


def form_in_slot(target: Callable[..., object], slot: object, *, late: bool, shared: str | None) -> Form:
    """Return the form that a component takes in a slot.

    Args:
        target: What is called.
        slot: What the slot holds.
        late: Whether something comes later.
        shared: The parameter in which nested components, too, get what comes later: a scheduler's ``optimizer``.
    """
    if get_origin(slot) is Callable and not isinstance(target, type):
        awaited = len(get_args(slot)[0])
        return Form(Spec, target, fields_of(target, awaited), awaited, completes=True)
    fields = fields_of(target)
    place = next((index for index, field in enumerate(fields) if field.name == shared), None)
    if place is None or (late and place == 0):
        return Form(Late if late else Spec, target, fields_of(target, int(late)), int(late))
    return Form(Late if late else Spec, target, fields[:place] + fields[place + 1 :], receives=shared)


_KINDS: dict[object, Literal["name", "position", "args", "kwargs"]] = {
    inspect.Parameter.POSITIONAL_ONLY: "position",
    inspect.Parameter.VAR_POSITIONAL: "args",
    inspect.Parameter.VAR_KEYWORD: "kwargs",
}


def fields_of(target: Callable[..., object], awaited: int = 0) -> list[Field]:
    """Return the fields of a callable, without its first `awaited` parameters."""
    signature = signature_of(target)
    if signature is None:  # a builtin that publishes none: only the call can check it
        return [Field("args", Any, required=False, kind="args"), Field("kwargs", Any, required=False, kind="kwargs")]
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
    """Return a component's written arguments by parameter name; those of ``*args`` as one list."""
    args, kwargs = component.args, {name: value for name, value in component.kwargs.items() if value is not AWAITED}
    if form_of(component).completes:
        return kwargs
    signature = signature_of(component.target)
    if signature is None:
        return {"args": list(args), **kwargs} if args else kwargs
    bound = signature.bind_partial(*(None,) * component.awaited, *args, **kwargs)
    named: dict[str, object] = {}
    for name, value in list(bound.arguments.items())[component.awaited :]:
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            named |= value
        else:
            named[name] = list(value) if kind is inspect.Parameter.VAR_POSITIONAL else value
    return named
