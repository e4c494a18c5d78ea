"""A config as text that stands alone: no bases, references to the environment as they were written, everything else resolved."""

from __future__ import annotations

import json
import math
from typing import Final

from treenail.adapters.documents.document import Document, InvalidConfigError, Map, Mark, Mistake, Seq, TreePath, dotted
from treenail.adapters.documents.emit import escape_unprintable, yaml_text
from treenail.adapters.documents.files import Format
from treenail.adapters.documents.inheritance import BASE_KEY, DELETE_KEY
from treenail.adapters.documents.references import escape
from treenail.adapters.documents.secrets import is_secret, mask, mask_scalar, mask_text, mask_written
from treenail.kernel import ConfigError, require

_NAMES: Final[dict[Format, str]] = {"yaml": "YAML", "json": "JSON", "toml": "TOML"}


def dump_document(document: Document, format: Format = "yaml", *, mask_secrets: bool = False) -> str:  # noqa: A002
    """Return a config as text. Loading it in the same environment gives equal data; a tuple is written as a list.

    Args:
        document: As `load_document` returns it.
        format: Of the text.
        mask_secrets: Cover secrets; such a text is for people, it does not load to equal data.

    Raises:
        InvalidConfigError: Everything that the format cannot hold, with its places.
        MissingDependencyError: TOML is written by `tomlkit`, which is not installed.
        ConfigError: The format is unknown.
    """
    if format not in _NAMES:
        raise ConfigError(f"there is no format '{format}'", mend=f"choose one of {', '.join(_NAMES)}")
    writer = _Writer(document, format, mask_secrets=mask_secrets)
    tree = writer.writable(document.data, document.mark, (), secret=False)
    if format == "toml" and not (isinstance(document.data, dict) and document.data):
        message = "a TOML file is a mapping of keys to values, and not empty; write YAML or JSON"
        writer.mistakes.append(Mistake(document.mark.place(), "", message))
    if writer.mistakes:
        raise InvalidConfigError(writer.mistakes)
    if format == "json":
        return escape_unprintable(json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False)) + "\n"
    if format == "toml":
        return escape_unprintable(require("tomlkit", extra="toml", purpose="writing TOML").dumps(tree))
    return yaml_text(tree)


def describe_document(document: Document) -> str:
    """Return ``Config (path: learn.yaml): {…}``, in one line and with secrets covered."""
    return f"Config (path: {document.source}): {mask(document.data)!r}"


def refused_scalar(value: object, form: Format) -> str | None:
    """Return why a format cannot hold a value that is no mapping and no list; None if it can."""
    if not isinstance(value, str | int | float | None):
        return f"{_NAMES[form]} cannot hold a {type(value).__name__}; write the config in Python"
    if value is None and form == "toml":
        return "TOML has no null; leave the key out, or write YAML or JSON"
    if isinstance(value, float) and not math.isfinite(value) and form == "json":
        return f"JSON has no {value}; write YAML or TOML"
    return None


def refused_key(key: object, form: Format) -> str | None:
    """Return why a format cannot hold a key; None if it can."""
    if not isinstance(key, str) and form != "yaml":
        return f"a key of {_NAMES[form]} is a text; quote {key}, or write YAML"
    return None


class _Writer:
    """Turns a document's data into what a format can write, and notes what it cannot."""

    def __init__(self, document: Document, format_: Format, *, mask_secrets: bool) -> None:
        self._document = document
        self._format = format_
        self._mask_secrets = mask_secrets
        self.mistakes: list[Mistake] = []

    def writable(self, value: object, mark: Mark, path: TreePath, *, secret: bool) -> object:
        """Return a part as plain dicts, lists and scalars whose texts may be written as they are."""
        if isinstance(value, dict):
            return self._mapping(value, mark, path, secret=secret)
        if isinstance(value, list | tuple):
            marks = (
                value.marks if isinstance(value, Seq) and value.marks else [mark._replace(written=None)] * len(value)
            )
            return [
                self.writable(inner, inner_mark, (*path, index), secret=secret)
                for index, (inner, inner_mark) in enumerate(zip(value, marks, strict=True))
            ]
        if mark.written is not None:
            return self._written(mark.written, secret=secret)
        refusal = refused_scalar(value, self._format)
        if refusal is not None:
            self._mistake(path, refusal)
            return None
        if self._mask_secrets and secret:
            return mask_scalar(value)
        if isinstance(value, str):
            return escape(mask_text(value) if self._mask_secrets else value)
        return value

    def _mapping(self, value: dict[str | int, object], mark: Mark, path: TreePath, *, secret: bool) -> object:
        marks = value.marks if isinstance(value, Map) else {}
        found: dict[str | int, object] = {}
        for key, inner in value.items():
            if key in (BASE_KEY, DELETE_KEY):
                self._mistake((*path, key), "this is not composed yet; read the file by load_document")
            refusal = refused_key(key, self._format)
            if refusal is not None:
                self._mistake((*path, key), refusal)
            hidden = secret or (isinstance(key, str) and is_secret(key, path[-1] if path else None))
            inner_mark = marks.get(key, mark._replace(written=None))
            found[key] = self.writable(inner, inner_mark, (*path, key), secret=hidden)
        return found

    def _written(self, written: str, *, secret: bool) -> str:
        if not self._mask_secrets:
            return written
        return mask_written(written) if secret else mask_text(written)

    def _mistake(self, path: TreePath, message: str) -> None:
        self.mistakes.append(Mistake(self._document.locate(path), dotted(path), message))
