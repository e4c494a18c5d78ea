"""The commands that turn configs into typed Python."""

from __future__ import annotations

import sys
from argparse import Namespace

from treenail.adapters.config import Catalog, Source
from treenail.adapters.config.freezing import check_types
from treenail.adapters.config.freezing import freeze as freeze_config


def freeze(options: Namespace) -> int:
    """Print the typed Python that describes the same run as a config."""
    source = Source(options.config, options.overrides, options.overlays, options.imports)
    print(freeze_config(source, Catalog()), end="")
    return 0


def check_with_mypy(options: Namespace) -> int:
    """Check configs, and let mypy check them as Python; print every mistake of all of them."""
    found = check_types(options.configs, options.overrides, options.overlays, options.imports)
    for path in found.right:
        print(f"{path}: right")
    for path in found.skipped:
        print(f"note: {path} describes no run, so it was not checked", file=sys.stderr)
    for mistake in found.mistakes:
        print(mistake, file=sys.stderr)
    if found.mistakes:
        print(f"{len(found.mistakes)} mistake{'s' if len(found.mistakes) > 1 else ''}", file=sys.stderr)
    return 2 if found.mistakes else 0


__all__ = ["check_with_mypy", "freeze"]
