"""Which modules a config lets its components come from."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from treenail.adapters.config.catalog import Names, explain, is_allowed
from treenail.adapters.documents import TreePath
from treenail.kernel import TreenailError


def allowed_imports(data: object) -> tuple[str, ...]:
    """Return the prefixes under ``imports:``."""
    imports = data.get("imports") if isinstance(data, dict) else None
    return tuple(each for each in imports if isinstance(each, str)) if isinstance(imports, list | tuple) else ()


def make_importable(folder: Path) -> None:
    """Let modules that lie beside a config be imported, by loader workers too; installed ones win."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def import_components(data: object, names: Names, allowed: Sequence[str]) -> Iterator[tuple[TreePath, str]]:
    """Import the modules under ``custom_imports:``, so that what they register can be named.

    Yields:
        (place, message) of what may not, or cannot, be imported.
    """
    written = data.get("custom_imports") if isinstance(data, dict) else None
    path: TreePath = ("custom_imports",)
    may_fail = False
    if isinstance(written, dict):
        may_fail = written.get("allow_failed_imports") is True
        written, path = written.get("imports"), (*path, "imports")
    for index, module in enumerate(written if isinstance(written, list | tuple) else ()):
        if not isinstance(module, str):
            continue  # the schema says so
        if not is_allowed(module, allowed):
            mend = f"add '{module.partition('.')[0]}' to `imports:` in the config if you trust it"
            yield (*path, index), f"'{module}' would be imported, which is not allowed here; {mend}"
            continue
        try:
            names.import_components(module)
        except TreenailError as error:
            if not may_fail:
                yield (*path, index), explain(error)
