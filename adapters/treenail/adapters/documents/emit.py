"""Plain data as YAML: short leaves in flow style, the rest in blocks, strings quoted wherever a reader could err."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Final

WIDTH: Final = 120
INDENT: Final = 2

_MAX_KEY = 1000  # YAML 1.2, 7.4.2: a key without `?` has at most 1,024 characters
_PLAIN = re.compile(r"(?:[^\W\d]|\.{0,2}/)[\w./+@%-]*(?:[ :][\w./+@%-]+)*")
_WORDS: Final = frozenset(("null", "true", "false", "yes", "no", "on", "off"))  # YAML 1.1's too
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")


def yaml_text(value: object) -> str:
    """Return a whole document."""
    if isinstance(value, dict) and value:
        return "\n".join(_mapping(value, 0)) + "\n"
    return "\n".join(yaml_block(value, 0)) + "\n"


def yaml_block(value: object, indent: int) -> list[str]:
    """Return the lines of a value, each indented; one line in flow style if it fits."""
    if fits(value, indent):
        return [" " * indent + yaml_inline(value)]
    return _mapping(value, indent) if isinstance(value, dict) else _sequence(value, indent)


def yaml_inline(value: object) -> str:
    """Return a value in flow style."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow_key(key)}: {yaml_inline(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(yaml_inline, value)) + "]"
    return _scalar(value)


def yaml_key(key: str | int) -> str:
    """Return a key as it stands before its colon."""
    return _scalar(key)


def escape_unprintable(text: str) -> str:
    """Return YAML, JSON or TOML whose quoted texts have escapes in place of the characters that readers refuse."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def fits(value: object, column: int) -> bool:
    """Return whether a value is written in flow style: scalars, short lists and mappings of scalars, a list of one such."""
    if not isinstance(value, dict | list) or not value:
        return True
    only = value[0] if isinstance(value, list) and len(value) == 1 else None
    flat = _is_flat(value) or (isinstance(only, dict) and _is_flat(only))
    return flat and column + len(yaml_inline(value)) <= WIDTH


def _is_flat(value: dict[str | int, object] | list[object]) -> bool:
    inner = value.values() if isinstance(value, dict) else value
    return not any(isinstance(each, dict | list) and each for each in inner)


def _mapping(value: Mapping[str | int, object], indent: int) -> list[str]:
    pad = " " * indent
    lines = []
    for key, inner in value.items():
        name = yaml_key(key)
        if len(name) > _MAX_KEY:
            lines += [f"{pad}? {name}", f"{pad}: {yaml_inline(inner)}"]
        elif fits(inner, indent + len(name) + 2):
            lines.append(f"{pad}{name}: {yaml_inline(inner)}")
        else:
            lines += [f"{pad}{name}:", *yaml_block(inner, indent + INDENT)]
    return lines


def _sequence(value: object, indent: int) -> list[str]:
    assert isinstance(value, list)
    lines = []
    for item in value:
        first, *rest = yaml_block(item, indent + INDENT)
        lines += [f"{' ' * indent}- {first[indent + INDENT :]}", *rest]
    return lines


def _flow_key(key: str | int) -> str:
    name = yaml_key(key)
    return name if len(name) <= _MAX_KEY else f"? {name} "


def _scalar(value: object) -> str:
    if isinstance(value, str):
        return _string(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _float(value) if isinstance(value, float) else str(value)


def _float(value: float) -> str:
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    text = repr(value)
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}.0e{exponent}" if e and "." not in mantissa else text  # without a point YAML 1.1 reads a text


def _string(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return escape_unprintable(json.dumps(text, ensure_ascii=False))
