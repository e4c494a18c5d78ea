"""TOML: ends in data with places or in an error of ours; takes what tomllib takes."""

from __future__ import annotations

import tomllib
from pathlib import Path

from scripts.fuzzers._target import Target, as_text, outcome

from treenail.adapters.documents import parse_toml

_PROJECT = Path(__file__).parents[2] / "pyproject.toml"
_SNIPPETS = (
    "a = 1\nb.c = \"x\" # after\n'q' = '''\ntext'''\n[t]\nd = [1, {x = 2.5, y.z = []},\n  3]\n",
    '[[l]]\nq = 1979-05-27 07:32:00\n[[l]]\n[l.m."n o"]\nr = 07:32:00\ns = """a\\\n  b"""\nt = [inf, -nan, 0x1F, 1_000]\n',
)


def _run(data: bytes) -> None:
    text = as_text(data)
    found = outcome(parse_toml, text)
    try:
        tomllib.loads(text.replace("\r", "\n"))
    except (ValueError, RecursionError):
        assert found.error is not None, f"tomllib refuses it, we read {found}"


TARGET = Target(
    run=_run,
    seeds=[_PROJECT.read_bytes(), *(text.encode() for text in _SNIPPETS)],
    dictionary=(
        *(
            "[",
            "]",
            "[[",
            "]]",
            "{",
            "}",
            "=",
            ".",
            ",",
            "\n",
            '"',
            "'",
            '"""',
            "'''",
            "#",
            "\\",
            "\\u",
            "true",
            "inf",
            "nan",
            "0x",
        ),
        *("1979-05-27", "T07:32:00Z", " 07:32:00", "1e999", "_", "\r\n", "\x00"),
    ),
)
