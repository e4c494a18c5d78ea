"""The commands that need no torch."""

from __future__ import annotations

import sys
from argparse import Namespace

from treenail.adapters.config import ConfigChecker, InvalidConfigError, Source
from treenail.kernel import ConfigError


def check(options: Namespace) -> int:
    """Check configs; print every mistake of all of them."""
    if options.mypy:
        from treenail.adapters.cli.freezing import check_with_mypy  # imports torch

        return check_with_mypy(options)
    checker = ConfigChecker(fresh=options.fresh)
    failures = 0
    unchecked: dict[tuple[str, str], None] = {}
    for path in options.configs:
        try:
            checked = checker.check(Source(path, options.overrides, options.overlays, options.imports))
        except InvalidConfigError as error:
            failures += len(error.mistakes)
            print(error, file=sys.stderr)
        except ConfigError as error:
            failures += 1
            print(error, file=sys.stderr)
        else:
            print(f"{path}: right")
            unchecked |= dict.fromkeys(checked.unchecked)
    for target, parameter in unchecked:
        print(
            f"note: '{parameter}' of {target} has no annotation that can be read, so its value is not checked",
            file=sys.stderr,
        )
    if failures:
        print(f"{failures} mistake{'s' if failures > 1 else ''}", file=sys.stderr)
    return 2 if failures else 0


__all__ = ["check"]
