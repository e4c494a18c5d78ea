"""How the keys of a config become the arguments of a call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from treenail.adapters.config.ports import PORTS
from treenail.adapters.config.schema import ComponentSchema, Field, Nested
from treenail.kernel import AWAITED, Component, Late, Spec, signature_of

if TYPE_CHECKING:
    from treenail.adapters.config.derive import Derivation


class Form(NamedTuple):
    """How a component is made from the arguments in a config.

    Args:
        schema: Of what is called.
        kind: `Spec` or `Late`.
        fields: What the config can give, by name; ``**kwargs`` excepted.
        further: The field of further keys, ``**kwargs``.
        required: Names that must be given.
        awaited: How many leading arguments come later.
        receives: A parameter that gets what the outermost `Late` around it is built with, if there is one.
        completes: The target, a function, is not called but completed: ``{type: cross_entropy, label_smoothing: 0.1}``.
    """

    schema: ComponentSchema
    kind: Literal["spec", "late"]
    fields: Mapping[str, Field]
    further: Field | None
    required: tuple[str, ...]
    awaited: int = 0
    receives: str | None = None
    completes: bool = False

    def make(
        self, target: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object], where: str
    ) -> Component[object]:
        """Return the component with arguments.

        Raises:
            SpecError: The target does not take them.
        """
        if self.completes:
            return Spec(functools.partial, (target, *args), kwargs, where=where)
        if self.receives:
            kwargs = {**kwargs, self.receives: AWAITED}
        kind: type[Component[object]] = Late if self.kind == "late" else Spec
        return kind(target, args, kwargs, awaited=self.awaited, where=where)


def _form(
    schema: ComponentSchema,
    kind: Literal["spec", "late"],
    *,
    awaited: int = 0,
    receives: str | None = None,
    completes: bool = False,
    all_required: bool = True,
) -> Form:
    fields = schema.fields[awaited:] if not schema.fields or schema.fields[0].how != "args" else schema.fields
    fields = tuple(field for field in fields if field.name != receives)
    further = next((field for field in fields if field.how == "kwargs"), None)
    required = tuple(field.name for field in fields if field.required) if all_required else ()
    named = {field.name: field for field in fields if field.how != "kwargs"}
    return Form(schema, kind, named, further, required, awaited, receives, completes)


def form_in_slot(schema: ComponentSchema, slot: Nested, shared: str | None) -> Form:
    """Return the form that a component takes in a slot.

    Args:
        schema: Of what is called.
        slot: What the slot holds.
        shared: The parameter in which nested components, too, get what comes later: a scheduler's ``optimizer``.
    """
    late = slot.form == "late"
    if slot.function and not schema.is_class:
        return _form(schema, "spec", awaited=slot.arity or 0, completes=True)
    place = next((index for index, field in enumerate(schema.fields) if field.name == shared), None)
    kind: Literal["spec", "late"] = "late" if late else "spec"
    if place is None or (late and place == 0):
        return _form(schema, kind, awaited=int(late))
    return _form(schema, kind, receives=shared)


def shared_by(slot: Nested) -> str | None:
    """Return the name of the parameter that shares what a `Late` in a slot gets, with the components nested in it."""
    return slot.awaited if slot.awaited in PORTS else None


def form_of(component: Component[object], derivation: Derivation) -> Form:
    """Return the form that a component of a Python config has."""
    if component.target is functools.partial and len(component.args) == 1 and callable(component.args[0]):
        return _form(derivation.component(component.args[0]), "spec", completes=True, all_required=False)
    schema = derivation.component(component.target)
    receives = next((name for name, value in component.kwargs.items() if value is AWAITED), None)
    kind: Literal["spec", "late"] = "late" if isinstance(component, Late) else "spec"
    return _form(schema, kind, awaited=component.awaited, receives=receives)


def target_of(component: Component[object]) -> Callable[..., object]:
    """Return what a component of a Python config calls, or completes."""
    completed = component.args[0] if component.args and component.target is functools.partial else None
    if callable(completed) and len(component.args) == 1:
        return cast(Callable[..., object], completed)  # callable() tells mypy no signature
    return component.target


def named_arguments(component: Component[object]) -> dict[str, object]:
    """Return a component's written arguments by parameter name; those of ``*args`` as one list."""
    args, kwargs = component.args, {name: value for name, value in component.kwargs.items() if value is not AWAITED}
    if target_of(component) is not component.target:
        return kwargs
    signature = signature_of(component.target)
    if signature is None:
        return {"args": list(args), **kwargs} if args else kwargs
    bound = signature.bind_partial(*(None,) * component.awaited, *args, **kwargs)
    named: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[component.awaited :]:
        kind = signature.parameters[name].kind
        if kind.name == "VAR_KEYWORD":
            named |= value
        else:
            named[name] = list(value) if kind.name == "VAR_POSITIONAL" else value
    return named


def by_name(fields: Sequence[Field]) -> tuple[dict[str, Field], None, tuple[str, ...]]:
    """Return the fields, further one and required ones of a `Form` for a record, all of whose fields have names."""
    return {field.name: field for field in fields}, None, tuple(field.name for field in fields if field.required)


def positional(form: Form, converted: dict[str, Any]) -> tuple[tuple[object, ...], dict[str, Any]]:
    """Return (positional, by name): arguments that cannot be given by name go before those that can."""
    if not any(field.how in ("position", "args") for field in form.fields.values()):
        return (), converted
    before: list[object] = []
    passed: list[str] = []
    for field in form.fields.values():
        if field.name in converted and field.how == "position":
            before.append(converted.pop(field.name))
        elif field.name in converted and field.how == "args":
            before += [converted.pop(name) for name in passed if name in converted]
            before += converted.pop(field.name)
        passed.append(field.name)
    return tuple(before), converted
