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

_WRAPPERS = (
    r"_orig_mod\.",
    r"module\.",
    r"^module\.|_orig_mod\.",
    r"_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.",
)
"""What modules around parts of a model put into names: torch's compile, DistributedDataParallel, FSDP, checkpoint_wrapper."""

_TOO_MANY, _TRIED = 16, 8


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
    known: Collection[str] = (),
    where: str | None = None,
) -> Renamed:
    """Rename weights, and leave out those that shall not be loaded.

    Args:
        weights: By the names of a file.
        prefix: Take those below it only, and strip it; ``backbone`` and ``backbone.`` are the same.
        revise_keys: (pattern, replacement) pairs of regular expressions, one after the other, as for `re.sub`.
        exclude: Shell-style patterns of new names: ``head.*``.
        known: Names of the model, which the patterns may match instead.
        where: Place of the weights, for messages.

    Raises:
        CheckpointError: A name is no text, nothing begins with the prefix, two weights would have one name, or a pattern
            matches none.
        ConfigError: A pattern is no regular expression.
    """
    for key in weights:
        if not isinstance(key, str):
            raise CheckpointError(
                f"a weight's name is {key!r}, no text",
                where=where,
                mend="is this part of the file a model's state_dict?",
            )
    below = f"{prefix.rstrip('.')}." if prefix else ""
    inside = {name[len(below) :]: value for name, value in weights.items() if name.startswith(below)}
    if weights and not inside:
        first = sorted({name.partition(".")[0] for name in weights})
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
        if not any(fnmatchcase(name, pattern) for name in (*renamed, *known)):
            raise CheckpointError(
                f"exclude: '{pattern}' matches no weight",
                where=where,
                mend=f"they are called {', '.join(list(renamed)[:5])}, for instance",
            )
    excluded = tuple(name for name in renamed if any(fnmatchcase(name, pattern) for pattern in exclude))
    return Renamed(
        {name: value for name, value in renamed.items() if name not in excluded}, excluded, len(weights) - len(inside)
    )


def suggest_mapping(
    given: Iterable[str], wanted: Collection[str], matching: int | None = None
) -> tuple[str, str, int] | None:
    """Return what would make the names of a file those of a model, if a prefix or a wrapper is what differs.

    Args:
        given: Names of the file, as they are there.
        wanted: Names of the model.
        matching: How many match already; None: those that are in both.

    Returns:
        (pattern, replacement, how many names match then) of ``revise_keys``, in the place of other settings; None if nothing
        makes at least half of the names match, and more than do now.
    """
    names, known = list(given), set(wanted)
    candidates = [*_prefixes(names, known), *((pattern, "") for pattern in _WRAPPERS)]
    counted = [
        (pattern, replacement, len(known.intersection(re.sub(pattern, replacement, name) for name in names)))
        for pattern, replacement in candidates
    ]
    best = max(counted, key=lambda each: (each[2], each[0] not in _WRAPPERS, -len(each[0]) - len(each[1])))
    now = len(known.intersection(names)) if matching is None else matching
    return best if best[2] > now and 2 * best[2] >= min(len(names), len(known)) else None


def _prefixes(names: Iterable[str], known: Iterable[str]) -> list[tuple[str, str]]:
    """Return the replacements of a name's beginning that most names speak for."""
    heads: dict[str, list[str]] = {}
    for name in known:
        for tail in _tails(name):
            heads.setdefault(tail, []).append(name[: len(name) - len(tail)])
    votes: Counter[tuple[str, str]] = Counter()
    for name in names:
        # The longest common end says most; an end of very many names, such as "weight", says nothing.
        shared = next((tail for tail in _tails(name) if tail in heads), None)
        if shared is not None and len(heads[shared]) <= _TOO_MANY:
            votes.update((name[: len(name) - len(shared)], head) for head in heads[shared])
    return [(f"^{re.escape(strip)}", add) for (strip, add), _ in votes.most_common(_TRIED) if strip or add]


def _tails(name: str) -> list[str]:
    """Return a name, what is left of it without its first part, without its first two, and so on."""
    parts = name.split(".")
    return [".".join(parts[index:]) for index in range(len(parts))]
