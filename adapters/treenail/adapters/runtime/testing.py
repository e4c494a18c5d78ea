"""The engine of a test, or of a validation by itself, and which hooks of a config take part in it."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec
import torch
from torch import nn

from treenail.adapters.config import recorded
from treenail.adapters.documents import Document
from treenail.adapters.hooks import (
    AveragingHook,
    BestHook,
    CheckpointHook,
    EarlyStoppingHook,
    LoggerHook,
    ScheduleHook,
    ThroughputHook,
    TimerHook,
    VisHook,
)
from treenail.adapters.hooks.compat import IterTimerHook
from treenail.adapters.hooks.compat import LoggerHook as MmengineLoggerHook
from treenail.adapters.loops import EvalLoop, EvalSets
from treenail.adapters.runtime.assemble import Assembly
from treenail.adapters.runtime.default_hooks import default_hooks
from treenail.adapters.runtime.limits import DiscardedCheckpoints
from treenail.adapters.runtime.ranks import on_rank_0
from treenail.adapters.runtime.workdir import make_work_dir
from treenail.adapters.vis import JsonLines
from treenail.contracts import Limits, Loss, Run
from treenail.kernel import HOOK_POINTS, Communicator, ConfigError, Engine, Hook, Late, Spec, Stateful

_OF_TRAINING: Final = (
    AveragingHook,
    BestHook,
    CheckpointHook,
    EarlyStoppingHook,
    ScheduleHook,
    ThroughputHook,
    TimerHook,
)
"""Of ours, those whose part in an evaluation serves the training around it."""
_DEFAULTS: Final = ("timer", "progress", "schedule", "checkpoint", "averaging", "stragglers")
"""Names of default hooks that have no part in an evaluation by itself."""


class SoleValidation:
    """A validation by itself: in the place of the training `Loop`, it commits what the validation publishes.

    Args:
        validation: Validates.
        epoch: After how many epochs of training.

    Attributes:
        validation: As given.
        max_epochs: That epoch, which is the last one as far as is known.
    """

    def __init__(self, validation: EvalLoop | EvalSets, epoch: int) -> None:
        self.validation = validation
        self.max_epochs = epoch

    def run(self, engine: Engine) -> None:
        """Validate, and commit."""
        self.validation.run(engine)
        engine.commit()

    def state_dict(self) -> dict[str, object]:
        """Return an empty state: an interrupted pass begins anew."""
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take nothing."""


class Tested(NamedTuple):
    """What is tested.

    Args:
        model: The model, on its device, with its weights.
        loss: What it is measured by, if anything.
        loop: The evaluation.
        device: Where the model is.
        step: After how many training steps it has these weights; 0 where nobody knows.
        epoch: After how many training epochs.
    """

    model: nn.Module
    loss: Loss | None
    loop: EvalLoop | EvalSets | SoleValidation
    device: torch.device
    step: int
    epoch: int


def taking_part(run: Run, mode: Literal["val", "test"]) -> list[str]:
    """Return the names of those hooks of a config that take part in a test or validation by itself.

    These are all that have a point of it, but for those of ours that only serve a training, which would find none.
    """
    return [name for name, each in run.hooks.items() if each is not None and _takes_part(each, mode)]


def _takes_part(hook: Spec[Hook], mode: str) -> bool:
    # A function tells what it makes only by making it.
    kind = hook.target if isinstance(hook.target, type) else type(hook.build())
    points = [point for point in HOOK_POINTS if point.split("_")[1] == mode]
    own = any(getattr(kind, point, None) not in (None, getattr(Hook, point)) for point in points)
    return own and not issubclass(kind, _OF_TRAINING)


def engine_of(
    run: Run,
    tested: Tested,
    ranks: Communicator,
    work_dir: Path | None = None,
    document: Document | None = None,
) -> Engine:
    """Return an engine that tests: at the step of the weights, and in a work directory with the hooks that take part.

    Args:
        run: The config.
        tested: What is tested.
        ranks: The ranks.
        work_dir: Where pictures, curves and logs go; None: nothing is written, and no hook is attached.
        document: The config that the run comes from.

    Raises:
        ConfigError: The work directory is not empty.
        BuildError: A hook's constructor raised.
    """
    points = getattr(run.loop.target, "hook_points", Hook)
    engine = Engine(
        checkpointer=DiscardedCheckpoints(),  # a hook may ask for one after a validation, as it does in a training
        points=points if isinstance(points, type) and issubclass(points, Hook) else Hook,
    )
    counters = {"step": tested.step, "epoch": tested.epoch, "commits": 0, "attempt": 0, "meters": {}}
    engine.load_state_dict({"engine": counters, "hooks": {}})
    engine.parts["model"] = tested.model
    if isinstance(tested.loss, nn.Module):
        engine.parts["loss"] = tested.loss
    if isinstance(tested.loop, SoleValidation):
        engine.parts["loop"] = tested.loop
    if work_dir is not None:
        on_rank_0(ranks, lambda: _make(work_dir))
        for name, hook in _hooks(run, tested, engine.parts, ranks, work_dir, document).items():
            engine.attach(hook, name)
            if isinstance(hook, VisHook):
                hook.before_train(engine)  # where it starts its backends; nothing trains here
    return engine


def _make(work_dir: Path) -> None:
    if work_dir.is_dir() and any(work_dir.iterdir()):
        raise ConfigError(
            "there are files in this directory, and a test writes over nothing",
            where=str(work_dir),
            mend="name a new one, or an empty one",
        )
    make_work_dir(work_dir)


def _hooks(
    run: Run,
    tested: Tested,
    parts: dict[str, Stateful],
    ranks: Communicator,
    work_dir: Path,
    document: Document | None,
) -> dict[str, Hook]:
    """Return those hooks that take part, and those that write logs and curves."""
    mode: Literal["val", "test"] = "val" if isinstance(tested.loop, SoleValidation) else "test"
    chosen = taking_part(run, mode)
    hooks: dict[str, Spec[Hook] | None] = dict.fromkeys(_DEFAULTS)
    for name, each in run.hooks.items():
        logs = each is not None and isinstance(each.target, type) and issubclass(each.target, LoggerHook)
        hooks[name] = each if name in chosen or logs else None
    kinds = {each.target for each in hooks.values() if each is not None}
    times = run.hooks.get("timer", Spec(TimerHook)) is not None  # who has removed the timer wants no times
    if times and MmengineLoggerHook in kinds and IterTimerHook not in kinds:
        hooks.setdefault("iter_timer", Spec(IterTimerHook))
    named = {name for name in ("logger", "vis") if name not in hooks}
    named |= {name for name, each in hooks.items() if each is not None}
    places = (run.vis or {"jsonlines": Late(JsonLines, awaited=1)}) if ranks.rank == 0 else {}
    vis = {name: each.build(work_dir / name) for name, each in places.items() if each is not None}
    assembly = Assembly(
        model=tested.model,
        device=tested.device,
        parts=parts,
        loop=tested.loop,
        test=None if isinstance(tested.loop, SoleValidation) else tested.loop,
        vis=vis,
        config=recorded(run, document),
    )
    few = msgspec.structs.replace(
        run,
        hooks=hooks,
        priorities={name: each for name, each in run.priorities.items() if name in named},
        averaging=None,
        limits=Limits(),
    )
    return default_hooks(few, assembly, work_dir, ranks)
