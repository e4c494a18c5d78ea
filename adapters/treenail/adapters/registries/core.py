"""What the dialects share: holding, finding and calling what the kernel's registry keeps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import ParamSpec, TypeVar

from treenail.adapters.documents import Map
from treenail.adapters.registries.errors import KindError, RegisteredTwiceError, UnregisteredError
from treenail.adapters.registries.listing import targets
from treenail.kernel import BuildError, Registry, RegistryError, Spec, TreenailError, did_you_mean, name_of

T = TypeVar("T")
P = ParamSpec("P")


def hold(core: Registry[T], target: Callable[P, T], *names: str, force: bool = False) -> Callable[P, T]:
    """Register a class or function, and return it.

    Args:
        core: Where.
        target: What.
        names: Its names; its ``__name__`` when there are none.
        force: Replace what the names stand for.

    Raises:
        KindError: It is neither a class nor a function, has no name, or one that is no text.
        RegisteredTwiceError: A name is taken.
    """
    if not callable(target) or not (names or hasattr(target, "__name__")):
        raise KindError(f"{target!r} is no class or function", mend="register a class or a function")
    for name in names:
        if not isinstance(name, str):
            raise KindError(f"the name {name!r} is no text", mend="write the name in quotes")
    try:
        return core.register(target, *names, force=force)
    except RegistryError as error:
        mend = "choose another name, or replace it with force=True"
        raise RegisteredTwiceError(error.message, where=error.where, mend=mend) from None


def look_up(core: Registry[T], name: str, where: str | None = None) -> Callable[..., T]:
    """Return what a name stands for.

    Raises:
        UnregisteredError: The name is unknown, ambiguous or leads nowhere.
        MissingDependencyError: It needs a package that is not installed.
    """
    try:
        return core.resolve(name)
    except RegistryError as error:
        mend = error.mend if name in core else did_you_mean(name, core.names()) or known(core.names())
        raise UnregisteredError(error.message, where=error.where or where, mend=mend) from error


def known(names: list[str]) -> str:
    """Return a sentence that says what there is instead of an unknown name."""
    if not names:
        return "nothing is registered: import the module that registers it"
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"known are {', '.join(names[:8])}{more}"


def construct(
    target: Callable[..., T], args: tuple[object, ...], kwargs: Mapping[str, object], where: str | None = None
) -> T:
    """Instantiate a class or call a function, once its signature was found to take the arguments.

    The arguments are handed over as they are: nothing is copied, so generators and configs keep their identity.

    Args:
        target: The class or function.
        args: Positional arguments.
        kwargs: Keyword arguments.
        where: The place in a config, for messages.

    Raises:
        SpecError: The signature does not take these arguments; nothing was called.
        BuildError: The call raised; its own exception is the cause.
    """
    Spec(target, args, kwargs, where=where)  # describing it makes the check; building it would rebuild its containers
    try:
        return target(*args, **kwargs)
    except TreenailError:
        raise
    except Exception as error:
        raise BuildError(
            f"{name_of(target)} could not be built: {type(error).__name__}: {error}", where=where
        ) from error


def call_build_function(
    function: Callable[..., T], cfg: object, registry: object, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> T:
    """Call a user's build function with a config and the registry.

    The registry comes second where the second parameter is called ``registry``, so that further positional arguments
    follow it, and by keyword elsewhere.
    """
    positional = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if positional[1:2] == ["registry"]:
        return function(cfg, registry, *args, **kwargs)
    return function(cfg, *args, registry=registry, **kwargs)


def entries(cfg: object) -> dict[str, object]:
    """Return the entries of a config, which may be any mapping; neither it nor its values are touched.

    Raises:
        KindError: It is no mapping, or a key is no text.
    """
    if not isinstance(cfg, Mapping) and not (hasattr(cfg, "keys") and hasattr(cfg, "__getitem__")):
        raise KindError(f"a config is a mapping, not {cfg!r}", mend="write {'type': …, …}")
    found: dict[object, object] = dict(cfg)
    for key in found:
        if not isinstance(key, str):
            raise KindError(f"the key {key!r} of a config is no text", mend="keys are names of arguments")
    return {str(key): value for key, value in found.items()}


def is_built(cfg: object) -> bool:
    """Return whether what stands in a config's place is an object of a class: no plain data, no mapping, class or function."""
    if isinstance(cfg, type | Mapping | list | tuple | PurePath) or type(cfg).__module__ == "builtins":
        return False
    return callable(cfg) or not hasattr(cfg, "keys")  # a ModuleDict is no config, though it has keys


def place_of(cfg: object, key: str) -> str | None:
    """Return ``file:line:column`` of an entry, where the config knows it."""
    mark = cfg.marks.get(key) if isinstance(cfg, Map) else None
    return mark.place() if mark is not None else None


class Members(Mapping[str, Callable[..., T]]):
    """What a registry holds, by name: a view that imports a declared component when it is asked for it.

    Args:
        core: The registry.
    """

    def __init__(self, core: Registry[T]) -> None:
        self._core = core

    def __getitem__(self, name: str) -> Callable[..., T]:
        return look_up(self._core, name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and ":" not in name and name in self._core

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._core.names() if ":" not in name)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        own, all_targets = self._core.registered, targets(self._core)
        return "{" + ", ".join(f"{name!r}: {own.get(name, f'<{all_targets[name]}>')}" for name in self) + "}"
