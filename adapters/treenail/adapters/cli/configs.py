"""Shows and edits configs."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path
from uuid import uuid4

from treenail.adapters.config import ConfigChecker, InvalidConfigError, Mistake, Source, edits_of, read_source
from treenail.adapters.documents import dump_document, edit_document, read_document, replace_text
from treenail.kernel import ConfigError


def config(options: Namespace) -> int:
    """Run a subcommand of ``treenail config``."""
    return _show(options) if options.subcommand == "show" else _set(options)


def _show(options: Namespace) -> int:
    """Print a config as one file: bases, overlays and overrides in it."""
    source = Source(options.config, options.overrides, options.overlays)
    document, _ = read_source(source)
    if document.has_originals:
        raise ConfigError("a Python config is code", where=str(options.config), mend="read the file itself")
    text = dump_document(document, options.format, mask_secrets=not options.out)
    if options.out:
        replace_text(options.out, text)
    else:
        sys.stdout.write(text)
    return 0


def _set(options: Namespace) -> int:
    """Edit a config file in place, if that makes no new mistake."""
    path: Path = options.config
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
