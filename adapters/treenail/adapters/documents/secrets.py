"""Secrets in a config: found by the names of keys and in URLs, and covered before a config is shown or logged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from treenail.adapters.documents.document import Map, Mark, Seq, TreePath

MASK: Final = "***"

_WORD_BREAK = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[-\s.]+")
_SECRET_NAME = re.compile(
    r"(?:.*_)?(?:api_?keys?|access_?keys?|account_?keys?|private_?keys?|connection_?string|credentials?|authorization|token"
    r"|webhook_?urls?)"
    r"|.*(?:passwords?|passwd|passphrase|secrets?)"
)
_PUBLIC_HEADERS: Final = frozenset(
    {"accept", "accept_language", "cache_control", "origin", "pragma", "range", "referer", "user_agent"}
)
_OPTIONS: Final = frozenset({"options", "storage_options"})  # of a filesystem: `key` and `auth` open it there
_VOCABULARY: Final = frozenset(  # tokens of a tokenizer, which end in `_token` and are no secrets
    f"{word}_token"
    for word in ("bos", "class", "cls", "end", "eos", "image", "mask", "pad", "sep", "special", "start", "unk")
)
_SIGNED_NAME = re.compile(
    r"sig|.*signature|x_amz_credential|x_goog_credential|awsaccess_?key_?id|google_?access_?id|key"
)
_SCHEME = re.compile(r"(?<![a-z0-9+.-])([a-z][a-z0-9+.-]*://)", re.IGNORECASE)
_USER = re.compile(r"[^/\s?#@]*:(?!\d+(?:[/?#\s]|$))[^\s@]*(?:@[^\s@/?#]*)*@|[^/\s?#]*@")
_USER_ALONE = re.compile(r"(://)[^/\s?#@:]+@")
_PARAMETER = re.compile(r"([?&;])([\w.%-]+)=([^&;\s#]+)")
_VARIABLES = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)(?::([^{}]*))?\}")


def is_secret(name: str, inside: str | int | None = None) -> bool:
    """Return whether what stands under a key of this name is not to be shown: ``password``, ``hf-token``, ``apiKey``.

    Args:
        name: The key.
        inside: The key of the mapping in which it stands: most HTTP ``headers`` and some storage ``options`` are secrets.
    """
    words = _WORD_BREAK.sub("_", name).lower()
    if inside == "webhook" and words == "url":  # who knows it can post there
        return True
    if inside == "headers":
        return words not in _PUBLIC_HEADERS
    if inside in _OPTIONS and words in {"key", "auth"}:
        return True
    return _SECRET_NAME.fullmatch(words) is not None and words not in _VOCABULARY


def holds_secret(path: TreePath) -> bool:
    """Return whether what stands at a place of a config is not to be shown: it, or something around it, is a secret."""
    around: tuple[str | int | None, ...] = (None, *path)
    return any(isinstance(key, str) and is_secret(key, inside) for inside, key in zip(around, path, strict=False))


def literal_secrets(value: object, mark: Mark, path: TreePath) -> Iterator[TreePath]:
    """Yield the places of secrets in a part of a config that were written down, rather than taken from the environment."""
    if isinstance(value, Map):
        for key, inner in value.items():
            yield from literal_secrets(inner, value.marks.get(key, mark), (*path, key))
    elif isinstance(value, Seq):
        marks = value.marks or [mark] * len(value)
        for index, (inner, inner_mark) in enumerate(zip(value, marks, strict=True)):
            yield from literal_secrets(inner, inner_mark, (*path, index))
    elif not isinstance(value, dict | list | tuple) and _opens(value, path) and _is_written(mark):
        yield path


def _is_written(mark: Mark) -> bool:
    """Return whether a value was written down, as a default of a variable at least."""
    return mark.written is None or any(found[2] for found in _VARIABLES.finditer(mark.written))


def _opens(value: object, path: TreePath) -> bool:
    if holds_secret(path):
        return mask_scalar(value) != value
    text = _USER_ALONE.sub(r"\1", value) if isinstance(value, str) else ""  # a user's name alone opens nothing
    return mask_text(text) != text


def mask_text(text: str) -> str:
    """Return a text in whose URLs the user and password, and what signs a query, are covered."""
    if "://" not in text:
        return text
    pieces, position = [], 0
    for scheme in _SCHEME.finditer(text):
        if scheme.start() < position:
            continue
        user = _USER.match(text, scheme.end())
        pieces.append(text[position : scheme.end()] + (f"{MASK}@" if user else ""))
        position = user.end() if user else scheme.end()
    return _PARAMETER.sub(_mask_parameter, "".join(pieces) + text[position:])


def mask_written(written: str) -> str:
    """Return a text with ``${env:…}`` for a secret place: the variables' names stay, everything else is covered."""
    names = [f"${{env:{found[1]}:{MASK}}}" if found[2] else found[0] for found in _VARIABLES.finditer(written)]
    outside = _VARIABLES.sub("", written)
    return "".join(names) if names and not outside else MASK


def mask(tree: object) -> object:
    """Return a copy of a tree in which secrets are covered; what came from a variable with a secret's name, too."""
    return _masked(tree, None, secret=False)


def mask_scalar(value: object) -> object:
    """Return what is shown for a scalar in a secret place; nothing, true and false tell nothing."""
    return value if value is None or value == "" or isinstance(value, bool) else MASK


def _masked(value: object, mark: Mark | None, *, secret: bool, inside: str | int | None = None) -> object:
    if isinstance(value, dict):
        marks = value.marks if isinstance(value, Map) else {}
        return {
            key: _masked(
                inner,
                marks.get(key),
                secret=secret or (isinstance(key, str) and is_secret(key, inside)),
                inside=key,
            )
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        item_marks = value.marks if isinstance(value, Seq) and value.marks else [None] * len(value)
        items = [_masked(inner, inner_mark, secret=secret) for inner, inner_mark in zip(value, item_marks, strict=True)]
        return tuple(items) if isinstance(value, tuple) else items
    if secret or (mark is not None and mark.written is not None and _from_secret_variable(mark.written)):
        return mask_scalar(value)
    return mask_text(value) if isinstance(value, str) else value


def _from_secret_variable(written: str) -> bool:
    return any(is_secret(found[1]) for found in _VARIABLES.finditer(written))


def _mask_parameter(found: re.Match[str]) -> str:
    name = found[2].replace("-", "_").lower()
    hidden = is_secret(found[2]) or _SIGNED_NAME.fullmatch(name) is not None
    return f"{found[1]}{found[2]}={MASK}" if hidden else found[0]
