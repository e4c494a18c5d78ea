"""Parts of a config on the command line of a script that uses argparse."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, Final

from treenail.adapters.trees.tree import ConfigTree
from treenail.kernel import ConfigError

# `Any` stands in this file for values of a config, which may be of every type.

_MAX_DEPTH: Final = 100
_INT: Final = re.compile(r"[+-]?\d+")
_FLOAT: Final = re.compile(r"[+-]?(?:(?:\d+\.\d*|\.\d+|\d+)(?:e[+-]?\d+)?|inf|nan)", re.IGNORECASE)
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<quoted>"[^"]*"|'[^']*')(?=\s*(?:[,)\]]|$))|(?P<mark>[\[\](),])|(?P<word>[^\[\](),]+))"""
)
_CLOSING: Final = {"(": ")", "[": "]"}


class OverrideAction(argparse.Action):
    """Collects ``KEY=VALUE`` into a dict: ``--cfg-options optimizer.lr=0.1 model.widths="[64, 64]" steps=8,11``.

    A value is a text, int, float, bool, None, a list ``[a, b]`` or ``a,b``, or a tuple ``(a, b)``; lists and tuples nest,
    quotes keep a text as it is. An option given twice adds to the first; a key given twice has the last value.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Add what argparse found behind the option to the dict in the namespace."""
        found = dict(getattr(namespace, self.dest, None) or {})
        for item in [values] if isinstance(values, str) else values or ():
            key, equals, text = str(item).partition("=")
            if not equals or not key.strip():
                raise argparse.ArgumentError(self, f"'{item}' is not KEY=VALUE, for example optimizer.lr=0.1")
            try:
                found[key.strip()] = parse_override(text)
            except ConfigError as error:
                raise argparse.ArgumentError(self, f"'{item}': {error}") from None
        setattr(namespace, self.dest, found)


def parse_override(text: str) -> Any:
    """Return the value that a text on the command line stands for; see `OverrideAction`.

    Raises:
        ConfigError: Brackets do not match, or something is missing before a comma.
    """
    return _Reader(text).value()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        # Brackets within a word, as in `ReLU(inplace)`, are part of it.
        self._bracketed = text.lstrip()[:1] in ("[", "(")
        self._tokens = [(found.lastgroup or "", found[found.lastgroup or 0].strip()) for found in _TOKEN.finditer(text)]
        self._tokens = [token for token in self._tokens if token[1]]
        self._at = 0

    def value(self) -> Any:
        text = self._text.strip()
        if not self._bracketed and "," not in text:
            return _scalar(text)
        items = self._items(None, 0)
        return items[0] if len(items) == 1 and not text.endswith(",") else items

    def _items(self, closing: str | None, depth: int) -> list[Any]:
        if depth > _MAX_DEPTH:
            raise ConfigError(f"this is nested more than {_MAX_DEPTH} levels deep")
        items: list[Any] = []
        may_begin = True  # an item, as after a comma
        while self._at < len(self._tokens):
            kind, token = self._tokens[self._at]
            self._at += 1
            if kind == "mark" and token == ",":
                if may_begin:
                    raise ConfigError("an item is missing before a comma")
                may_begin = True
            elif kind == "mark" and token in ")]":
                if token != closing:
                    raise ConfigError(f"'{token}' closes nothing" if closing is None else f"'{closing}' is expected")
                return items
            elif not may_begin:
                raise ConfigError(f"a comma is missing before '{token}'", mend="quote a text that has brackets in it")
            elif kind == "mark":
                inner = self._items(_CLOSING[token], depth + 1)
                items.append(tuple(inner) if token == "(" else inner)
                may_begin = False
            else:
                items.append(_scalar(token))
                may_begin = False
        if closing is not None:
            raise ConfigError(f"'{closing}' is missing at the end")
        return items


def _scalar(text: str) -> Any:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    if text in ("None", "null"):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def add_config_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add ``--cfg PATH`` and ``--cfg-options KEY=VALUE …`` to a script's parser.

    Args:
        parser: Gets the options.
        required: Whether the script ends with a message when ``--cfg`` is missing.
    """
    parser.add_argument("--cfg", metavar="PATH", required=required, help="the config: a YAML, JSON or TOML file")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=OverrideAction,
        metavar="KEY=VALUE",
        help="parts of the config to replace, for example optimizer.lr=0.1 model.widths='[64, 64]'",
    )


def config_from_arguments(arguments: argparse.Namespace) -> ConfigTree:
    """Return the config that `add_config_arguments`'s options name, its parts replaced; empty without a ``--cfg``.

    Raises:
        ConfigError: The file is wrong, or an option leads nowhere.
    """
    tree = ConfigTree.fromfile(arguments.cfg) if arguments.cfg is not None else ConfigTree()
    tree.merge_from_dict(arguments.cfg_options or {})
    return tree
