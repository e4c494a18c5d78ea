"""Config files: which format a file has, and its text, read with bounds."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from treenail.adapters.documents.document import Document
from treenail.adapters.documents.json import parse_json
from treenail.adapters.documents.limits import MAX_BYTES, too_large
from treenail.adapters.documents.toml import parse_toml
from treenail.adapters.documents.uris import Location, Uri
from treenail.adapters.documents.yaml import parse_yaml
from treenail.kernel import ConfigError
from treenail.kernel.errors import did_you_mean

Format = Literal["yaml", "json", "toml"]

_SUFFIXES: Final[dict[str, Format]] = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml"}


def read_document(path: Location, *, tuples: bool = False) -> Document:
    """Read a config file as plain data with places; its suffix says the format.

    Args:
        path: A file ``.yaml``, ``.yml``, ``.json`` or ``.toml``; a local one, or one in a store.
        tuples: Whether a plain scalar of YAML like ``(224, 224)`` is a tuple rather than text.

    Raises:
        InvalidConfigError: Something is wrong in it; holds all mistakes.
        ConfigError: It cannot be read, is empty, or has another suffix.
    """
    form = _SUFFIXES.get(path.suffix.lower())
    if form is None:
        near = did_you_mean(path.suffix, _SUFFIXES)
        raise ConfigError(
            f"a config file ends in {', '.join(_SUFFIXES)}, not in '{path.suffix}'",
            where=str(path),
            mend=near or "rename it, or write the config in one of these formats",
        )
    return parse_document(read_text(path), str(path), form, tuples=tuples)


def parse_document(text: str, source: str, form: Format, *, tuples: bool = False) -> Document:
    """Parse a text of a format.

    Args:
        text: The text.
        source: Name of the file, for places.
        form: The format.
        tuples: Whether a plain scalar of YAML like ``(224, 224)`` is a tuple; JSON and TOML have no plain scalars.

    Raises:
        InvalidConfigError: Something is wrong in it; holds all mistakes.
        ConfigError: It is empty, or there is no such format.
    """
    parsers: dict[str, Callable[[str, str], Document]] = {"json": parse_json, "toml": parse_toml}
    if form == "yaml":
        return parse_yaml(text, source, tuples=tuples)
    if form not in parsers:
        raise ConfigError(f"'{form}' is not a format of configs", where=source, mend="there are yaml, json and toml")
    return parsers[form](text, source)


def read_text(path: Location) -> str:
    """Read a config file, never more of it than a config may have.

    Raises:
        ConfigError: It does not exist, is not a file, is too large, is not UTF-8, or cannot be read.
    """
    where = str(path)
    content = path.read() if isinstance(path, Uri) else _read_local(path)
    if len(content) > MAX_BYTES:
        raise too_large(where)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError("the file is not UTF-8 text: it is UTF-16", where=where, mend="save it as UTF-8")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"the file is not UTF-8 text: {error.reason} at byte {error.start}", where=where) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_local(path: Path) -> bytes:
    where = str(path)
    try:
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            raise ConfigError("this is a directory", where=where, mend="name a .yaml or .py file in it")
        if not stat.S_ISREG(about.st_mode):  # to open a pipe can wait for ever, and a device has no end
            raise ConfigError("this is not a regular file", where=where, mend="write the config to a file")
        if about.st_size > MAX_BYTES:
            raise too_large(where)
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)  # files of /proc have no size, others may grow
    except FileNotFoundError:
        raise ConfigError("there is no such file", where=where) from None
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", where=where) from error
    except ValueError:  # a name with NUL or a lone surrogate in it
        raise ConfigError("no file can have this name", where=repr(where)) from None
