"""The registry as SCEPTER speaks of it: ``register_class``, ``register_function``, and building from a ``NAME``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from inspect import Parameter
from types import MappingProxyType
from typing import Any, Generic, ParamSpec, overload

from typing_extensions import TypeVar

from treenail.adapters.registries.core import (
    Members,
    call_build_function,
    construct,
    entries,
    hold,
    look_up,
    place_of,
)
from treenail.adapters.registries.errors import KindError, UnregisteredError
from treenail.kernel import Registry as Core
from treenail.kernel import signature_of

T = TypeVar("T", default=Any)  # Any: an unparametrized registry builds whatever is named, as the original does
P = ParamSpec("P")

CONFIG_PARAMETERS = ("cfg", "config")
"""Names of the parameter that takes a whole config."""


class Registry(Generic[T]):
    """Names to classes and functions, built from configs with a ``NAME``.

    Args:
        name: Name of the registry, for messages.
        build_func: Called as ``build_func(cfg, registry, logger=…, **kwargs)`` instead of what is named when not None.
        common_para: Entries that every config has here unless it says otherwise.
        allow_types: ``"class"``, ``"function"`` or both: what may be registered.
        core: The kernel's registry that holds the names; a new one when None.

    Raises:
        KindError: Another type is to be allowed, or the common entries are no mapping.
    """

    def __init__(
        self,
        name: str,
        build_func: Callable[..., T] | None = None,
        common_para: object = None,
        allow_types: Sequence[str] = ("class", "function"),
        *,
        core: Core[T] | None = None,
    ) -> None:
        self.name = name
        self.build_func = build_func
        self.common_para: Mapping[str, object] = MappingProxyType({} if common_para is None else entries(common_para))
        if isinstance(allow_types, str) or not set(allow_types) <= {"class", "function"}:
            raise KindError(f"allow_types holds 'class' and 'function', not {allow_types!r}")
        self.allow_types = tuple(allow_types)
        self.core: Core[T] = Core(name) if core is None else core

    @overload
    def register_class(self, name: Callable[P, T], /) -> Callable[P, T]: ...
    @overload
    def register_class(
        self, name: str | None = None, *, force: bool = False
    ) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
    def register_class(
        self, name: Callable[P, T] | str | None = None, *, force: bool = False
    ) -> Callable[P, T] | Callable[[Callable[P, T]], Callable[P, T]]:
        """Register a class, as a decorator, bare or called.

        Args:
            name: Its name; its ``__name__`` when None.
            force: Replace what the name stands for.

        Raises:
            RegisteredTwiceError: The name is taken.
            KindError: It is no class, or classes are not allowed here.
        """
        return self._register("class", name, force)

    @overload
    def register_function(self, name: Callable[P, T], /) -> Callable[P, T]: ...
    @overload
    def register_function(
        self, name: str | None = None, *, force: bool = False
    ) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
    def register_function(
        self, name: Callable[P, T] | str | None = None, *, force: bool = False
    ) -> Callable[P, T] | Callable[[Callable[P, T]], Callable[P, T]]:
        """Register a function, as a decorator, bare or called.

        Args:
            name: Its name; its ``__name__`` when None.
            force: Replace what the name stands for.

        Raises:
            RegisteredTwiceError: The name is taken.
            KindError: It is no function, or functions are not allowed here.
        """
        return self._register("function", name, force)

    def _register(
        self, kind: str, name: Callable[P, T] | str | None, force: bool
    ) -> Callable[P, T] | Callable[[Callable[P, T]], Callable[P, T]]:
        target_now, names = (None, (name,)) if isinstance(name, str) else (name, ())

        def add(target: Callable[P, T]) -> Callable[P, T]:
            found = "class" if isinstance(target, type) else "function" if callable(target) else "value"
            mend = f"use register_{found}" if found in self.allow_types else "register it elsewhere"
            if found != kind:
                raise KindError(f"{target!r} is a {found}, not a {kind}", mend=mend)
            if kind not in self.allow_types:
                raise KindError(f"'{self.name}' takes no {kind}, only a {' or a '.join(self.allow_types)}", mend=mend)
            return hold(self.core, target, *names, force=force)

        return add if target_now is None else add(target_now)

    def get(self, name: str) -> Callable[..., T]:
        """Return what is registered under a name.

        Raises:
            UnregisteredError: Nothing is.
        """
        return look_up(self.core, name)

    def build(self, cfg: object, logger: object = None, **kwargs: object) -> T:
        """Build what a config's ``NAME`` stands for.

        The target gets the config if it has a parameter ``cfg`` or ``config``, or takes ``*args`` alone; else the
        config's other entries are its arguments. It gets the logger if it has a parameter for it. The config is not
        changed, and is handed over itself; where there are common entries that it lacks, a shallow copy with them.

        Args:
            cfg: A mapping with a ``NAME``.
            logger: Where the target may log.
            kwargs: Further arguments for the target.

        Raises:
            KindError: The config is no mapping, or its ``NAME`` is no text.
            UnregisteredError: There is no ``NAME``, or it stands for nothing.
            SpecError: The signature does not take the arguments; nothing was called.
            BuildError: The call raised; its own exception is the cause.
        """
        written = entries(cfg)
        where = place_of(cfg, "NAME")
        if self.build_func is not None:
            return call_build_function(self.build_func, cfg, self, (), {"logger": logger, **kwargs})
        if "NAME" not in written:
            given = ", ".join(written) or "nothing"
            raise UnregisteredError(f"the config has no 'NAME', only {given}", where=where, mend="say what to build")
        name = written.pop("NAME")
        if not isinstance(name, str):
            raise KindError(f"a 'NAME' is a text, not {name!r}", where=where)
        target = look_up(self.core, name, where)
        args, arguments = self._arguments(target, cfg, written, kwargs)
        if logger is not None and _takes(target, "logger"):
            arguments.setdefault("logger", logger)
        return construct(target, args, arguments, where)

    def _arguments(
        self, target: Callable[..., T], cfg: object, written: dict[str, object], kwargs: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        signature = signature_of(target)
        parameters = list(signature.parameters.values()) if signature else []
        if parameters and parameters[0].kind is Parameter.VAR_POSITIONAL:
            return (self._completed(cfg),), kwargs
        for parameter in parameters:
            if parameter.name in CONFIG_PARAMETERS and parameter.kind is Parameter.POSITIONAL_ONLY:
                return (self._completed(cfg),), kwargs
            if parameter.name in CONFIG_PARAMETERS:
                return (), {parameter.name: self._completed(cfg), **kwargs}
        common = {name: value for name, value in self.common_para.items() if _takes(target, name)}
        return (), {**common, **written, **kwargs}

    def _completed(self, cfg: object) -> object:
        lacking = {name: value for name, value in self.common_para.items() if name not in entries(cfg)}
        if not lacking:
            return cfg
        if not isinstance(cfg, MutableMapping):
            mend = f"write {', '.join(lacking)} in the config"
            raise KindError(f"a {type(cfg).__name__} cannot be completed by the common parameters", mend=mend)
        completed = copy.copy(cfg)
        completed.update(lacking)
        return completed

    def __contains__(self, name: object) -> bool:
        return name in Members(self.core)

    def __len__(self) -> int:
        return len(Members(self.core))

    def __repr__(self) -> str:
        return f"Registry(name={self.name}, items={Members(self.core)!r})"


def _takes(target: Callable[..., object], name: str) -> bool:
    signature = signature_of(target)
    parameters = signature.parameters.values() if signature else ()
    return any(
        each.kind is Parameter.VAR_KEYWORD or (each.name == name and each.kind is not Parameter.POSITIONAL_ONLY)
        for each in parameters
    )
