"""Laws look at fewer examples where each of them is dear."""

from collections.abc import Callable

import pytest
from hypothesis import Phase, settings

_SETTINGS = "_hypothesis_internal_use_settings"  # should Hypothesis keep them elsewhere one day, such tests take longer


def look_at_fewer(law: Callable[..., None], factor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a law look at one of `factor` of its examples during a test."""
    function = getattr(law, "__func__", law)
    if isinstance(own := getattr(function, _SETTINGS, None), settings):
        phases = (Phase.explicit, Phase.reuse, Phase.generate)  # what fails may have to wait: it is not shrunk
        monkeypatch.setattr(
            function, _SETTINGS, settings(own, max_examples=max(1, own.max_examples // factor), phases=phases)
        )
