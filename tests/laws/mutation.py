"""A law is proved by a mutant: an adapter that breaks it, on which it must fail."""

from collections.abc import Callable, Iterable

import pytest
from hypothesis import Phase, settings

Law = Callable[..., None]

_SETTINGS = "_hypothesis_internal_use_settings"  # should Hypothesis keep them elsewhere one day, mutants die slower


def laws_of(suite: type) -> set[str]:
    return {name for name in dir(suite) if name.startswith("test_")}


def assert_kills(suite: object, law: Law, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a law of a suite that makes a mutant; it must fail, and say what was violated."""
    if isinstance(own := getattr(law, _SETTINGS, None), settings):
        # A mutant's failure is neither shrunk nor kept, and does not depend on luck: the examples are the same each time.
        changed = settings(
            own,
            phases=(Phase.explicit, Phase.generate),
            database=None,
            derandomize=True,
            max_examples=5 * own.max_examples,
        )
        monkeypatch.setattr(law, _SETTINGS, changed)
    with pytest.raises(AssertionError) as caught:
        getattr(suite, law.__name__)()
    assert str(caught.value).strip(), f"{law.__name__} fails without a word"


def assert_all_proved(suite: type, proved: Iterable[Law]) -> None:
    unproved = laws_of(suite) - {law.__name__ for law in proved}
    assert not unproved, f"no mutant breaks {', '.join(sorted(unproved))}"
