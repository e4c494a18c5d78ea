"""Hooks, loops and a checkpointer that tell what happens to them, for the laws of an engine."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from treenail.kernel import HOOK_POINTS, Engine, Hook

T = TypeVar("T")

Listener = Callable[[str, tuple[object, ...]], None]


def ignore(_point: str, _arguments: tuple[object, ...]) -> None:
    pass


def told_hook(points: Iterable[str], listener: Listener = ignore, **attributes: object) -> Hook:
    """Return a hook that tells every firing of `points` to `listener`; `attributes` are those of its class."""

    def method(point: str) -> Callable[..., None]:
        def told(_self: Hook, /, *arguments: object) -> None:
            listener(point, arguments)

        return told

    made: Hook = type("Told", (Hook,), {point: method(point) for point in points} | attributes)()
    return made


def fire(engine: Engine, point: str, *arguments: object) -> None:
    firing: Callable[..., None] | None = getattr(engine.points, point)
    assert firing is not None, f"points.{point} is None although a hook overrides it"
    firing(*arguments)


def arguments_of(engine: Engine, point: str) -> tuple[object, ...]:
    """Return what a loop would pass: the engine, and objects of their own."""
    count = len(inspect.signature(getattr(Hook, point)).parameters) - 2  # without self and the engine
    return engine, *(object() for _ in range(count))


def noting(heard: list[T], value: T) -> Listener:
    """Return a listener that adds a value to a list."""

    def note(_point: str, _arguments: tuple[object, ...]) -> None:
        heard.append(value)

    return note


class Saved(NamedTuple):
    """What a checkpointer was given."""

    step: int
    epoch: int
    reason: str
    pointers: tuple[str, ...]
    checkpoint: dict[str, object]


class Saves:
    """A checkpointer that remembers."""

    def __init__(self) -> None:
        self.saved: list[Saved] = []

    def save(
        self, checkpoint: Mapping[str, object], *, step: int, epoch: int, reason: str, pointers: Sequence[str]
    ) -> str:
        """Remember a checkpoint."""
        self.saved.append(Saved(step, epoch, reason, tuple(pointers), dict(checkpoint)))
        return "memory"


class Counter(Hook):
    """A stateful hook."""

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def before_run(self, _engine: Engine, /) -> None:
        self.count += 1

    def state_dict(self) -> dict[str, object]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        self.count = int(str(state_dict["count"]))


class Work:
    """A loop that does one thing."""

    def __init__(self, work: Callable[[Engine], None]) -> None:
        self.run = work

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, _state: Mapping[str, object], /) -> None:
        pass


def bound_points(engine: Engine) -> set[str]:
    """Return the points that are not None."""
    return {point for point in HOOK_POINTS if getattr(engine.points, point) is not None}
