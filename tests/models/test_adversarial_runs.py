"""Models with several optimizers, trained by steps with micro-batches, bfloat16, clipping and averages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models.adversarial import STEPS, run
from tests.resume.outcomes import difference, outcome
from treenail.adapters.runtime import train


@pytest.mark.parametrize("stop", [3, 5, 7])
def test_stopped_anywhere_it_goes_on_bit_for_bit(tmp_path: Path, stop: int) -> None:
    assert train(run(chance=True), tmp_path / "whole").step == STEPS
    assert train(run(chance=True, stop=stop), tmp_path / "parts").step == stop
    torch.manual_seed(99)  # as another process would have it
    assert train(run(chance=True), tmp_path / "parts", resume="latest").step == STEPS
    assert difference(outcome(tmp_path / "parts"), outcome(tmp_path / "whole")) is None
