"""How messages tell of many ranks and many problems, and stay short."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def of_ranks(words: Mapping[int, str], most: int = 6) -> str:
    """Return what ranks say, by rank, those that say the same together."""
    ranks: dict[str, list[int]] = {}
    for rank, text in words.items():
        ranks.setdefault(text, []).append(rank)
    return listed(
        [f"rank{'s' if len(where) > 1 else ''} {_named(where)}: {text}" for text, where in ranks.items()], most
    )


def listed(problems: Iterable[str], most: int = 5) -> str:
    """Return problems, each once, and of more than so many how many more there are."""
    each = list(dict.fromkeys(problems))
    return "; ".join(each[:most]) + (f"; and {len(each) - most} more" if len(each) > most else "")


def _named(ranks: list[int]) -> str:
    more = f" and {len(ranks) - 8} more" if len(ranks) > 8 else ""
    return ", ".join(map(str, ranks[:8])) + more
