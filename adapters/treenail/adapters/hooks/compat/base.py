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
    ``outputs`` of a training step are a dict of tensors: the loss, and what else the step tells. ``metrics`` have no ``val/`` or
    ``test/`` before their names; what a hook adds to them, hooks after it see. A point's parameters may stand in any order, or be
    ``**kwargs``, if they have mmengine's names.

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
            method = vars(cls).get(name)
            for mode in _MODES:
                point = name[1:].replace("_", f"_{mode}_")
                if isinstance(method, FunctionType) and point not in vars(cls):
                    setattr(cls, point, _of_mode(name, mode, method))
        for name, member in list(vars(cls).items()):
            if isinstance(member, FunctionType) and name.startswith(("before_", "after_", "on_")):
                setattr(cls, name, _with_runner(member, name))

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


def _names_at(point: str) -> tuple[str, ...]:
    """Return how mmengine's loops name what they pass at a point after the runner; nothing of a point of one's own."""
    if point in ("after_val_epoch", "after_test_epoch"):
        return ("metrics",)
    if point in ("before_save_checkpoint", "after_load_checkpoint"):
        return ("checkpoint",)
    if point.removeprefix("before_").removeprefix("after_") not in {f"{mode}_iter" for mode in _MODES}:
        return ()
    return ("batch_idx", "data_batch", "outputs") if point.startswith("after") else ("batch_idx", "data_batch")


def _by_name(method: FunctionType, names: tuple[str, ...], *others: str) -> bool:
    """Return whether a method takes what is passed by its names alone: in another order, or as ``**kwargs``."""
    code = method.__code__
    if code.co_varnames[2 : code.co_argcount][: len(names)] == names:
        return False
    try:
        inspect.signature(method).bind(None, None, **dict.fromkeys([*names, *others]))
    except TypeError:
        return False
    return True


def _of_mode(name: str, mode: str, method: FunctionType) -> Callable[..., None]:
    """Return a point that calls what a hook has for all modes."""
    names = _names_at(name[1:].replace("_", f"_{mode}_")) if name.endswith("iter") else ()
    by_name = _by_name(method, names, "mode")

    def call(self: Hook, runner: Runner, *rest: object) -> None:
        if by_name:
            getattr(self, name)(runner, **dict(zip(names, rest, strict=True)), mode=mode)
        else:
            getattr(self, name)(runner, *rest[: len(names)], mode=mode)

    return call


def _with_runner(method: FunctionType, point: str) -> FunctionType | Callable[..., object]:
    """Return a point that takes an engine, too; what the kernel refuses is left as it is."""
    if inspect.iscoroutinefunction(method) or inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        return method
    names = _names_at(point)
    by_name = _by_name(method, names)

    @functools.wraps(method)
    def call(self: Hook, first: object, *rest: object, **keywords: object) -> object:
        if not isinstance(first, Engine):  # a subclass calls super()
            return method(self, first, *rest, **keywords)
        runner = runner_of(first, self)
        if rest and isinstance(rest[-1], StepOutput):
            rest = (*rest[:-1], runner.outputs_of(rest[-1]))
        if names != ("metrics",):
            return (
                method(self, runner, **dict(zip(names, rest, strict=True))) if by_name else method(self, runner, *rest)
            )
        whole: Any = rest[0]  # Any: the kernel's signature says it
        prefix = f"{point.split('_')[1]}/"
        metrics = {name.removeprefix(prefix): value for name, value in whole.items()}
        result = method(self, runner, metrics=metrics) if by_name else method(self, runner, metrics)
        known = {name.removeprefix(prefix): name for name in whole}
        whole.update({known.get(name, f"{prefix}{name}"): value for name, value in metrics.items()})
        return result

    if by_name:  # the kernel checks that a point takes what the engine passes by position
        parameters = [inspect.Parameter(each, inspect.Parameter.POSITIONAL_ONLY) for each in ("self", "runner", *names)]
        vars(call)["__signature__"] = inspect.Signature(parameters)
    return call
