"""Configs as text: read from files, written to them."""

from __future__ import annotations

import io
import json
import math
import os
import re
from pathlib import Path
from typing import IO, Any, Final, Literal

from treenail.adapters.documents import Document, TreePath, dotted, load_document, parse_document, parse_yaml
from treenail.adapters.documents import read_text as read_path
from treenail.adapters.trees.merge import is_name, plain, same
from treenail.kernel import ConfigError, did_you_mean

# `Any` stands in this file for the values of a config, which may be of every type.

TextFormat = Literal["yaml", "json", "toml", "py"]

_FORMATS: Final[dict[str, TextFormat]] = {"yaml": "yaml", "yml": "yaml", "json": "json", "toml": "toml", "py": "py"}
_SCALARS: Final = (str, int, float, bool, type(None))
_QUOTED: Final = tuple("(+-.0123456789")  # what begins a number or a tuple
_ENDS_PLAIN: Final = re.compile(r":(?:\s|$)|\s#")  # what ends a plain scalar of YAML
_FOREIGN_BASE_KEYS: Final = frozenset(("__BASE__", "_BASE", "_BASE_RUN", "_BASE_MODEL"))  # easycore's and SCEPTER's


def format_named(name: str, where: str | None = None) -> TextFormat:
    """Return ``yaml``, ``json``, ``toml`` or ``py`` for the name of a format or a suffix.

    Raises:
        ConfigError: It is none of these.
    """
    word = name.lower().removeprefix(".")
    if word not in _FORMATS:
        hint = did_you_mean(word, _FORMATS)
        raise ConfigError(
            f"'{name}' is no format of a config", where=where, mend=hint or f"use one of {', '.join(_FORMATS)}"
        )
    return _FORMATS[word]


def format_of(file: str | os.PathLike[str] | IO[str] | None, default: TextFormat = "yaml") -> TextFormat:
    """Return the format that a file's suffix names; the default for a file object without a name.

    Raises:
        ConfigError: The suffix names none.
    """
    name = getattr(file, "name", None) if hasattr(file, "read") or hasattr(file, "write") else file
    if not isinstance(name, str | os.PathLike):
        return default
    return format_named(Path(name).suffix or "no suffix", str(name))


def read_file(file: str | os.PathLike[str] | IO[str], encoding: str, tuples: bool) -> tuple[dict[Any, Any], str, str]:
    """Return what is in one file, the file's name and its text.

    Raises:
        ConfigError: The file cannot be read, is wrong, or holds no mapping.
    """
    if isinstance(file, str | os.PathLike):
        name = os.fspath(file)
        text = _read_path(name, encoding)
    else:
        name = str(getattr(file, "name", "a file object"))
        read: str | bytes = file.read()
        try:
            text = read.decode(encoding) if isinstance(read, bytes) else read
        except (LookupError, UnicodeDecodeError) as error:
            raise ConfigError(f"the file cannot be read: {error}", where=name) from error
    return read_text(text, format_of(file), tuples, name), name, text


def _read_path(name: str, encoding: str) -> str:
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        return read_path(Path(name))
    try:
        return Path(name).read_text(encoding=encoding)
    except (OSError, LookupError, UnicodeError) as error:
        raise ConfigError(f"the file cannot be read: {error}", where=name) from error


def read_text(text: str, file_format: str, tuples: bool, source: str = "text") -> dict[Any, Any]:
    """Return what a text says.

    Raises:
        ConfigError: The format is unknown, the text is wrong, or it says no mapping.
    """
    kind = format_named(file_format)
    if kind == "py":
        raise ConfigError(
            "a Python config is code, and reading it would run it",
            where=source,
            mend="write it in YAML; treenail.adapters.config.load_run reads a Python config of your own",
        )
    return _entries(parse_document(text, source, kind, tuples=tuples))


def read_composed(file: str | os.PathLike[str], tuples: bool) -> tuple[dict[Any, Any], str, str]:
    """Return what is in a file laid over the files that it builds on, its name and its text.

    Raises:
        ConfigError: A file cannot be read or is wrong, or holds no mapping.
    """
    name = os.fspath(file)
    document = load_document(Path(name), tuples=tuples)
    entries = _entries(document)
    for key in _FOREIGN_BASE_KEYS & entries.keys():
        where = document.locate((key,), key=True)
        raise ConfigError(f"'{key}' names no base here", where=where, mend="write _base_: FILE, or a list of files")
    return entries, name, read_path(Path(name))


def _entries(document: Document) -> dict[Any, Any]:
    if not isinstance(document.data, dict):
        found = "a list" if isinstance(document.data, list) else repr(document.data)
        raise ConfigError(f"a config is a mapping, and this is {found}", where=document.locate(()))
    return document.data


def tree_text(entries: dict[Any, Any], file: str | os.PathLike[str] | IO[str] | None, file_format: str | None) -> str:
    """Return entries as text, in a format or in that of a file.

    Raises:
        ConfigError: The format is unknown, or cannot say a value.
    """
    kind = format_named(file_format) if file_format is not None else format_of(file)
    if kind == "toml":
        raise ConfigError("a config is read from TOML, and not written as TOML", mend="write .yaml or .json")
    if kind == "py":
        return python_text(entries)
    _check(entries, (), json_only=kind == "json")
    if kind == "json":
        return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"
    return _yaml_text(entries)


def check_inheritable(value: Any, path: TreePath = ()) -> None:
    """Check that a file which builds on others can say a value.

    Raises:
        ConfigError: There is a text that would be a reference.
    """
    if isinstance(value, dict | list | tuple):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            check_inheritable(inner, (*path, key))
    elif isinstance(value, str) and ("${" in value or "{{" in value):
        raise ConfigError("'${' and '{{' begin a reference in a file with a base", where=dotted(path), mend="use dump")


def _check(value: Any, path: TreePath, *, json_only: bool) -> None:
    if isinstance(value, dict | list | tuple):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if json_only and isinstance(value, dict) and not isinstance(key, str):
                raise ConfigError("a key of JSON is a text", where=dotted((*path, key)), mend=f"use '{key}', or YAML")
            _check(inner, (*path, key), json_only=json_only)
    elif type(value) not in _SCALARS:
        raise ConfigError(
            f"a {type(value).__name__} cannot be written to a file",
            where=dotted(path),
            mend="put a text, a number, a truth value or null there, or take it out before writing",
        )
    elif json_only and isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"JSON has no {value}", where=dotted(path), mend="write YAML")


def _yaml_text(entries: dict[Any, Any]) -> str:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 2**31  # a text in one line stays in one
    stream = io.StringIO()
    yaml.dump(_for_yaml(entries, ()), stream)
    written = stream.getvalue()
    if not same(plain(parse_yaml(written, "the config", tuples=True).data), entries):
        raise ConfigError("a value of the config would be read back from YAML as another one", mend="write it as JSON")
    return written


def _for_yaml(value: Any, path: TreePath) -> Any:
    """Return what ruamel.yaml writes so that it is read back as it was: tuples plain, texts like tuples or numbers quoted."""
    from ruamel.yaml.scalarstring import PlainScalarString, SingleQuotedScalarString

    if isinstance(value, dict):
        return {_for_yaml(key, path): _for_yaml(inner, (*path, key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_for_yaml(inner, (*path, number)) for number, inner in enumerate(value)]
    if isinstance(value, tuple):
        return PlainScalarString(_tuple_text(value, path))
    if isinstance(value, str) and value[:1] in _QUOTED and value.isprintable():
        return SingleQuotedScalarString(value)
    return value


def _tuple_text(value: Any, path: TreePath) -> str:
    if isinstance(value, tuple):
        inner = ", ".join(_tuple_text(item, (*path, number)) for number, item in enumerate(value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, str):
        quote = "'" if "'" not in value else '"'
        if quote not in value and "\\" not in value and value.isprintable() and not _ENDS_PLAIN.search(value):
            return f"{quote}{value}{quote}"
    elif isinstance(value, float) and not math.isfinite(value):
        return f"{'-' if value < 0 else ''}.{'nan' if math.isnan(value) else 'inf'}"
    elif type(value) in _SCALARS:
        return json.dumps(value)
    raise ConfigError(
        f"{value!r} cannot be written inside a tuple", where=dotted(path), mend="make it a list, or write JSON"
    )


def python_text(entries: dict[Any, Any]) -> str:
    """Return entries as assignments of Python, mappings as calls of dict.

    Raises:
        ConfigError: A key is no name of Python.
    """
    lines = []
    for key, value in entries.items():
        if not is_name(key):
            raise ConfigError(f"{key!r} is no name of Python, so nothing can be assigned to it", mend="write YAML")
        lines.append(f"{key} = {_python(value)}\n")
    return "".join(lines)


def _python(value: Any) -> str:
    if isinstance(value, dict) and all(map(is_name, value)):
        return f"dict({', '.join(f'{key}={_python(inner)}' for key, inner in value.items())})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_python(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_python, value))}]"
    if type(value) is tuple:
        return f"({', '.join(map(_python, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    return repr(value)


def write_text(text: str, file: str | os.PathLike[str] | IO[str], encoding: str) -> None:
    """Write a text to a path or a file object.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        if isinstance(file, str | os.PathLike):
            Path(file).write_text(text, encoding=encoding)
        else:
            file.write(text)
    except (OSError, LookupError, UnicodeError) as error:
        name = file if isinstance(file, str | os.PathLike) else getattr(file, "name", "a file object")
        raise ConfigError(f"the file cannot be written: {error}", where=str(name)) from error
