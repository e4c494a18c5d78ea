"""A tree of registries, and building what is named in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Generic, ParamSpec, cast, overload

from typing_extensions import TypeVar

from treenail.adapters.registries.core import (
    Members,
    call_build_function,
    construct,
    entries,
    hold,
    is_built,
    known,
    look_up,
    place_of,
)
from treenail.adapters.registries.errors import KindError, RegisteredTwiceError, UnregisteredError
from treenail.adapters.registries.mmengine.scope import DefaultScope
from treenail.kernel import Registry as Core
from treenail.kernel import RegistryError, did_you_mean

T = TypeVar("T", default=Any)  # Any: an unparametrized registry builds whatever is named, as the original does
P = ParamSpec("P")


class Registry(Generic[T]):
    """Names to classes and functions, in a tree of scopes; classes are instantiated from it, functions called.

    Args:
        name: Name of the registry, for messages.
        build_func: Called as ``build_func(cfg, registry, *args, **kwargs)``; the parent's, or `build_from_cfg`, when None.
        parent: The registry above, in which names are looked up that are not here.
        scope: Prefix by which others reach this registry; the top-level package of the caller when None.
        core: The kernel's registry that holds the names; a new one when None. For a registry without parent only.

    Raises:
        KindError: The parent is no registry, or the scope could not be written before a name.
        RegisteredTwiceError: The parent has a child of this scope.
        RegistryError: Both a parent and a core are given.
    """

    def __init__(
        self,
        name: str,
        build_func: Callable[..., T] | None = None,
        parent: Registry[T] | None = None,
        scope: str | None = None,
        *,
        core: Core[T] | None = None,
    ) -> None:
        if parent is not None and not isinstance(parent, Registry):
            raise KindError(f"the parent {parent!r} is no registry")
        if parent is not None and core is not None:
            raise RegistryError(f"the registry '{name}' has a parent and a core", mend="only a root takes a core")
        self.name = name
        self.scope = self.infer_scope() if scope is None else scope
        if not self.scope or "." in self.scope or ":" in self.scope:
            raise KindError(f"'{self.scope}' cannot be the scope of '{name}'", mend="a scope is one word")
        self.parent = parent
        inherited = build_from_cfg if parent is None else parent.build_func
        self.build_func: Callable[..., T] = inherited if build_func is None else build_func
        # The port is the root's, so that what a child holds fits the slots of a config that ask for the root's.
        self.core: Core[T] = Core(name if parent is None else parent.core.port) if core is None else core
        self._children: dict[str, Registry[T]] = {}
        if parent is not None:
            if self.scope in parent.children:
                mend = "give it another scope"
                raise RegisteredTwiceError(f"'{parent.name}' has a child of the scope '{self.scope}'", mend=mend)
            parent._children[self.scope] = self

    @property
    def children(self) -> Mapping[str, Registry[T]]:
        """The registries below, by scope."""
        return MappingProxyType(self._children)

    @property
    def root(self) -> Registry[T]:
        """The registry above all others."""
        return self if self.parent is None else self.parent.root

    @property
    def module_dict(self) -> Mapping[str, Callable[..., T]]:
        """What this registry itself holds, by name, in the order of registration."""
        return Members(self.core)

    @staticmethod
    def infer_scope() -> str:
        """Return the top-level package of the module that calls this, or that makes the registry."""
        frame = sys._getframe()
        passed = (__name__, "typing")  # `Registry[Module](…)` is called by typing
        while frame.f_back is not None and frame.f_globals.get("__name__") in passed:
            frame = frame.f_back
        return str(frame.f_globals.get("__name__", "__main__")).partition(".")[0]

    @staticmethod
    def split_scope_key(key: str) -> tuple[str | None, str]:
        """Split the first scope off a key: ``"mmdet.ResNet"`` → ``("mmdet", "ResNet")``; None where there is none."""
        scope, dot, name = key.partition(".")
        return (scope, name) if dot else (None, key)

    @overload
    def register_module(self, name: Callable[P, T], /) -> Callable[P, T]: ...
    @overload
    def register_module(
        self, name: str | Sequence[str] | None = None, force: bool = False, *, module: Callable[P, T]
    ) -> Callable[P, T]: ...
    @overload
    def register_module(
        self, name: str | Sequence[str] | None = None, force: bool = False
    ) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
    def register_module(
        self,
        name: Callable[P, T] | str | Sequence[str] | None = None,
        force: bool = False,
        module: Callable[P, T] | None = None,
    ) -> Callable[P, T] | Callable[[Callable[P, T]], Callable[P, T]]:
        """Register a class or function: as a decorator, bare or called, or with ``module=`` as a plain call.

        Args:
            name: Its name or names; its ``__name__`` when None.
            force: Replace what the names stand for.
            module: What to register now; a decorator is returned when None.

        Raises:
            RegisteredTwiceError: A name is taken.
            KindError: An argument is of another kind.
        """
        if not isinstance(force, bool):
            raise KindError(f"force is True or False, not {force!r}")
        if module is None and callable(name):
            return self._hold(name, (), force)
        if name is not None and (callable(name) or not isinstance(name, Sequence)):
            raise KindError(f"the name {name!r} is no text and no list of texts")
        names = () if name is None else (name,) if isinstance(name, str) else tuple(name)
        if module is not None:
            return self._hold(module, names, force)
        return lambda target: self._hold(target, names, force)

    def _hold(self, target: Callable[P, T], names: tuple[str, ...], force: bool) -> Callable[P, T]:
        held = hold(self.core, target, *names, force=force)
        prefix, above = self.scope, self.parent
        while above is not None:  # so that a config that is given a registry above can write `mmdet:ResNet`
            for name in names or (target.__name__,):
                above.core.register(target, f"{prefix}:{name}", force=True)
            prefix, above = f"{above.scope}:{prefix}", above.parent
        return held

    def get(self, key: str) -> Callable[..., T] | None:
        """Return what a key stands for, None if it stands for nothing.

        A plain name is looked up here, then in each registry above. ``scope.name`` is looked up here only if the scope is
        this one's; else by the child that has the scope; else by the root, as if the root had been asked.

        Args:
            key: A name, or a name behind scopes: ``"ResNet"``, ``"mmdet.ResNet"``.

        Raises:
            KindError: The key is no text.
            MissingDependencyError: What it stands for needs a package that is not installed.
            UnregisteredError: What it stands for cannot be imported, or several packages declare it.
        """
        if not isinstance(key, str):
            raise KindError(f"a name is a text, not {key!r}")
        scope, name = self.split_scope_key(key)
        if scope is None:
            holder = next((each for each in self._lineage() if name in each.module_dict), None)
            return None if holder is None else look_up(holder.core, name)
        if scope == self.scope:
            return look_up(self.core, name) if name in self.module_dict else None
        if scope in self._children:
            return self._children[scope].get(name)
        return None if self.parent is None else self.root.get(key)

    def find(self, key: object, where: str | None = None) -> Callable[..., T]:
        """Return what a config's ``type`` stands for.

        Args:
            key: A name as for `get`, or the class or function itself.
            where: The place in a config, for messages.

        Raises:
            KindError: It is neither a name nor callable.
            UnregisteredError: The name stands for nothing.
        """
        if callable(key):
            return key
        if not isinstance(key, str):
            raise KindError(f"a 'type' is a name, a class or a function, not {key!r}", where=where)
        found = self.get(key)
        if found is None:
            names = [name for each in self._lineage() for name in each.module_dict]
            scoped = [name.replace(":", ".") for name in self.root.core.names() if ":" in name]
            raise UnregisteredError(
                f"the registry '{self.name}' of the scope '{self.scope}' knows no '{key}'",
                where=where,
                mend=did_you_mean(key, [*names, *scoped]) or known([*names, *scoped]),
            )
        return found

    def build(self, cfg: object, *args: object, **kwargs: object) -> T:
        """Build what a config describes, with this registry's build function.

        Args:
            cfg: A mapping with a ``type``, or what the build function takes.
            args: Further arguments for the build function.
            kwargs: Likewise: ``default_args``, and ``where`` for messages.

        Raises:
            RegistryError: The config names nothing that is known.
            SpecError: The signature does not take the arguments; nothing was called.
            BuildError: The call raised; its own exception is the cause.
        """
        return call_build_function(self.build_func, cfg, self, args, kwargs)

    @contextmanager
    def switch_scope_and_registry(self, scope: str | None) -> Iterator[Registry[T]]:
        """Make a scope the default one for the duration of a ``with`` block, and yield the registry that has it.

        Args:
            scope: The scope; the default scope stays when None. Where no registry of this tree has it, this one is yielded.
        """
        with DefaultScope.overwrite_default_scope(scope):
            current = DefaultScope.get_current_instance()
            found = None if current is None else self.root._of_scope(current.scope_name)
            yield self if found is None else found

    def _of_scope(self, scope: str) -> Registry[T] | None:
        if scope == self.scope:
            return self
        return next((found for each in self._children.values() if (found := each._of_scope(scope)) is not None), None)

    def _lineage(self) -> Iterator[Registry[T]]:
        node: Registry[T] | None = self
        while node is not None:
            yield node
            node = node.parent

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def __len__(self) -> int:
        return len(self.module_dict)

    def __bool__(self) -> bool:
        return True  # an empty registry is a registry: `parent or default` must not lose it

    def __repr__(self) -> str:
        return f"Registry(name={self.name}, items={self.module_dict!r})"


def build_from_cfg(cfg: object, registry: Registry[T], default_args: object = None, *, where: str | None = None) -> T:
    """Instantiate the class, or call the function, that a config names.

    The config is read, never changed or copied deeply: its values are handed over as they are.

    Args:
        cfg: Arguments by name; ``type`` names what takes them, ``_scope_`` the scope from which it and all that is built
            within it are looked up. Or an object that is built already, and comes back as it is: a parameter without
            annotation gets such ones from a config.
        registry: Where names are looked up; its relative of the default scope, where there is one.
        default_args: Arguments for what the config leaves out, ``type`` included.
        where: The place in a config, for messages; the config's own where it knows it.

    Raises:
        KindError: An argument is of another kind.
        UnregisteredError: There is no ``type``, or the name stands for nothing.
        SpecError: The signature does not take the arguments; nothing was called.
        BuildError: The call raised; its own exception is the cause.
    """
    if not isinstance(registry, Registry):
        raise KindError(f"{registry!r} is no registry")
    if default_args is None and is_built(cfg):
        return cast("T", cfg)  # of which class it must be is known to the one who asks for it
    arguments = {**({} if default_args is None else entries(default_args)), **entries(cfg)}
    where = where or place_of(cfg, "type")
    with switched(registry, arguments, where) as node:
        target = node.find(take_type(arguments, where), where)
        return construct(target, (), arguments, where)


def take_type(arguments: dict[str, object], where: str | None) -> object:
    """Remove ``type`` from the arguments of a config, and return it.

    Raises:
        UnregisteredError: There is none.
    """
    if "type" not in arguments:
        given = ", ".join(arguments) or "nothing"
        raise UnregisteredError(f"the config has no 'type', only {given}", where=where, mend="say what to build")
    return arguments.pop("type")


@contextmanager
def switched(registry: Registry[T], arguments: dict[str, object], where: str | None) -> Iterator[Registry[T]]:
    """Remove ``_scope_`` from the arguments of a config, and yield the registry of that scope for a ``with`` block.

    Raises:
        KindError: It is no text.
    """
    scope = arguments.pop("_scope_", None)
    if scope is not None and not isinstance(scope, str):
        raise KindError(f"a '_scope_' is a name, not {scope!r}", where=where)
    with registry.switch_scope_and_registry(scope) as node:
        yield node
