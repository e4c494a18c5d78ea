"""Checks configs; without ``--mypy`` and ``--params`` that needs no torch."""

from __future__ import annotations

import sys
from argparse import Namespace

from treenail.adapters.config import ConfigChecker, InvalidConfigError, Source
from treenail.kernel import ConfigError, TreenailError


def check(options: Namespace) -> int:
    """Check configs; print every mistake of all of them."""
    if options.mypy:
        from treenail.adapters.cli.freezing import check_with_mypy  # imports torch

        return check_with_mypy(options)
    checker = ConfigChecker(fresh=options.fresh)
    failures = 0
    unchecked: dict[tuple[str, str], None] = {}
    for path in options.configs:
        source = Source(path, options.overrides, options.overlays, options.imports)
        try:
            checked = checker.check(source)
        except InvalidConfigError as error:
            failures += len(error.mistakes)
            print(error, file=sys.stderr)
        except ConfigError as error:
            failures += 1
            print(error, file=sys.stderr)
        else:
            unchecked |= dict.fromkeys(checked.unchecked)
            failures += 0 if _shown(source, params=options.params) else 1
    for target, parameter in unchecked:
        print(
            f"note: '{parameter}' of {target} has no annotation that can be read, so its value is not checked",
            file=sys.stderr,
        )
    if failures:
        print(f"{failures} mistake{'s' if failures > 1 else ''}", file=sys.stderr)
    return 2 if failures else 0


def _shown(source: Source, *, params: bool) -> bool:
    """Print that a config is right, or the mistake that shows only when its groups of parameters are made."""
    table: list[str] = []
    if params:
        from treenail.adapters.cli.parameters import parameter_table  # imports torch

        try:
            table = parameter_table(source)
        except TreenailError as error:
            known = str(error).startswith(f"{source.path}:")
            print(error if known else f"{source.path}: {error}", file=sys.stderr)
            return False
    print(f"{source.path}: right")
    for line in table:
        print(line)
    return True


__all__ = ["check"]
