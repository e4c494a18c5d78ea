"""YAML: ends in data with places or in an error of ours; with and without libyaml in the same."""

from __future__ import annotations

import sys
from pathlib import Path

from scripts.fuzzers._target import Target, as_text, outcome

from treenail.adapters.documents import Document, parse_yaml

_CONFIGS = Path(__file__).parents[2] / "configs"
_MODULE = "_ruamel_yaml"
_SNIPPETS = (
    "a: &x {k: [1, 2.5, null]}\nb: *x\nc: [*x, 'q', \"\\u00e9\"]\n",
    "? key\n: |\n  text\n  more\nfolded: >-\n  a\n  b\n",
    "%YAML 1.2\n---\n!!map {!!str a: !!int 1}\n...\n",
    "size: (224, (1, 2), 'x')\nf: [.inf, -.inf, .nan, 0x1F, 0o17, 1_000, 2e-3]\n",
)


def _with_tuples(text: str, source: str) -> Document:
    return parse_yaml(text, source, tuples=True)


def _run(data: bytes) -> None:
    text = as_text(data)
    parse = _with_tuples if len(data) % 2 else parse_yaml
    first = outcome(parse, text)
    compiled = sys.modules.get(_MODULE)
    sys.modules[_MODULE] = None  # type: ignore[assignment]  # how Python itself notes that a module is not there
    try:
        second = outcome(parse, text)
    finally:
        if compiled is None:
            del sys.modules[_MODULE]
        else:
            sys.modules[_MODULE] = compiled
    assert first == second, f"with libyaml: {first}\nwithout: {second}"


TARGET = Target(
    run=_run,
    seeds=[*(path.read_bytes() for path in sorted(_CONFIGS.rglob("*.yaml"))), *(text.encode() for text in _SNIPPETS)],
    dictionary=(
        *(
            ": ",
            "- ",
            "? ",
            "\n",
            "\n  ",
            "\t",
            "{",
            "}",
            "[",
            "]",
            ", ",
            "'",
            '"',
            "&a ",
            "*a",
            "!!str ",
            "!x ",
            "#",
            "|",
            ">-",
        ),
        *(
            "---\n",
            "...\n",
            "%YAML 1.1\n",
            "%TAG ! !\n",
            "<<: ",
            "~",
            "null",
            "true",
            ".nan",
            ".inf",
            "0x",
            "0o",
            "1e999",
            "(1, 2)",
        ),
        *("\\u", "\\ud800", "\\U", "\\x", "\r\n", "\x85", "\u2028", "\ufeff", "\x00"),
    ),
)
