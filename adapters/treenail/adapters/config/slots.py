"""Configs made in Python: whether each slot holds what it says, for what mypy did not look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Struct

from treenail.adapters.config.catalog import a
from treenail.adapters.config.leaves import kind_name
from treenail.adapters.config.schema import NONE, Kind, ListOf, MapOf, Nested, OneOf, RecordOf, TupleOf
from treenail.adapters.documents import TreePath, dotted
from treenail.kernel import Component, ConfigError, Late, Spec

if TYPE_CHECKING:
    from treenail.adapters.config.derive import Derivation


class _Misplaced(NamedTuple):
    path: TreePath
    value: object
    kind: Kind


def check_slots(config: Struct) -> None:
    """Refuse a config with an object or a class where a component is to be described, or a mapping where a Struct is.

    Numbers and texts are not looked at, nor what components are given.

    Args:
        config: A `Run`, or another Struct with components in it.

    Raises:
        ConfigError: The first such place, and what to write there.
    """
    from treenail.adapters.config.derive import Derivation  # imports torch, which a check of a file does without

    derivation = Derivation(described=False)
    for path, value, kind in _misplaced(config, derivation.kind(type(config)), (), derivation):
        held = f"the class {value.__name__}" if isinstance(value, type) else a(type(value).__name__)
        if not isinstance(kind, Nested):
            wanted, is_record = kind_name(kind), isinstance(kind, RecordOf)
            mend = f"write {wanted}(…)" if is_record else None
            raise ConfigError(
                f"expected {a(wanted) if is_record else wanted}, got {held}", where=dotted(path), mend=mend
            )
        form = kind.form.capitalize()
        raise ConfigError(
            f"expected a {form} of {a(kind.name)}, got {held}", where=dotted(path), mend=_mend(value, kind)
        )


def _mend(value: object, slot: Nested) -> str:
    target = value.target if isinstance(value, Component) else value
    is_object = not isinstance(target, type) and not hasattr(target, "__name__")
    name = getattr(type(target) if is_object else target, "__name__", "…")
    if slot.form == "late":
        return f"write late({name})(…): the run makes it, and gives it its first argument"
    if slot.function and not is_object and not isinstance(target, type):
        return f"write partial({name})()" if slot.arity == 2 else f"write spec(functools.partial)({name})"
    return f"write spec({name})(…): the run makes it"


def _misplaced(value: object, kind: Kind, path: TreePath, derivation: Derivation) -> Iterator[_Misplaced]:
    match kind:
        case Nested(form="spec") | Nested(form="late"):
            right = isinstance(value, Spec if kind.form == "spec" else Late)
        case RecordOf(record=key):
            wanted = derivation.objects[key]
            right = isinstance(wanted, type) and isinstance(value, wanted)
            if right and isinstance(value, Struct):
                kinds = {each.encode_name: each.name for each in msgspec.structs.fields(value)}
                for field in derivation.schemas.records[key].fields:
                    inner = getattr(value, kinds[field.name])
                    yield from _misplaced(inner, field.kind, (*path, field.name), derivation)
        case ListOf() | TupleOf():
            sequence = value if isinstance(value, list | tuple) else ()
            each_kind = kind.items if isinstance(kind, TupleOf) else (kind.item,) * len(sequence)
            right = isinstance(value, list | tuple) and len(sequence) == len(each_kind)
            for index, (each, item) in enumerate(zip(sequence, each_kind, strict=False)):
                yield from _misplaced(each, item, (*path, index), derivation)
        case MapOf(value=item):
            right = isinstance(value, Mapping)
            for name, each in value.items() if isinstance(value, Mapping) else ():
                yield from _misplaced(each, item, (*path, name), derivation)
        case OneOf(members=members):
            right = True
            found = [list(_misplaced(value, each, path, derivation)) for each in members if each != NONE]
            if all(found) and not (value is None and NONE in members):
                # Of the member that came furthest; a component says what to write.
                yield from max(found, key=lambda each: (len(each[0].path), isinstance(each[0].kind, Nested)))
        case _:
            right = value is None or isinstance(value, bool | int | float | str | bytes)
    if not right:
        yield _Misplaced(path, value, kind)
