"""Lazily built components: a callable and its arguments, checked before anything is built.

``spec(Mlp)(width=128)`` describes ``Mlp(width=128)``; ``late(AdamW)(lr=1e-3)`` describes ``AdamW(<later>, lr=1e-3)``;
``partial(cross_entropy)(label_smoothing=0.1)`` describes a function of two arguments. ParamSpec and Concatenate
(PEP 612) let mypy check the arguments where they are written; the same check runs again when the line is executed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Concatenate, Final, Generic, ParamSpec, Self, TypeVar

from treenail.kernel.errors import BuildError, SpecError, TreenailError, did_you_mean

if TYPE_CHECKING:
    from inspect import Signature

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
A = TypeVar("A")
B = TypeVar("B")
A_contra = TypeVar("A_contra", contravariant=True)
P = ParamSpec("P")


_SECRET = re.compile(r"(.*_)?(token|password|passphrase|secret|credentials?|(api|access|account)_key)|headers|options")
_USER = re.compile(r"://[^/\s'\"]*@")


class Awaited:
    """Stands among a component's arguments, nested ones too, for what the `Late` around it gets when it is built."""

    def __reduce__(self) -> str:
        return "AWAITED"  # copied and unpickled it is the same object

    def __repr__(self) -> str:
        return "…"


AWAITED: Final = Awaited()


class Component(Generic[T_co]):
    """What `Spec` and `Late` share: a target, its arguments, and their check against its signature.

    Args:
        target: The class or function to call.
        args: Positional arguments; a nested Component is built when this one is.
        kwargs: Keyword arguments, likewise.
        awaited: How many leading positional arguments `build` receives.
        where: Where the component was written (``file:line:column: path``), for messages.

    Raises:
        SpecError: The signature of ``target`` does not take these arguments.
    """

    __slots__ = ("args", "awaited", "kwargs", "target", "where")

    def __init__(
        self,
        target: Callable[..., T_co],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
        *,
        awaited: int = 0,
        where: str | None = None,
    ) -> None:
        self.target: Final = target
        self.args: Final = args
        self.kwargs: Final[Mapping[str, object]] = dict(kwargs or {})
        self.awaited: Final = awaited
        self.where: Final = where
        self._check()

    def _check(self) -> None:
        if missing := getattr(self.target, "__abstractmethods__", None):
            mend = f"write {', '.join(sorted(missing))}"
            raise SpecError(f"{name_of(self.target)} lacks methods of its port", where=self.where, mend=mend)
        signature = signature_of(self.target)
        if signature is None:
            return
        unknown = [name for name in self.kwargs if name not in signature.parameters]
        if unknown and not any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values()):
            mend = did_you_mean(unknown[0], signature.parameters) or f"its signature is {signature}"
            raise SpecError(f"{name_of(self.target)} takes no '{unknown[0]}'", where=self.where, mend=mend)
        try:
            signature.bind(*(None,) * self.awaited, *self.args, **self.kwargs)
        except TypeError as error:
            mend = f"its signature is {signature}"
            raise SpecError(f"{name_of(self.target)}: {error}", where=self.where, mend=mend) from None

    def _call(self, received: object = AWAITED) -> T_co:
        args = tuple(build_tree(argument, received) for argument in self.args)
        kwargs = {name: build_tree(argument, received) for name, argument in self.kwargs.items()}
        try:
            return self.target(*(received,) * self.awaited, *args, **kwargs)
        except TreenailError:
            raise
        except Exception as error:
            raise BuildError(
                f"{name_of(self.target)} could not be built: {type(error).__name__}: {error}",
                where=self.where,
            ) from error

    def filled(self, **available: object) -> Self:
        """Return this component with those of the ``available`` arguments that its target takes and that were not written."""
        signature = signature_of(self.target)
        if signature is None:
            return self
        free = list(signature.parameters)[self.awaited + len(self.args) :]
        added = {name: value for name, value in available.items() if name in free and name not in self.kwargs}
        return type(self)(self.target, self.args, {**self.kwargs, **added}, awaited=self.awaited, where=self.where)

    def __repr__(self) -> str:
        written = ["…"] * self.awaited + [repr(argument) for argument in self.args]
        written += [f"{name}={_shown(name, value)}" for name, value in self.kwargs.items()]
        return f"{type(self).__name__}({name_of(self.target)}({', '.join(written)}))"

    def __eq__(self, other: object) -> bool:
        return (
            type(other) is type(self)
            and isinstance(other, Component)
            and (self.target, self.args, self.kwargs, self.awaited)
            == (other.target, other.args, other.kwargs, other.awaited)
        )

    __hash__ = None  # type: ignore[assignment]  # arguments may be unhashable; unhashability is declared this way


class Spec(Component[T_co]):
    """A component whose arguments are all known; made by `spec` or from a config."""

    __slots__ = ()

    def build(self) -> T_co:
        """Call the target, nested components first.

        Raises:
            BuildError: The target raised; its own exception is the cause.
        """
        return self._call()


class Late(Component[T_co], Generic[A_contra, T_co]):
    """A component that gets its first argument when it is built; made by `late` or from a config."""

    __slots__ = ()

    def build(self, first: A_contra) -> T_co:
        """Call the target with ``first`` before the arguments written, nested components built first.

        Where `AWAITED` stands among the arguments, there ``first`` goes too.

        Raises:
            BuildError: The target raised; its own exception is the cause.
        """
        return self._call(first)


def _shown(name: str, value: object) -> str:
    """Return an argument's repr, which ends in logs and errors, without what may open a store."""
    return "***" if value is not None and _SECRET.fullmatch(name) else _USER.sub("://***@", repr(value))


def spec(target: Callable[P, T]) -> Callable[P, Spec[T]]:
    """Describe a call of ``target`` without making it: ``spec(Mlp)(width=128)``."""

    def describe(*args: P.args, **kwargs: P.kwargs) -> Spec[T]:
        return Spec(target, args, kwargs)

    return describe


def late(target: Callable[Concatenate[A, P], T]) -> Callable[P, Late[A, T]]:
    """Describe a call whose first argument comes later: ``late(torch.optim.AdamW)(lr=1e-3)``."""

    def describe(*args: P.args, **kwargs: P.kwargs) -> Late[A, T]:
        return Late(target, args, kwargs, awaited=1)

    return describe


def partial(target: Callable[Concatenate[A, B, P], T]) -> Callable[P, Spec[Callable[[A, B], T]]]:
    """Describe a function of two arguments whose other arguments are fixed: ``partial(cross_entropy)(reduction="sum")``."""

    def describe(*args: P.args, **kwargs: P.kwargs) -> Spec[Callable[[A, B], T]]:
        Component(target, args, kwargs, awaited=2)  # refuses a wrong argument here, not at the first call
        if args:
            raise SpecError(f"{name_of(target)}: partial() takes keyword arguments only", mend="write name=value")
        return Spec(functools.partial, (target,), kwargs)

    return describe


def build_tree(value: object, received: object = AWAITED) -> object:
    """Build every `Spec` inside a tree of lists, tuples and dicts; a `Late` is left for whoever has its argument.

    Args:
        value: The tree.
        received: What stands in for `AWAITED`.
    """
    if value is AWAITED:
        return received
    if isinstance(value, Spec):
        return value._call(received)
    if isinstance(value, list):
        return [build_tree(item, received) for item in value]
    if type(value) is tuple:
        return tuple(build_tree(item, received) for item in value)
    if isinstance(value, dict):
        return {key: build_tree(item, received) for key, item in value.items()}
    return value


def signature_of(target: Callable[..., object]) -> Signature | None:
    """Return the signature of a callable; None for a builtin that publishes none, whose only check is the call."""
    try:
        return _signature_of(target)
    except TypeError:  # not hashable
        return _signature_of.__wrapped__(target)


@functools.lru_cache(maxsize=1024)  # a large config names one class a hundred times
def _signature_of(target: Callable[..., object]) -> Signature | None:
    import inspect  # a third of the kernel's import time

    try:
        return inspect.signature(target)
    except (TypeError, ValueError):
        return None


def name_of(target: object) -> str:
    """Return ``module:qualname`` of a callable, or its repr when it has no name."""
    module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    return f"{module}:{name}" if module and name else repr(target)
