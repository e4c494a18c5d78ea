"""The registry as helios speaks of it: ``@REGISTRY.register``, and `create` by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, KeysView
from typing import Any, Generic, ParamSpec, overload

from typing_extensions import TypeVar

from treenail.adapters.registries.core import Members, construct, hold, look_up
from treenail.kernel import Registry as Core

T = TypeVar("T", default=Any)  # Any: an unparametrized registry holds whatever is registered, as the original does
P = ParamSpec("P")


class Registry(Generic[T]):
    """Names to classes and functions, and what they make.

    Args:
        name: Name of the registry, for messages.
        core: The kernel's registry that holds the names; a new one when None.
    """

    def __init__(self, name: str, *, core: Core[T] | None = None) -> None:
        self.name = name
        self.core: Core[T] = Core(name) if core is None else core

    @overload
    def register(self, target: Callable[P, T], /) -> Callable[P, T]: ...
    @overload
    def register(self, target: None = None, /) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
    def register(
        self, target: Callable[P, T] | None = None, /
    ) -> Callable[P, T] | Callable[[Callable[P, T]], Callable[P, T]]:
        """Register a class or function under its ``__name__``: ``@register``, ``@register()`` or ``register(Mine)``.

        Args:
            target: What to register now; a decorator is returned when None.

        Raises:
            RegisteredTwiceError: The name is taken.
            KindError: It is neither a class nor a function.
        """
        if target is not None:
            return hold(self.core, target)
        return lambda later: hold(self.core, later)

    def get(self, name: str) -> Callable[..., T]:
        """Return what is registered under a name.

        Raises:
            UnregisteredError: Nothing is.
        """
        return look_up(self.core, name)

    def create(self, type_name: str, *args: object, **kwargs: object) -> T:
        """Make what a name stands for.

        Args:
            type_name: The registered name.
            args: Positional arguments for it.
            kwargs: Keyword arguments for it.

        Raises:
            UnregisteredError: Nothing is registered under the name.
            SpecError: The signature does not take these arguments; nothing was called.
            BuildError: The call raised; its own exception is the cause.
        """
        return construct(look_up(self.core, type_name), args, kwargs)

    def keys(self) -> KeysView[str]:
        """Return the registered names, in their order."""
        return Members(self.core).keys()

    def __contains__(self, name: object) -> bool:
        return name in Members(self.core)

    def __iter__(self) -> Iterator[tuple[str, Callable[..., T]]]:
        """Yield (name, class or function) in the order of registration."""
        return iter(Members(self.core).items())

    def __len__(self) -> int:
        return len(Members(self.core))

    def __repr__(self) -> str:
        return f"Registry(name={self.name}, items={Members(self.core)!r})"
