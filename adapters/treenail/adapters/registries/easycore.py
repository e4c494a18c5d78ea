"""The registry as easycore speaks of it: names to classes and functions, nothing is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, ParamSpec, overload

from typing_extensions import TypeVar

from treenail.adapters.registries.core import Members, hold, look_up
from treenail.adapters.registries.errors import KindError, UnregisteredError
from treenail.kernel import Registry as Core
from treenail.kernel import RegistryError

T = TypeVar("T", default=Any)  # Any: an unparametrized registry holds whatever is registered, as the original does
P = ParamSpec("P")


class Registry(Generic[T]):
    """Names to classes and functions.

    Args:
        name: Name of the registry, for messages.
        core: The kernel's registry that holds the names; a new one when None.
    """

    def __init__(self, name: str, *, core: Core[T] | None = None) -> None:
        self.name = name
        self.core: Core[T] = Core(name) if core is None else core

    @overload
    def register(self, name: Callable[P, T], /) -> Callable[P, T]: ...
    @overload
    def register(self, name: str | None = None, *, obj: Callable[P, T]) -> Callable[P, T]: ...
    @overload
    def register(self, name: str, obj: Callable[P, T]) -> Callable[P, T]: ...
    @overload
    def register(self, name: str | None = None) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
    def register(
        self, name: Callable[P, T] | str | None = None, obj: Callable[P, T] | None = None
    ) -> Callable[P, T] | Callable[[Callable[P, T]], Callable[P, T]]:
        """Register a class or function: ``@register``, ``@register()``, ``@register("x")``, ``register("x", X)``.

        Args:
            name: Its name; its ``__name__`` when None.
            obj: What to register now; a decorator is returned when None.

        Raises:
            RegisteredTwiceError: The name is taken.
            KindError: It is neither a class nor a function, or the name is no text.
        """
        if obj is None and callable(name):
            return hold(self.core, name)
        if name is not None and not isinstance(name, str):
            raise KindError(f"the name {name!r} is no text", mend="write register('name', object)")
        names = () if name is None else (name,)
        if obj is not None:
            return hold(self.core, obj, *names)
        return lambda target: hold(self.core, target, *names)

    def get(self, name: str) -> Callable[..., T]:
        """Return what is registered under a name.

        Raises:
            UnregisteredError: Nothing is.
        """
        return look_up(self.core, name)

    def unregister(self, name: str) -> None:
        """Forget what is registered under a name.

        Raises:
            UnregisteredError: Nothing is.
        """
        try:
            self.core.unregister(name)
        except RegistryError as error:
            raise UnregisteredError(error.message, where=error.where, mend=error.mend) from None

    def is_registered(self, name: str) -> bool:
        """Return whether a name is registered."""
        return name in Members(self.core)

    def registered_names(self) -> list[str]:
        """Return the registered names, in their order."""
        return list(Members(self.core))

    def __contains__(self, name: object) -> bool:
        return name in Members(self.core)

    def __len__(self) -> int:
        return len(Members(self.core))

    def __repr__(self) -> str:
        return f"Registry(name={self.name}, items={Members(self.core)!r})"
