"""What a plain scalar of YAML stands for: the core schema of YAML 1.2, section 10.3.2, and tuples where asked for."""

from __future__ import annotations

import re
from typing import Final

from treenail.adapters.documents.limits import MAX_DEPTH, TOO_DEEP, RefusedValueError, real_number, whole_number

_WORDS: Final[dict[str, object]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((f"{sign}.{word}" for sign in ("", "+") for word in ("inf", "Inf", "INF")), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_NUMBER_BEGINS: Final = frozenset("+-.0123456789")
# The core schema, and what YAML libraries take beside it: `_` between digits, 0b101, a sign before 0x, 0o and 0b.
_NUMBER = re.compile(
    r"""(?:
        (?P<decimal>[-+]?[0-9][0-9_]*)
      | (?P<other>[-+]?0(?:x(?P<hexadecimal>_*[0-9a-fA-F][0-9a-fA-F_]*)|o(?P<octal>_*[0-7][0-7_]*)|b(?P<binary>_*[01][01_]*)))
      | (?P<real>[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?)
    )""",
    re.VERBOSE,
)
_BASES: Final = {"hexadecimal": 16, "octal": 8, "binary": 2}
_TUPLE_TOKEN = re.compile(
    r"""\s*(?:(?P<mark>[(),])|'(?P<single>[^']*)'|"(?P<double>[^"\\]*)"|(?P<plain>[^\s(),'"][^(),'"]*))\s*"""
)
_QUOTED = re.compile(r"'[^']*'|\"[^\"\\\\]*\"")
_TUPLE_MEND = "inside [] or {} its commas end it: write a list, or the whole in block style"


def resolve(text: str) -> object:
    """Return the null, bool, int, float or text that a plain scalar stands for.

    Raises:
        RefusedValueError: It is a number that is too large.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_BEGINS:
        return text
    found = _NUMBER.fullmatch(text)
    if found is None:
        return text
    kind = found.lastgroup
    digits = text.replace("_", "") if "_" in text else text
    if kind == "decimal":
        return whole_number(digits)
    if kind == "real":
        return real_number(digits)
    sign = -1 if text[0] == "-" else 1
    base, digits = next((base, found[name]) for name, base in _BASES.items() if found[name] is not None)
    return sign * whole_number(digits.replace("_", ""), base)


def resolve_tuple(text: str) -> object:
    """Return the tuple that a plain scalar like ``(224, (1, 2.5), 'x')`` stands for; other text as `resolve` does.

    As in Python, a comma makes the tuple: ``(1,)`` is one, ``(1)`` and ``(word)`` are text, ``()`` is the empty one.

    Raises:
        RefusedValueError: A parenthesis is not closed, an item is missing, or a number is too large.
    """
    if not text.startswith("("):
        return resolve(text)
    outline = _QUOTED.sub(lambda found: "'" * len(found[0]), text)
    if outline.count("(") != outline.count(")"):
        raise RefusedValueError(f"the parentheses of this tuple do not match; {_TUPLE_MEND}")
    if not _closes_at_its_end(outline):
        return text
    if not text[1:-1].strip():
        return ()
    return _tuple(text)


def _closes_at_its_end(text: str) -> bool:
    depth = 0
    for offset, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return offset == len(text) - 1
    return False


def _tuple(text: str) -> object:
    """Read `(`, items and commas with a stack, so that depth costs no recursion."""
    stack: list[tuple[list[object], bool]] = []
    items: list[object] = []
    offset, after_item, commas = 0, False, False
    while offset < len(text):
        token = _TUPLE_TOKEN.match(text, offset)
        if token is None:
            return text
        offset, mark = token.end(), token["mark"]
        if mark == "," and not after_item:
            raise RefusedValueError("an item of this tuple is missing before a comma")
        if after_item and mark not in (",", ")"):
            return text  # two words without a comma: prose in parentheses
        if mark == "(":
            if len(stack) >= MAX_DEPTH:
                raise RefusedValueError(TOO_DEEP)
            stack.append((items, commas))
            items, commas, after_item = [], False, False
        elif mark == ",":
            commas, after_item = True, False
        elif mark == ")":
            if items and not commas:
                return text
            inner: object = tuple(items)
            items, commas = stack.pop()
            items.append(inner)
            after_item = True
        else:
            quoted = token["single"] if token["single"] is not None else token["double"]
            items.append(quoted if quoted is not None else resolve(token["plain"].rstrip()))
            after_item = True
    return items[0]
