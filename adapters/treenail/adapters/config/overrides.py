"""``key=value`` on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from treenail.adapters.documents import (
    Document,
    InvalidConfigError,
    Map,
    Mark,
    Mistake,
    Seq,
    TreePath,
    dotted,
    parse_value,
)


def apply_overrides(document: Document, overrides: Sequence[str]) -> None:
    """Set parts of a document: ``optimizer.lr=3e-4``, ``schedules.0.every=step``, ``hooks.best=null``.

    Values are YAML. A key that a component or Struct does not take is found when the document is converted.

    Args:
        document: Changed in place.
        overrides: In order; later ones win.

    Raises:
        InvalidConfigError: All overrides that have no ``=``, wrong YAML, or lead through something that is no mapping or list.
    """
    mistakes: list[Mistake] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        where = f"override '{override}'"
        if not equals or not key.strip() or any(not part for part in key.split(".")):
            mistakes.append(Mistake(where, "", "write key=value, for example optimizer.lr=3e-4"))
            continue
        try:
            path = _set(document.data, key.strip().split("."), parse_value(text, where))
        except InvalidConfigError as error:
            mistakes += [Mistake(where, "", mistake.message) for mistake in error.mistakes]
        except LookupError as error:
            mistakes.append(Mistake(where, "", str(error.args[0])))
        else:
            document.overrides[path] = override
    if mistakes:
        raise InvalidConfigError(mistakes)


def _set(tree: object, parts: list[str], value: Document) -> TreePath:
    path: TreePath = ()
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if isinstance(tree, list):
            if not part.isdecimal() or int(part) >= len(tree):
                raise LookupError(f"'{dotted(path)}' is a list of {len(tree)}; '{part}' is not one of its numbers")
            key: int | str = int(part)
        elif isinstance(tree, dict):
            key = int(part) if part not in tree and part.isdecimal() and int(part) in tree else part
        else:
            raise LookupError(f"'{dotted(path)}' is neither a mapping nor a list, it has no '{part}'")
        path = (*path, key)
        missing = isinstance(tree, dict) and tree.get(key) is None
        if last or missing:
            tree[key] = value.data if last else Map()  # type: ignore[index]  # a list has an int key here, a dict any
            if isinstance(tree, Map) or (isinstance(tree, Seq) and tree.marks):
                tree.marks[key] = Mark(value.source)  # type: ignore[index]  # likewise
        tree = tree[key]  # type: ignore[index]  # likewise
    return path
