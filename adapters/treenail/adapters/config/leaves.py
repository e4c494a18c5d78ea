"""The leaves of a config: scalars, choices and words against their kinds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec

from treenail.adapters.config.catalog import a
from treenail.adapters.config.schema import Choice, Kind, ListOf, MapOf, Nested, OneOf, RecordOf, Scalar, TupleOf, Word
from treenail.kernel import did_you_mean

_TYPES: Final[dict[str, Any]] = {"bool": bool, "int": int, "float": float, "str": str, "bytes": bytes, "none": None}
_DEVICE: Final = re.compile(r"([a-z]+)(?::\d+)?")
_LIKE_NUMBER: Final = re.compile(r"[-+]?(\d[\d_]*)?\.?\d+([eE][-+]?\d+)?")


class LeafError(ValueError):
    """A leaf is not of its kind; the text says how."""


def scalar(value: object, kind: Scalar) -> object:
    """Return a scalar as its type; an int where a float is wanted becomes one.

    Raises:
        LeafError: It is of another type, or out of its limits.
    """
    plain = _TYPES[kind.type]
    if not kind.limits and type(value) is plain:
        return value
    try:
        return msgspec.convert(value, Annotated[plain, msgspec.Meta(**kind.limits)] if kind.limits else plain)  # type: ignore[call-overload]  # Meta's own arguments
    except (msgspec.ValidationError, OverflowError) as error:
        raise LeafError(_message(value, kind, str(error))) from None


def _message(value: object, kind: Scalar, found: str) -> str:
    text = found.replace("`", "'")
    text = (text[:1].lower() + text[1:]).replace("'null'", "null").replace("'NoneType'", "null")
    if isinstance(value, str) and "got 'str'" in text:
        text += f" ('{value[:40]}')"
        if kind.type in ("int", "float") and _LIKE_NUMBER.fullmatch(value.strip()):
            text += "; write it without quotes"
        elif kind.type == "bool" and value.lower() in ("yes", "no", "on", "off", "y", "n", "true", "false"):
            text += f"; write {'true' if value.lower() in ('yes', 'on', 'y', 'true') else 'false'}"
    elif "got" not in text:
        text += f", got {value!r}"
    return text


def choice(value: object, kind: Choice) -> object:
    """Return a value that is one of a Literal's or Enum's.

    Raises:
        LeafError: It is none of them.
    """
    for each in kind.values:
        if each == value and type(each) is type(value):
            return each
    shown = ", ".join(f"'{each}'" if isinstance(each, str) else _yaml(each) for each in kind.values)
    words = [each for each in kind.values if isinstance(each, str)]
    guess = did_you_mean(value, words) if isinstance(value, str) else None
    raise LeafError(f"expected one of {shown}, got {shown_value(value)}{f'; {guess}' if guess else ''}")


def word(value: object, kind: Word) -> str:
    """Return a word that names a path, device or dtype.

    Raises:
        LeafError: It is none.
    """
    if isinstance(value, str):
        if kind.of == "path":
            return value
        name = value.removeprefix("torch.") if kind.of == "dtype" else value
        plain = _DEVICE.fullmatch(value) if kind.of == "device" else None
        if name in kind.values or (plain and plain[1] in kind.values):
            return name
        guess = did_you_mean(name, kind.values)
        mend = guess or f"write {' or '.join(kind.values[:2] if kind.of == 'device' else ('float32', 'bfloat16'))}"
        raise LeafError(f"expected {a(kind.of)}, got '{value[:40]}'; {mend}")
    raise LeafError(f"expected {a(kind.of)}, got {shown_value(value)}")


def shown_value(value: object) -> str:
    """Return how a message shows a value that was written."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return f"'{value[:40]}'"
    if isinstance(value, bool):
        return f"bool {_yaml(value)}"
    return f"{type(value).__name__} {value!r}"


def _yaml(value: object) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def kind_name(kind: Kind) -> str:
    """Name a kind for messages."""
    match kind:
        case Scalar(type=name):
            return "null" if name == "none" else name
        case Choice(values=values):
            return " or ".join(f"'{each}'" if isinstance(each, str) else _yaml(each) for each in values)
        case Word(of=name):
            return name
        case ListOf():
            return "list"
        case TupleOf(items=items):
            return f"list of {len(items)}"
        case MapOf():
            return "mapping"
        case RecordOf(record=record):
            return record.rpartition(":")[2]
        case Nested(name=name):
            return name
        case OneOf(members=members):
            return kind_names(members)
        case _:
            return "anything"


def kind_names(kinds: Sequence[Kind]) -> str:
    """Name several kinds for messages: ``int or list of 2``."""
    return " or ".join(dict.fromkeys(kind_name(kind) for kind in kinds))
