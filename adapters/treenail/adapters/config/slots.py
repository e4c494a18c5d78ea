"""The types that a slot of a config can have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec

from treenail.adapters.config.catalog import type_name
from treenail.kernel import Component

SCALARS: Final = (bool, int, float, str, bytes)
LISTS: Final = (list, tuple, set, frozenset, Sequence, Iterable)


def is_enum(kind: object) -> bool:
    """Return whether a type is an Enum."""
    return isinstance(kind, type) and issubclass(kind, Enum)


def kind_of(original: object, kind: object) -> object:
    """Return the type to convert a part of a Python config to: what it is says more than the slot."""
    wanted = get_origin(kind) or kind
    if isinstance(original, msgspec.Struct):
        return type(original)
    if isinstance(original, Component) and wanted in (*SCALARS, *LISTS, dict, Mapping, Literal):
        return Any
    if isinstance(original, dict) and wanted not in (dict, Mapping, Union, UnionType):
        return dict[Any, Any]
    if isinstance(original, list | tuple) and wanted not in (*LISTS, Union, UnionType):
        return list[Any]
    return kind


def takes(kind: object, component: Component[object]) -> bool:
    """Return whether a slot is for components of this kind."""
    wanted = get_origin(kind)
    if wanted in (Union, UnionType):
        return any(takes(member, component) for member in get_args(kind))
    return isinstance(wanted, type) and isinstance(component, wanted)


def wanted_name(kind: object) -> str:
    """Name what a slot takes, for messages: ``Spec``, ``int``, ``Spec or NoneType``."""
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    plain = [get_args(member)[0] if get_origin(member) is Annotated else member for member in members]
    return " or ".join(type_name(get_origin(member) or member) for member in plain)
