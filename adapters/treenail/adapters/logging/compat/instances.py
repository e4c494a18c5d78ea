"""Objects that code finds by name, without handing them on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Generic, TypeVar

from treenail.adapters.logging.compat.errors import ConflictError

T = TypeVar("T")


class Instances(Generic[T]):
    """Instances by name, in the order in which they were made, of the current context (`contextvars`).

    mmengine keeps them for the whole process, in dicts of its classes. In a context they are just as easy to reach from
    anywhere in a run, but two runs in two threads or asyncio tasks have their own, and a test leaves nothing behind when
    it runs in a copy of the context. A new thread begins without any; give it a `contextvars.copy_context()` to share them.

    Args:
        what: What they are, for messages.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._held: ContextVar[Mapping[str, T]] = ContextVar(what)

    def get(self, name: str) -> T | None:
        """Return the instance of a name, None if there is none."""
        return self._held.get({}).get(name)

    def latest(self) -> T | None:
        """Return the instance made last, None if there is none."""
        return next(reversed(list(self._held.get({}).values())), None)

    def get_or_make(self, name: str, make: Callable[..., T], arguments: Mapping[str, object]) -> T:
        """Return the instance of a name; make it if it is new.

        Args:
            name: Its name.
            make: Takes the name and the arguments.
            arguments: How to make it; an instance that is there takes none.

        Raises:
            ConflictError: There are arguments for an instance that is there already; also an AssertionError.
        """
        found = self.get(name)
        if found is None:
            found = make(name, **arguments)
            self._held.set({**self._held.get({}), name: found})
        elif arguments:
            raise ConflictError(
                f"the {self._what} '{name}' is there already and takes no {', '.join(arguments)} any more",
                mend=f"get it by get_instance({name!r}) alone, or choose another name",
            )
        return found

    def drop(self, name: str) -> None:
        """Forget the instance of a name, if there is one.

        Args:
            name: Its name.
        """
        self._held.set({other: each for other, each in self._held.get({}).items() if other != name})
