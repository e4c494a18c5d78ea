"""Shows and edits configs."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from treenail.adapters.config import ConfigChecker, InvalidConfigError, Mistake, Source, edits_of, read_source
from treenail.adapters.documents import (
    Format,
    Location,
    Uri,
    dump_document,
    edit_document,
    read_document,
    replace_text,
)
from treenail.kernel import ConfigError

_FORMATS: Mapping[str, Format] = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml"}


def config(options: Namespace) -> int:
    """Run a subcommand of ``treenail config``."""
    return _show(options) if options.subcommand == "show" else _set(options)


def _show(options: Namespace) -> int:
    """Print a config as one file: bases, overlays and overrides in it."""
    source = Source(options.config, options.overrides, options.overlays)
    document, _ = read_source(source)
    if document.has_originals:
        raise ConfigError("a Python config is code", where=str(options.config), mend="read the file itself")
    text = dump_document(document, _format(options), mask_secrets=not options.out)
    if options.out:
        _refuse_to_replace(options.out, [options.config, *options.overlays])
        if not options.out.exists():
            os.close(os.open(options.out, os.O_CREAT | os.O_WRONLY, 0o600))  # it may hold secrets
        replace_text(options.out, text)
    else:
        sys.stdout.write(text)
    return 0


def _format(options: Namespace) -> Format:
    """Return the format that was asked for, by name or by the suffix of the file to write."""
    suffix = options.out.suffix.lower() if options.out else ""
    by_suffix = _FORMATS.get(suffix)
    if options.out and by_suffix is None:
        raise ConfigError("a config file ends in .yaml, .yml, .json or .toml", where=str(options.out), mend="rename it")
    if options.format and by_suffix and options.format != by_suffix:
        raise ConfigError(
            f"--format is {options.format}", where=str(options.out), mend="leave --format out, or rename it"
        )
    chosen: Format = options.format or by_suffix or "yaml"
    return chosen


def _refuse_to_replace(out: Path, sources: Sequence[Location]) -> None:
    if out.exists() and not out.is_file():
        raise ConfigError("this is no file", where=str(out), mend="name a file")
    if out.exists() and any(isinstance(each, Path) and each.exists() and out.samefile(each) for each in sources):
        raise ConfigError("this is what the config is read from", where=str(out), mend="name another file")


def _set(options: Namespace) -> int:
    """Edit a config file in place, if that makes no new mistake."""
    path: Location = options.config
    if isinstance(path, Uri):
        raise ConfigError(
            "a config in a store is not edited there", where=str(path), mend="copy it here: treenail copy"
        )
    if path.suffix == ".py":
        raise ConfigError("a Python config is code", where=str(path), mend="edit the file itself")
    before = read_document(path)
    text = edit_document(path, edits_of(before.data, options.overrides))
    if not options.force:
        new = _new_mistakes(path, text)
        if new:
            raise InvalidConfigError(new)
    replace_text(path, text)
    return 0


def _new_mistakes(path: Path, text: str) -> list[Mistake]:
    """Return the mistakes that an edited file has and the file has not."""
    checker = ConfigChecker()
    edited = path.with_name(f".{uuid4().hex}{path.suffix}")  # beside it, so that its bases are found
    replace_text(edited, text)
    try:
        after = _mistakes(checker, edited)
    finally:
        os.unlink(edited)
    known = {(each.path, each.message) for each in _mistakes(checker, path)}
    return [
        each._replace(where=each.where.replace(str(edited), f"{path} (as edited)"))
        for each in after
        if (each.path, each.message) not in known
    ]


def _mistakes(checker: ConfigChecker, path: Path) -> list[Mistake]:
    try:
        checker.check(Source(path))
    except InvalidConfigError as error:
        return list(error.mistakes)
    except ConfigError as error:
        return [Mistake(str(path), "", error.message)]
    return []


__all__ = ["config"]
