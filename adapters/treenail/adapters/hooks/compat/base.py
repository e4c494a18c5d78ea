"""The class that hooks written for mmengine derive from; here they run in an engine of ours."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence, Sized
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from treenail.adapters.hooks.compat.priority import get_priority
from treenail.adapters.hooks.compat.runner import Runner, runner_of
from treenail.contracts import StepOutput
from treenail.kernel import Engine

if TYPE_CHECKING:
    KernelHook: Any  # Any: mypy would hold mmengine's points, with a runner first, against the kernel's, with an engine
else:
    from treenail.kernel import Hook as KernelHook

_MODES: Final = ("train", "val", "test")
_OF_ALL_MODES: Final = ("_before_epoch", "_after_epoch", "_before_iter", "_after_iter")


class Hook(KernelHook):  # type: ignore[misc]  # its points are wrapped, so that the engine can call them
    """A hook with mmengine's points: each gets a `Runner`, a view of the run, in the engine's place.

    A hook written for mmengine needs another import only. Its `priority` may be a name, and what it overrides of
    ``_before_epoch``, ``_after_epoch``, ``_before_iter`` and ``_after_iter`` is called in training, validation and test.
    ``outputs`` of a training step are a dict of tensors: the loss, and what else the step tells.

    References:
        https://mmengine.readthedocs.io/en/latest/api/generated/mmengine.hooks.Hook.html
    """

    priority: Any = 50  # Any: a name is made a number as soon as a class has it
    runner_view: Runner | None = None
    stages: ClassVar[Sequence[str]] = (
        "before_run",
        "after_load_checkpoint",
        "before_train",
        "before_train_epoch",
        "before_train_iter",
        "after_train_iter",
        "after_train_epoch",
        "before_val",
        "before_val_epoch",
        "before_val_iter",
        "after_val_iter",
        "after_val_epoch",
        "after_val",
        "before_save_checkpoint",
        "after_train",
        "before_test",
        "before_test_epoch",
        "before_test_iter",
        "after_test_iter",
        "after_test_epoch",
        "after_test",
        "after_run",
    )

    def __init_subclass__(cls, **keywords: Any) -> None:  # Any: whatever a base class of somebody's takes
        super().__init_subclass__(**keywords)
        if "priority" in vars(cls):
            cls.priority = get_priority(cls.priority)
        for name in _OF_ALL_MODES:
            for mode in _MODES if name in vars(cls) else ():
                point = name[1:].replace("_", f"_{mode}_")
                if point not in vars(cls):
                    setattr(cls, point, _of_mode(name, mode))
        for name, member in list(vars(cls).items()):
            if isinstance(member, FunctionType) and name.startswith(("before_", "after_", "on_")):
                setattr(cls, name, _with_runner(member))

    def __setattr__(self, name: str, value: Any) -> None:  # Any: whatever a hook keeps
        """Make a number of a priority's name."""
        super().__setattr__(name, get_priority(value) if name == "priority" and isinstance(value, str) else value)

    def every_n_epochs(self, runner: Runner, n: int, start: int = 0) -> bool:
        """Return whether the epoch under way is one of every n, counted from `start`; never where n is not positive."""
        return _is_nth(runner.epoch + 1 - start, n)

    def every_n_inner_iters(self, batch_idx: int, n: int) -> bool:
        """Return whether the iteration under way is one of every n of its epoch; never where n is not positive."""
        return _is_nth(batch_idx + 1, n)

    def every_n_train_iters(self, runner: Runner, n: int, start: int = 0) -> bool:
        """Return whether the training iteration under way is one of every n of the run; never where n is not positive."""
        return _is_nth(runner.iter + 1 - start, n)

    def end_of_epoch(self, dataloader: Sized, batch_idx: int) -> bool:
        """Return whether the iteration under way is its epoch's last one."""
        return batch_idx + 1 == len(dataloader)

    def is_last_train_epoch(self, runner: Runner) -> bool:
        """Return whether the epoch under way is the last one."""
        return runner.epoch + 1 == runner.max_epochs

    def is_last_train_iter(self, runner: Runner) -> bool:
        """Return whether the training iteration under way is the last one."""
        return runner.iter + 1 == runner.max_iters

    def get_triggered_stages(self) -> list[str]:
        """Return the names of the points that this hook takes part in."""
        return [stage for stage in self.stages if getattr(type(self), stage) is not getattr(KernelHook, stage)]


def _is_nth(number: int, n: int) -> bool:
    return n > 0 and number >= 0 and number % n == 0


def _of_mode(name: str, mode: str) -> Callable[..., None]:
    """Return a point that calls what a hook has for all modes."""

    def call(self: Hook, runner: Runner, *rest: object) -> None:
        getattr(self, name)(runner, *(rest if name.endswith("iter") else ()), mode=mode)

    return call


def _with_runner(method: FunctionType) -> FunctionType | Callable[..., object]:
    """Return a point that takes an engine, too; what the kernel refuses is left as it is."""
    if inspect.iscoroutinefunction(method) or inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        return method

    @functools.wraps(method)
    def call(self: Hook, first: object, *rest: object, **keywords: object) -> object:
        if not isinstance(first, Engine):  # a subclass calls super()
            return method(self, first, *rest, **keywords)
        runner = runner_of(first, self)
        if rest and isinstance(rest[-1], StepOutput):
            rest = (*rest[:-1], runner.outputs_of(rest[-1]))
        return method(self, runner, *rest)

    return call
