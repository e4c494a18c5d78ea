"""The scope that builds start from when nothing else is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from treenail.adapters.registries.errors import UnregisteredError
from treenail.kernel import RegistryError


class DefaultScope:
    """The scope of the task under way, by the name of the task.

    Instances belong to the current context (`contextvars`): a new thread begins without any, and what an asyncio task sets
    is its own. The original keeps them for the whole process.

    Args:
        name: Name of the task.
        scope_name: The scope.
    """

    def __init__(self, name: str, scope_name: str) -> None:
        self.name: Final = name
        self.scope_name: Final = scope_name

    @classmethod
    def get_instance(cls, name: str, scope_name: str | None = None) -> DefaultScope:
        """Return the scope of a task; one that is new becomes the current one.

        Args:
            name: Name of the task.
            scope_name: The scope, for a new task.

        Raises:
            UnregisteredError: There is no such task, and no scope to make it with.
            RegistryError: The task has another scope.
        """
        found = next((each for each in _INSTANCES.get() if each.name == name), None)
        if found is None:
            if scope_name is None:
                mend = f"write get_instance({name!r}, scope_name=…) first"
                raise UnregisteredError(f"no default scope is called '{name}' in this context", mend=mend)
            found = cls(name, scope_name)
            _INSTANCES.set((*_INSTANCES.get(), found))
        elif scope_name not in (None, found.scope_name):
            raise RegistryError(
                f"the default scope '{name}' is '{found.scope_name}', not '{scope_name}'", mend="use another name"
            )
        return found

    @classmethod
    def get_current_instance(cls) -> DefaultScope | None:
        """Return the scope made last, None if there is none yet."""
        return next(reversed(_INSTANCES.get()), None)

    @classmethod
    @contextmanager
    def overwrite_default_scope(cls, scope_name: str | None) -> Iterator[None]:
        """Make a scope the current one for the duration of a ``with`` block; None changes nothing."""
        if scope_name is None:
            yield
            return
        temporary = cls(f"overwrite {len(_INSTANCES.get())}", scope_name)
        _INSTANCES.set((*_INSTANCES.get(), temporary))
        try:
            yield
        finally:  # by identity, since the block may have made scopes that stay
            _INSTANCES.set(tuple(each for each in _INSTANCES.get() if each is not temporary))


_INSTANCES: ContextVar[tuple[DefaultScope, ...]] = ContextVar("default scopes", default=())
