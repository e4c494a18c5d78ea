"""Hook points, the check that a hook means what its author meant, and the order of hooks.

The 22 points and their order are those of MMEngine's hook design; `on_exception` is ours. Hook points are the methods of
`Hook`: their signatures here are the only definition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from types import FunctionType
from typing import TYPE_CHECKING, NamedTuple

from treenail.kernel.errors import HookError, did_you_mean

if TYPE_CHECKING:
    from treenail.kernel.engine import Engine


class Hook:
    """Any subset of the hook points; subclass it and override those you need (mark them `@override` for mypy).

    Attributes:
        priority: Smaller runs first, at every point; ties run in order of attachment.
        before: Names of hooks that must run after this one, when they are attached.
        after: Names of hooks that must run before this one, when they are attached.
        idle: Points that it overrides but has nothing to do at, known by the end of `before_run`: they cost nothing.

    A hook that also has `state_dict` and `load_state_dict` is saved in every checkpoint. A hook never saves or stops by
    itself: it calls `engine.request_checkpoint` or `engine.request_stop`, carried out at the next commit.
    """

    priority: int = 50
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()

    def before_run(self, engine: Engine, /) -> None:
        """Once, before everything; a checkpoint has not been loaded yet."""

    def after_run(self, engine: Engine, /) -> None:
        """Once, after everything went well."""

    def before_train(self, engine: Engine, /) -> None:
        """Before the first training step of this process; a checkpoint has been loaded if there was one."""

    def after_train(self, engine: Engine, /) -> None:
        """After the last training step of this process, also when the run was asked to stop."""

    def before_train_epoch(self, engine: Engine, /) -> None:
        """Before the first step of an epoch, or the first one after a resume inside it."""

    def after_train_epoch(self, engine: Engine, /) -> None:
        """After the last step of an epoch, before its validation."""

    def before_train_iter(self, engine: Engine, batch_index: int, batch: object, /) -> None:
        """Before a training step."""

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object, /) -> None:
        """After a training step, before it is committed; `outputs` is what the step returned."""

    def before_val(self, engine: Engine, /) -> None:
        """Before a validation."""

    def after_val(self, engine: Engine, /) -> None:
        """After a validation."""

    def before_val_epoch(self, engine: Engine, /) -> None:
        """Before the pass over the validation data."""

    def after_val_epoch(self, engine: Engine, metrics: dict[str, float], /) -> None:
        """After the pass over the validation data; `metrics` by name, as ``"val/accuracy"``."""

    def before_val_iter(self, engine: Engine, batch_index: int, batch: object, /) -> None:
        """Before a validation step."""

    def after_val_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object, /) -> None:
        """After a validation step; `outputs` is what the model returned."""

    def before_test(self, engine: Engine, /) -> None:
        """Before a test."""

    def after_test(self, engine: Engine, /) -> None:
        """After a test."""

    def before_test_epoch(self, engine: Engine, /) -> None:
        """Before the pass over the test data."""

    def after_test_epoch(self, engine: Engine, metrics: dict[str, float], /) -> None:
        """After the pass over the test data; `metrics` by name, as ``"test/accuracy"``."""

    def before_test_iter(self, engine: Engine, batch_index: int, batch: object, /) -> None:
        """Before a test step."""

    def after_test_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object, /) -> None:
        """After a test step; `outputs` is what the model returned."""

    def before_save_checkpoint(self, engine: Engine, checkpoint: dict[str, object], /) -> None:
        """Before a checkpoint is written; the state tree may be changed."""

    def after_load_checkpoint(self, engine: Engine, checkpoint: dict[str, object], /) -> None:
        """After a checkpoint was read and before the parts take their states; the state tree may be changed."""

    def on_exception(self, engine: Engine, error: BaseException, /) -> None:
        """When the run ends by an exception; every hook is told, and the exception goes on."""


def points_of(kind: type[Hook]) -> tuple[str, ...]:
    """Return the hook points of a class, those of `Hook` first: its methods ``before_…``, ``after_…`` and ``on_…``."""
    members = {name: value for each in reversed(kind.__mro__) for name, value in vars(each).items()}
    return tuple(name for name, value in members.items() if isinstance(value, FunctionType) and _POINT.match(name))


_POINT = re.compile("before_|after_|on_")
HOOK_POINTS: tuple[str, ...] = points_of(Hook)


class Attached(NamedTuple):
    """A hook under its name, with the points it takes part in (in their order)."""

    name: str
    hook: object
    handlers: dict[str, Callable[..., None]]

    @property
    def priority(self) -> int:
        """The hook's priority; 50 where it declares none."""
        priority = getattr(self.hook, "priority", Hook.priority)
        if not isinstance(priority, int):
            raise HookError(f"priority is {priority!r}, not an integer", where=f"hook '{self.name}'")
        return priority


def inspect_hook(name: str, hook: object, kind: type[Hook] = Hook) -> Attached:
    """Find those points of a class that a hook takes part in.

    Raises:
        HookError: A method's name is nearly a point's (or begins like one), a point's signature cannot take what the
            engine passes, or the object has no point at all.
    """
    from difflib import get_close_matches

    where = f"hook '{name}' ({type(hook).__qualname__})"
    if isinstance(hook, type):
        raise HookError("it is a class, not a hook", where=f"hook '{name}'", mend=f"attach {hook.__qualname__}(…)")
    for attribute in ("before", "after"):
        names = getattr(hook, attribute, ())
        if not isinstance(names, tuple | list) or not all(isinstance(each, str) for each in names):
            raise HookError(f"{attribute} is {names!r}, not names", where=where, mend=f'write {attribute} = ("other",)')
    handlers: dict[str, Callable[..., None]] = {}
    points = points_of(kind)
    empty = {value for each in kind.__mro__ for value in vars(each).values() if isinstance(value, FunctionType)}
    for point in points:
        handler = getattr(hook, point, None)
        if handler is not None and getattr(handler, "__func__", None) not in empty:
            handlers[point] = _check_signature(handler, point, where, kind)
    for method in dir(hook):
        if method.startswith("_") or hasattr(kind, method) or not callable(getattr(hook, method, None)):
            continue
        flat = [point.replace("_", "") for point in points]
        if _POINT.match(method) or get_close_matches(method.replace("_", "").lower(), flat, n=1, cutoff=0.85):
            mend = did_you_mean(method, points) or f"the points are {', '.join(points)}"
            raise HookError(
                f"'{method}' is not a hook point, it would never be called",
                where=where,
                mend=f"{mend} (a helper's name begins with an underscore)",
            )
    if not handlers:
        raise HookError("it has none of the hook points", where=where, mend="override at least one method of Hook")
    return Attached(name, hook, handlers)


def _check_signature(handler: object, point: str, where: str, kind: type[Hook]) -> Callable[..., None]:
    import inspect

    code = getattr(kind, point).__code__
    parameters = code.co_varnames[1 : code.co_argcount]
    expected = f"{point}({', '.join(parameters)})"
    if not callable(handler):
        raise HookError(f"'{point}' is not a method", where=where, mend=f"define {expected}")
    if any(
        test(handler) for test in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    ):
        raise HookError(
            f"'{point}' is async or a generator, it would never run", where=where, mend=f"define {expected}"
        )
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):  # a handler written in C publishes no signature
        return handler
    try:
        signature.bind(*parameters)
    except TypeError:
        raise HookError(
            f"'{point}{signature}' cannot take what the engine passes",
            where=where,
            mend=f"its parameters are {expected}, passed by position",
        ) from None
    return handler


def order_hooks(attached: Sequence[Attached]) -> list[Attached]:
    """Sort by the declared `before` and `after`, then by priority, then by attachment (Kahn's algorithm with a heap).

    Raises:
        HookError: The declarations contradict each other; the cycle is named.
    """
    position = {each.name: index for index, each in enumerate(attached)}
    followers: list[set[int]] = [set() for _ in attached]
    for index, each in enumerate(attached):
        for attribute in ("before", "after"):
            for name in getattr(each.hook, attribute, ()):
                other = position.get(name)
                if other is None:  # not attached, or not yet
                    continue
                if attribute == "before":
                    followers[index].add(other)
                else:
                    followers[other].add(index)
    waiting = [sum(index in later for later in followers) for index in range(len(attached))]
    ready = [(attached[index].priority, index) for index, count in enumerate(waiting) if count == 0]
    heapify(ready)
    ordered: list[Attached] = []
    while ready:
        _, index = heappop(ready)
        ordered.append(attached[index])
        for follower in followers[index]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                heappush(ready, (attached[follower].priority, follower))
    if len(ordered) < len(attached):
        cycle = " → ".join(_find_cycle(attached, followers))
        raise HookError(
            f"the declared order of hooks is a cycle: {cycle}", mend="drop one `before` or `after` of these"
        )
    return ordered


def check_constraints(attached: Sequence[Attached]) -> None:
    """Refuse a `before` or `after` that names no attached hook, but nearly one: that is a misspelling.

    Raises:
        HookError: There is such a name.
    """
    names = [each.name for each in attached]
    for each in attached:
        for attribute in ("before", "after"):
            for name in getattr(each.hook, attribute, ()):
                if name not in names and (mend := did_you_mean(name, names, cutoff=0.8)):
                    raise HookError(
                        f"{attribute} names '{name}', which is not attached", where=f"hook '{each.name}'", mend=mend
                    )


def _find_cycle(attached: Sequence[Attached], followers: Sequence[set[int]]) -> list[str]:
    def walk(path: list[int]) -> list[int] | None:
        for follower in followers[path[-1]]:
            if follower in path:
                return [*path[path.index(follower) :], follower]
            if found := walk([*path, follower]):
                return found
        return None

    for start in range(len(attached)):
        if found := walk([start]):
            return [attached[index].name for index in found]
    raise AssertionError("order_hooks left hooks over without a cycle")
