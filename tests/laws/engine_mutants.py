"""Engines, each wrong in one way."""

import copy
from collections.abc import Callable, Mapping

from treenail.kernel import HOOK_POINTS, Checkpointer, Engine, Hook, HookError, Loop, Points, Stateful, TrainingError
from treenail.kernel.hooks import Attached, inspect_hook, order_hooks


class Sorted(Engine):
    """Orders hooks by `key` after the engine did; a base of mutants."""

    def attach(self, hook: object, name: str | None = None) -> None:
        super().attach(hook, name)
        self._ordered = self.sort(self._ordered)
        self.points.compile(self._ordered)

    def sort(self, ordered: list[Attached]) -> list[Attached]:
        return ordered


class IgnoresPriorities(Sorted):
    def sort(self, ordered: list[Attached]) -> list[Attached]:
        return list(self._attached)


class RunsLargePrioritiesFirst(Sorted):
    def sort(self, ordered: list[Attached]) -> list[Attached]:
        return sorted(ordered, key=lambda each: -each.priority)


class RunsTheLastAttachedFirst(Sorted):
    def sort(self, ordered: list[Attached]) -> list[Attached]:
        newest_first = list(reversed(self._attached))
        return sorted(newest_first, key=lambda each: each.priority)


class IgnoresConstraints(Sorted):
    def sort(self, ordered: list[Attached]) -> list[Attached]:
        return sorted(self._attached, key=lambda each: each.priority)


class ListsInOrderOfAttachment(Engine):
    @property
    def hooks(self) -> dict[str, object]:
        return {each.name: each.hook for each in self._attached}


class WantsEveryName(Engine):
    def attach(self, hook: object, name: str | None = None) -> None:
        for other in (*getattr(hook, "before", ()), *getattr(hook, "after", ())):
            if other not in self.hooks:
                raise HookError(f"'{other}' is not attached")
        super().attach(hook, name)


class IgnoresCycles(Engine):
    def attach(self, hook: object, name: str | None = None) -> None:
        try:
            super().attach(hook, name)
        except HookError as error:
            if "cycle" not in error.message:
                raise


class DoesNotNameTheCycle(Engine):
    def attach(self, hook: object, name: str | None = None) -> None:
        try:
            super().attach(hook, name)
        except HookError as error:
            raise HookError("the order is a cycle" if "cycle" in error.message else str(error)) from error


class AttachesBeforeItChecks(Engine):
    """Order is looked at after the hook is in."""

    def attach(self, hook: object, name: str | None = None) -> None:
        attached = inspect_hook(name or type(hook).__qualname__, hook)
        self._attached.append(attached)
        self._ordered = [*self._ordered, attached]
        self._ordered = order_hooks(self._attached)
        self.points.compile(self._ordered)


class Unchecked(Engine):
    """Takes methods as they come, as most frameworks do."""

    def attach(self, hook: object, name: str | None = None) -> None:
        name = name or type(hook).__qualname__
        handlers = {
            point: getattr(hook, point)
            for point in HOOK_POINTS
            if hasattr(hook, point) and getattr(type(hook), point, None) is not getattr(Hook, point)
        }
        self._attached.append(Attached(name, hook, handlers))
        self._ordered = order_hooks(self._attached)
        self.points.compile(self._ordered)


class GivesNoHint(Engine):
    def attach(self, hook: object, name: str | None = None) -> None:
        try:
            super().attach(hook, name)
        except HookError as error:
            raise HookError(error.message) from error


class ReplacesHooks(Engine):
    def attach(self, hook: object, name: str | None = None) -> None:
        name = name or type(hook).__qualname__
        self._attached = [each for each in self._attached if each.name != name]
        super().attach(hook, name)


class WantsItsBaseClass(Engine):
    def attach(self, hook: object, name: str | None = None) -> None:
        if not isinstance(hook, Hook):
            raise HookError(f"a {type(hook).__qualname__} is no Hook")
        super().attach(hook, name)


class EndsAtADefect(Engine):
    def fail(self, error: Exception) -> None:
        raise error


class ForgetsDefects(Engine):
    def fail(self, error: Exception) -> None:
        self.request_stop("\n".join(error.__notes__))


class GoesOnAfterADefect(Engine):
    def fail(self, error: Exception) -> None:
        super().fail(error)
        self.stop_reason = None


class Rewired(Points):
    """Puts `wire` around what fires each point; a base of mutants."""

    __slots__ = ()

    def compile(self, ordered: tuple[Attached, ...] | list[Attached]) -> None:
        super().compile(ordered)
        for point in HOOK_POINTS:
            setattr(self, point, self.wire(point, getattr(self, point)))

    def wire(self, point: str, fire: Callable[..., None] | None) -> Callable[..., None] | None:
        raise NotImplementedError


class _AlwaysBound(Rewired):
    __slots__ = ()

    def wire(self, point: str, fire: Callable[..., None] | None) -> Callable[..., None] | None:
        return fire or (lambda *_arguments: None)


class _Twice(Rewired):
    __slots__ = ()

    def wire(self, point: str, fire: Callable[..., None] | None) -> Callable[..., None] | None:
        def twice(*arguments: object) -> None:
            if fire is not None:
                fire(*arguments)
                fire(*arguments)

        return fire and twice


class _Copies(Rewired):
    __slots__ = ()

    def wire(self, point: str, fire: Callable[..., None] | None) -> Callable[..., None] | None:
        def with_copies(engine: object, *arguments: object) -> None:
            if fire is not None:
                fire(engine, *map(copy.copy, arguments), *[object()][len(arguments) :])

        return fire and with_copies


class _Swallows(Rewired):
    __slots__ = ()

    def wire(self, point: str, fire: Callable[..., None] | None) -> Callable[..., None] | None:
        def swallow(*arguments: object) -> None:
            try:
                if fire is not None:
                    fire(*arguments)
            except TrainingError:
                return

        return fire and swallow


class _Anonymous(Rewired):
    __slots__ = ()

    def wire(self, point: str, fire: Callable[..., None] | None) -> Callable[..., None] | None:
        def forget(*arguments: object) -> None:
            try:
                if fire is not None:
                    fire(*arguments)
            except TrainingError as error:
                error.__notes__ = []
                raise

        return fire and forget


class _Wraps(Rewired):
    __slots__ = ()

    def wire(self, point: str, fire: Callable[..., None] | None) -> Callable[..., None] | None:
        def wrap(*arguments: object) -> None:
            try:
                if fire is not None:
                    fire(*arguments)
            except TrainingError as error:
                raise ValueError(f"a hook failed at {point}: {error}") from error

        return fire and wrap


class _StopsTelling(Points):
    __slots__ = ()

    def compile(self, ordered: tuple[Attached, ...] | list[Attached]) -> None:
        super().compile(ordered)
        handlers = [each.handlers["on_exception"] for each in ordered if "on_exception" in each.handlers]

        def tell(engine: Engine, error: BaseException) -> None:
            try:
                for handler in handlers:
                    handler(engine, error)
            except RuntimeError:
                return

        self.on_exception = tell if handlers else None


def _with_points(points: type[Points]) -> type[Engine]:
    class Mutant(Engine):
        def __init__(
            self, parts: Mapping[str, Stateful] | None = None, *, checkpointer: Checkpointer | None = None
        ) -> None:
            super().__init__(parts, checkpointer=checkpointer)
            self.points = points()

    Mutant.__name__ = points.__name__.lstrip("_")
    return Mutant


BindsEveryPoint = _with_points(_AlwaysBound)
FiresTwice = _with_points(_Twice)
FiresCopies = _with_points(_Copies)
SwallowsExceptions = _with_points(_Swallows)
NamesNobody = _with_points(_Anonymous)
WrapsExceptions = _with_points(_Wraps)
StopsTellingAtAFailure = _with_points(_StopsTelling)


class TellsOrdinaryErrorsOnly(Engine):
    """Ctrl-C reaches no hook."""

    def run(self, *loops: Loop, resume: dict[str, object] | None = None) -> None:
        tell = self.points.on_exception
        self.points.on_exception = None
        try:
            super().run(*loops, resume=resume)
        except Exception as error:
            if tell is not None:
                tell(self, error)
            raise
        finally:
            self.points.on_exception = tell
