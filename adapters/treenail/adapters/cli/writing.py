"""The commands that write what an editor or a person starts from: a JSON Schema, a skeleton. They need no torch."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from contextlib import suppress
from pathlib import Path

from treenail.adapters.config.candidates import names_for
from treenail.adapters.config.jsonschema import json_schema
from treenail.adapters.config.template import template as skeleton
from treenail.kernel import ConfigError


def schema(options: Namespace) -> int:
    """Write the JSON Schema of a run, or of one component."""
    names = names_for(options.imports)
    written = json_schema(names, options.imports or None, options.component)
    text = json.dumps(written, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"
    if options.out is None:
        sys.stdout.write(text)
        return 0
    _replace(options.out, text)
    print(
        f"{options.out}: {len(written['definitions'])} definitions, {len(text.encode()) / 1e6:.1f} MB", file=sys.stderr
    )
    return 0


def template(options: Namespace) -> int:
    """Print the skeleton of a component, or of a whole run."""
    sys.stdout.write(skeleton(names_for(options.imports), options.name, options.imports))
    return 0


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all: an editor may be reading it."""
    beside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise ConfigError(f"the schema cannot be written: {error.strerror}", where=str(path)) from error


__all__ = ["schema", "template"]
