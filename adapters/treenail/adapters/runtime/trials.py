"""Runs that are only tried: they are short, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from treenail.adapters.hooks import NotifyHook, RequeueHook
from treenail.adapters.runtime.limits import LIMIT
from treenail.adapters.runtime.outputs import evaluated_into, is_one, redirected
from treenail.contracts import EvaluationLoop, Limits, Run
from treenail.kernel import ConfigError, Engine, Loop

_OUTSIDE: Final = (NotifyHook, RequeueHook)
"""Hooks that act on people or on other jobs."""


def shortened(run: Run, batches: int, directory: Path) -> Run:
    """Return a run of a few batches of training, validation and test that leaves no files, and tells nobody.

    Args:
        run: The config.
        batches: How many of each.
        directory: Files that components of ours write go there, in the place of where the config says.

    Raises:
        ConfigError: It is not at least one batch.
    """
    if batches < 1:
        raise ConfigError(f"a trial of {batches} batches is none", mend="try at least 1")
    hooks = {
        name: None if each is None else redirected(each, directory / name)
        for name, each in run.hooks.items()
        if each is None or not is_one(each, *_OUTSIDE)
    }
    return msgspec.structs.replace(
        run,
        limits=Limits(max_steps=batches, train_batches=batches, val_batches=batches, test_batches=batches),
        vis={},
        files=msgspec.structs.replace(run.files, checkpoints=None),
        val=None if run.val is None else evaluated_into(run.val, directory / "val"),
        test=None if run.test is None else evaluated_into(run.test, directory / "test"),
        hooks=hooks,
        priorities={name: each for name, each in run.priorities.items() if name in hooks or name not in run.hooks},
    )


class Trial:
    """Trains until the limit of steps, then validates: the training `Loop` of a run that is only tried.

    Args:
        train: Trains.
        validation: Validates where the limit ended the training before its own, if there is one.
    """

    def __init__(self, train: Loop, validation: EvaluationLoop | None) -> None:
        self._train = train
        self._validation = validation

    def run(self, engine: Engine) -> None:
        """Do both, unless the run is asked to stop for another reason."""
        self._train.run(engine)
        if (engine.stop_reason or "").startswith(LIMIT):
            engine.stop_reason = None  # so that a test follows, too
            if self._validation is not None:
                self._validation.run(engine)
                engine.commit()

    def state_dict(self) -> dict[str, object]:
        """Return the training's state."""
        return self._train.state_dict()

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take a state of the training."""
        self._train.load_state_dict(state_dict)
