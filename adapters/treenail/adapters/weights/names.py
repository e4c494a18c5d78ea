"""Names of weights: from those of a file to those of a model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from treenail.kernel import CheckpointError, ConfigError

STRIP_MODULE = ((r"^module\.", ""),)
"""Strips what torch's DistributedDataParallel puts in front of each name."""


class Renamed(NamedTuple):
    """Weights by the names of a model.

    Args:
        weights: By their new names.
        excluded: Names, new ones, of those that shall not be loaded.
        outside: How many did not begin with the prefix.
    """

    weights: dict[str, object]
    excluded: tuple[str, ...]
    outside: int


def rename(
    weights: Mapping[str, object],
    *,
    prefix: str = "",
    revise_keys: Sequence[tuple[str, str]] = STRIP_MODULE,
    exclude: Sequence[str] = (),
    where: str | None = None,
) -> Renamed:
    """Rename weights, and leave out those that shall not be loaded.

    Args:
        weights: By the names of a file.
        prefix: Take those below it only, and strip it; ``backbone`` and ``backbone.`` are the same.
        revise_keys: (pattern, replacement) pairs of regular expressions, one after the other, as for `re.sub`.
        exclude: Shell-style patterns of new names: ``head.*``.
        where: Place of the weights, for messages.

    Raises:
        CheckpointError: Nothing begins with the prefix, two weights would have one name, or a pattern matches none.
        ConfigError: A pattern is no regular expression.
    """
    below = f"{prefix.rstrip('.')}." if prefix else ""
    inside = {name[len(below) :]: value for name, value in weights.items() if name.startswith(below)}
    if weights and not inside:
        first = sorted({str(name).partition(".")[0] for name in weights})
        raise CheckpointError(
            f"no weight's name begins with '{below}'", where=where, mend=f"they begin with {', '.join(first[:10])}"
        )
    renamed: dict[str, object] = {}
    origin: dict[str, str] = {}
    for name, value in inside.items():
        new = name
        for pattern, replacement in revise_keys:
            try:
                new = re.sub(pattern, replacement, new)
            except re.error as error:
                raise ConfigError(
                    f"'{pattern}' → '{replacement}' is no regular expression: {error}", where="revise_keys"
                ) from None
        if new in renamed:
            raise CheckpointError(
                f"'{origin[new]}' and '{name}' would both be '{new}'", where=where, mend="make revise_keys say more"
            )
        renamed[new], origin[new] = value, name
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in renamed):
            raise CheckpointError(
                f"exclude: '{pattern}' matches no weight",
                where=where,
                mend=f"they are called {', '.join(list(renamed)[:5])}, for instance",
            )
    excluded = tuple(name for name in renamed if any(fnmatchcase(name, pattern) for pattern in exclude))
    return Renamed(
        {name: value for name, value in renamed.items() if name not in excluded}, excluded, len(weights) - len(inside)
    )


def suggest_mapping(given: Iterable[str], wanted: Collection[str]) -> tuple[str, str, int] | None:
    """Return what would make the names of a file those of a model, if a prefix is what differs.

    Args:
        given: Names of the file.
        wanted: Names of the model.

    Returns:
        (pattern, replacement, how many names match then) of ``revise_keys``; None if no prefix makes at least half of the
        names match, and more than do now.
    """
    names, known = list(given), set(wanted)
    found: Counter[tuple[str, str]] = Counter()
    for name in names:
        for tail in _tails(name):
            if tail in known:
                found[name[: len(name) - len(tail)], ""] += 1
    theirs = set(names)
    for name in known:
        for tail in _tails(name):
            if tail in theirs:
                found["", name[: len(name) - len(tail)]] += 1
    if not found:
        return None
    (strip, add), count = max(found.items(), key=lambda each: (each[1], each[0]))
    if count <= len(theirs & known) or 2 * count < min(len(names), len(known)):
        return None
    return f"^{re.escape(strip)}", add, count


def _tails(name: str) -> list[str]:
    """Return what is left of a name without its first part, its first two, and so on."""
    parts = name.split(".")
    return [".".join(parts[index:]) for index in range(1, len(parts))]
