"""Structs and components as plain data: for manifests, and for overrides of Python configs to lead through."""

from __future__ import annotations

from typing import cast

import msgspec

from treenail.adapters.config.form import named_arguments, target_of
from treenail.adapters.documents import Document, Map, Seq, TreePath, mask
from treenail.kernel import Component, name_of


def describe(value: object, originals: dict[TreePath, object] | None = None, path: TreePath = ()) -> object:
    """Return a Struct tree as plain data, each component as ``{type: module:name, …}``; fields at their default left out.

    Args:
        value: A Struct, component or plain value; other objects stay as they are.
        originals: Filled with what each part describes, by its place, so that `convert` keeps what no override touches.
        path: The place of `value`.
    """
    if originals is not None:
        originals[path] = value
    if isinstance(value, Component):
        name: dict[str | int, object] = {"type": name_of(target_of(value))}
        arguments: dict[str | int, object] = {
            key: describe(item, originals, (*path, key)) for key, item in named_arguments(value).items()
        }
        return Map(name | arguments | name)  # also where an argument is called 'type'
    if isinstance(value, msgspec.Struct):
        changed = {
            each.name: getattr(value, each.name)
            for each in msgspec.structs.fields(value)
            if each.required or getattr(value, each.name) != _default(each)
        }
        return Map({name: describe(item, originals, (*path, name)) for name, item in changed.items()})
    if isinstance(value, dict):
        return Map({key: describe(item, originals, (*path, key)) for key, item in value.items()})
    if isinstance(value, list) or type(value) is tuple:
        return Seq([describe(item, originals, (*path, index)) for index, item in enumerate(value)])
    return value


def recorded(value: object, document: Document | None = None) -> object:
    """Return a Struct tree as plain data to keep and to show: no secrets, environment references as they were written.

    Args:
        value: A Struct, component or plain value; other objects are replaced by their names.
        document: The config that it comes from.
    """
    return mask(_recorded(describe(value), document.data if document is not None else None))


def _recorded(value: object, source: object) -> object:
    if isinstance(value, dict):
        marks = source.marks if isinstance(source, Map) else {}
        inner = source if isinstance(source, dict) else {}
        return {
            str(key): written if key in marks and (written := marks[key].written) else _recorded(item, inner.get(key))
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        places = source.marks if isinstance(source, Seq) and len(source.marks) == len(value) else [None] * len(value)
        items = source if isinstance(source, list) and len(source) == len(value) else [None] * len(value)
        return [
            mark.written if mark is not None and mark.written else _recorded(item, inner)
            for item, inner, mark in zip(value, items, places, strict=True)
        ]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return f"<{name_of(value if callable(value) else type(value))}>"  # a repr may hold an address


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default is not msgspec.NODEFAULT else cast(object, field.default_factory())
