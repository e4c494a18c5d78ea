"""JSON: ends in data with places or in an error of ours; takes what Python's json takes."""

from __future__ import annotations

import json

from scripts.fuzzers._target import Target, as_text, outcome

from treenail.adapters.documents import parse_json

_SNIPPETS = (
    '{"model": {"type": "Sequential", "args": [{"type": "Linear", "in_features": 64, "p": 2.5e-1}]}, "seed": 0}',
    '[true, false, null, "\\ud83d\\ude00\\n\\/\\u0041", -0, -1.5E+3, {}, []]',
)


def _refuse(word: str) -> None:
    raise ValueError(word)


def _run(data: bytes) -> None:
    text = as_text(data)
    found = outcome(parse_json, text)
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        assert found.error is not None, f"Python's json refuses it, we read {found}"


TARGET = Target(
    run=_run,
    seeds=[text.encode() for text in _SNIPPETS],
    dictionary=(
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        '"',
        "\\",
        "\\u",
        "\\ud800",
        "true",
        "false",
        "null",
        "NaN",
        "1e999",
        "-",
        "//",
        "'",
    ),
)
