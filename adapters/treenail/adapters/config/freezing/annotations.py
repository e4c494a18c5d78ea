"""Annotations as Python writes them, for the functions that a frozen config defines."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any, Union, get_args, get_origin, get_type_hints

from treenail.adapters.config.freezing.written import UnsayableError
from treenail.kernel import Late

Name = Callable[[object], str]
"""Imports a class and returns the name that it is then known by."""


def awaited_type(owner: object, parameter: str) -> object:
    """Return the type of what the `Late` in a field of a record, or in a parameter of a callable, is built with.

    Raises:
        UnsayableError: The annotation cannot be resolved.
    """
    annotated = getattr(owner, "__init__", owner) if isinstance(owner, type) and not _has_fields(owner) else owner
    try:
        hint = get_type_hints(annotated).get(parameter)
    except (NameError, TypeError, AttributeError) as error:
        raise UnsayableError(f"the annotation of '{parameter}' cannot be resolved: {error}") from None
    found = next(_lates(hint), None)
    if found is None:
        raise UnsayableError(f"the annotation of '{parameter}' does not say what the component is built with")
    return get_args(found)[0]


def _has_fields(owner: type) -> bool:
    return hasattr(owner, "__struct_fields__") or hasattr(owner, "_fields") or hasattr(owner, "__required_keys__")


def _lates(annotation: object) -> Iterator[object]:
    if get_origin(annotation) is Late:
        yield annotation
    for part in get_args(annotation):
        yield from _lates(part)


def type_text(annotation: object, name: Name) -> str:
    """Return an annotation as Python writes it.

    Args:
        annotation: The type.
        name: Imports a class.

    Raises:
        UnsayableError: It is of a form that a function cannot be annotated with here.
    """
    if annotation is None or annotation is types.NoneType:
        return "None"
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " | ".join(type_text(each, name) for each in args)
    if isinstance(origin, type) and args and not any(isinstance(each, list) for each in args):
        inside = ", ".join("..." if each is Ellipsis else type_text(each, name) for each in args)
        return f"{name(origin)}[{inside}]"
    if annotation is Any or isinstance(annotation, type):
        return name(annotation)
    raise UnsayableError(f"the type {annotation} cannot be written as an annotation here")
