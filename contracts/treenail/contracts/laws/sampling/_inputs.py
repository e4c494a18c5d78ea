"""What the laws of samplers draw, and how they look at what comes back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from itertools import islice

from hypothesis import strategies as st

from treenail.contracts.laws._support import Refusal, accepted
from treenail.kernel import StateError

EDGES = (0, 1, 2, 3, 4, 7, 8, 9, 13, 31, 32, 33, 251, 1023, 1024, 1025, 4095, 4096, 4097)
LARGE = 1000  # two random orders of so many indices never agree by chance
LIMIT = 1024  # bytes of a state
ENDLESS = 100_000  # items that no law needs: an iteration may have no end

SMALL = st.sampled_from((0, 1, 2, 3, 5, 7, 8, 9, 16, 17)) | st.integers(0, 60)
SIZES = st.sampled_from(EDGES) | st.integers(0, 300)
SEEDS = st.integers(0, 2**31 - 1)
EPOCHS = st.integers(0, 1000)
FRACTIONS = st.floats(0, 1)


def through_json(state: dict[str, object]) -> dict[str, object]:
    """Return the state written as JSON and read back."""
    try:
        loaded: dict[str, object] = json.loads(json.dumps(state))
    except TypeError as error:
        raise AssertionError(f"the state is not JSON: {error}") from error
    return loaded


def assert_small_json(state: dict[str, object]) -> None:
    """Fail unless the state is JSON of less than 1 KB."""
    assert through_json(state) == state, "the state is not what JSON gives back"
    size = len(json.dumps(state))
    assert size < LIMIT, f"the state has {size} bytes, must have less than {LIMIT}"


def assert_mends(refusal: Refusal) -> None:
    """Fail unless the refusal of a state says what to do about it."""
    assert isinstance(refusal.error, StateError), "what was refused raised no StateError"
    assert refusal.error.mend, f"the refusal has no mend: {refusal.text}"


def key(item: object) -> Hashable:
    """Return an index as it is, and a batch as a tuple: what can be compared and counted."""
    found = tuple(item) if isinstance(item, list) else item
    assert isinstance(found, Hashable), f"{item!r} is neither an index nor a list of them"
    return found


def keys(items: Iterable[object], most: int = ENDLESS) -> list[Hashable]:
    """Return the keys of what an iteration yields, of at most `most` items of it."""
    with accepted("iterating"):
        return [key(item) for item in islice(items, most)]


def assert_counts(found: Iterable[int], counts: Mapping[int, int] | None, size: int, what: str) -> None:
    """Fail unless each index was found as often as an epoch has it, or, without counts, unless all are in range."""
    if counts is None:
        wrong = [index for index in found if not 0 <= index < size]
        assert not wrong, f"{what}: {wrong[:5]} are no indices of {size} samples"
        return
    seen = Counter(found)
    different = {
        index: (seen[index], counts.get(index, 0)) for index in {*seen, *counts} if seen[index] != counts.get(index, 0)
    }
    text = ", ".join(f"{index} came {came} times, not {due}" for index, (came, due) in list(different.items())[:5])
    assert not different, f"{what}: {text}"
