"""What can be named in a config, and which schema a name stands for in a slot."""

from __future__ import annotations

import functools
import importlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from treenail.adapters import ADAPTERS
from treenail.adapters.config.ports import PORTS
from treenail.adapters.config.schema import ComponentSchema, Nested, RecordSchema, Schemas
from treenail.kernel import (
    Adapter,
    ConfigError,
    Namespace,
    Registry,
    RegistryError,
    TreenailError,
    did_you_mean,
    import_target,
    installed_adapters,
)

if TYPE_CHECKING:
    from treenail.adapters.config.derive import Derivation


class Names:
    """The names of every port, and the schemas that they stand for.

    This class decides what a name means; where a schema comes from is left to `Catalog`, which imports what is named, and
    to the schema cache, which does not.

    Args:
        declared: (package, declaration) pairs.
    """

    def __init__(self, declared: Iterable[tuple[str, Adapter | Namespace]]) -> None:
        self.registries: dict[str, Registry[object]] = {port: Registry(port) for port in PORTS}
        for scope, declaration in declared:
            registry = self.registries.setdefault(declaration.port, Registry(declaration.port))
            registry.declare(declaration, scope)

    @property
    def schemas(self) -> Schemas:
        """The schemas known so far."""
        raise NotImplementedError

    def imported(self, name: str) -> ComponentSchema:
        """Return the schema of ``module.path:attribute``."""
        raise NotImplementedError

    def import_components(self, module: str) -> None:
        """Let configs name what a module registers.

        Raises:
            RegistryError: It cannot be imported, or holds what cannot be named.
        """
        raise NotImplementedError

    def record(self, key: str) -> RecordSchema:
        """Return the schema of a record."""
        return self.schemas.records[key]

    def names(self, port: str) -> list[str]:
        """Return every plain name of a port."""
        raise NotImplementedError

    def lookup(self, port: str, name: str) -> ComponentSchema:
        """Return the schema of a name of a port.

        Raises:
            RegistryError: It is unknown or ambiguous.
            MissingDependencyError: It needs a package that is not installed.
        """
        raise NotImplementedError

    def scopes(self) -> set[str]:
        """Return the packages that declare adapters, and the scopes of what was registered as ``scope:name``."""
        declared = {scope for registry in self.registries.values() for scope, _ in registry}
        registered = (name for registry in self.registries.values() for name in registry.registered)
        return declared | {name.partition(":")[0] for name in registered if ":" in name}

    def registry(self, port: str) -> Registry[object]:
        """Return the registry of a port.

        Raises:
            RegistryError: There is no such port.
        """
        if port not in self.registries:
            raise RegistryError(f"unknown port '{port}'", mend=did_you_mean(port, self.registries))
        return self.registries[port]

    def resolve(
        self, name: str, slot: Nested | None, imports: tuple[str, ...], scope: str | None = None
    ) -> ComponentSchema:
        """Return the schema that a ``type:`` stands for in a slot.

        Args:
            name: A registered name, ``package:name``, or ``module.path:attribute`` below one of the `imports`.
            slot: What the component shall be; anything where None.
            imports: Prefixes of modules that may be imported.
            scope: The package whose adapters a plain name means first.

        Raises:
            RegistryError: The name is unknown, may not be imported, or stands for something of another type.
            MissingDependencyError: It needs a package that is not installed.
        """
        module, colon, _ = name.partition(":")
        if scope and not colon and self._declares(scope, name):
            name, module, colon = f"{scope}:{name}", scope, ":"
        if colon and module not in self.scopes():
            if not is_allowed(module, imports):
                raise RegistryError(
                    f"'{name}' would import the module '{module}', which is not allowed here",
                    mend=f"add '{module.partition('.')[0]}' to `imports:` in the config if you trust it",
                )
            found = self.imported(name)
            owner = found.target.partition(":")[0]  # a module also holds what it imports itself: os, for example
            if re.fullmatch(r"[\w.]+", owner) and not is_allowed(owner, imports):
                raise RegistryError(
                    f"'{name}' is {found.target}, which is not allowed here",
                    mend=f"add '{owner.partition('.')[0]}' to `imports:` in the config if you trust it",
                )
        else:
            found = self._registered(name, slot)
        if slot is not None and not self.schemas.fits(found, slot):
            kind = self._kind(found)
            raise RegistryError(f"'{name}' is {kind}, not {a(slot.name)}", mend=_mend(kind, slot.port))
        return found

    def _declares(self, scope: str, name: str) -> bool:
        return any(
            owner == scope and name in (adapter.name, *adapter.aliases)
            for registry in self.registries.values()
            for owner, adapter in registry
        )

    def _registered(self, name: str, slot: Nested | None) -> ComponentSchema:
        plain = name.rpartition(":")[2]
        if slot is not None and slot.port is not None:
            try:
                return self.lookup(slot.port, name)
            except RegistryError as error:
                others = [port for port in self.registries if port != slot.port and plain in self.names(port)]
                if others and not error.message.startswith("several"):
                    raise RegistryError(
                        f"'{name}' is {a(others[0])}, here {a(slot.port)} is needed",
                        mend="`treenail adapters` lists them",
                    ) from None
                raise
        found = {each.target: each for each in self._anywhere(name, plain) if not slot or self.schemas.fits(each, slot)}
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            raise RegistryError(f"'{name}' is known to several ports", mend="name it as module:attribute")
        known = {port: self.names(port) for port in self.registries}
        holders = [port for port, names in known.items() if plain in names]
        if holders and slot is not None:
            raise RegistryError(f"'{name}' is {a(holders[0])}, not {a(slot.name)}")
        raise RegistryError(
            f"unknown component '{name}'", mend=did_you_mean(name, [each for names in known.values() for each in names])
        )

    def _anywhere(self, name: str, plain: str) -> Iterator[ComponentSchema]:
        for port in self.registries:
            if plain in self.names(port):
                try:
                    yield self.lookup(port, name)
                except RegistryError as error:
                    if error.message.startswith("several"):
                        raise

    def _kind(self, found: ComponentSchema) -> str:
        if found.is_class and found.produces:
            for port, wanted in PORTS.items():
                if wanted in self.schemas.classes and self.schemas.fits(found, Nested(wanted, port)):
                    return a(port)
        return "a class" if found.is_class else "a function"


class Catalog(Names):
    """The adapters of every port, imported when they are named.

    Args:
        declared: (package, declaration) pairs; those of every installed package, ours included, when None.
        described: Whether schemas get descriptions from docstrings, which a check has no use for.

    Attributes:
        imported_names: Keys of the schemas of what was imported by ``module.path:attribute``.
    """

    def __init__(
        self, declared: Iterable[tuple[str, Adapter | Namespace]] | None = None, *, described: bool = False
    ) -> None:
        super().__init__(declarations() if declared is None else declared)
        self._described = described
        self._derivation: Derivation | None = None
        self._looked_up: dict[tuple[str, str], ComponentSchema] = {}
        self.imported_names: dict[str, str] = {}

    @property
    def derivation(self) -> Derivation:
        """What derives schemas; made on first use, for it imports torch."""
        if self._derivation is None:
            from treenail.adapters.config.derive import Derivation

            self._derivation = Derivation(described=self._described)
        return self._derivation

    @property
    def schemas(self) -> Schemas:
        """The schemas derived so far."""
        return self.derivation.schemas

    def add(self, registry: Registry[object]) -> None:
        """Let configs name what was registered in a registry, under the registry's port."""
        ours = self.registries.setdefault(registry.port, Registry(registry.port))
        known = list(ours)
        for scope, adapter in registry:
            if (scope, adapter) not in known:  # it may share declarations with ours
                ours.declare(adapter, scope)
        for namespace in registry.namespaces:
            if namespace not in ours.namespaces:
                ours.declare(namespace)
        for name, target in registry.registered.items():
            ours.register(name, force=True)(target)

    def import_components(self, module: str) -> None:
        """Import a module and let configs name what its registries, and its ``ADAPTERS``, hold.

        Raises:
            RegistryError: It cannot be imported, its ``ADAPTERS`` are none, or a name is declared twice.
        """
        try:
            found = importlib.import_module(module)
        except (Exception, SystemExit) as error:
            mend = "is the module on the Python path?" if isinstance(error, ModuleNotFoundError) else None
            detail = f"{type(error).__name__}: {error}"
            raise RegistryError(f"'{module}' cannot be imported: {detail}", mend=mend) from error
        for value in list(vars(found).values()):
            core = value if isinstance(value, Registry) else getattr(value, "core", None)
            if isinstance(core, Registry):
                self.add(core)
        for declaration in getattr(found, "ADAPTERS", ()):
            if not isinstance(declaration, Adapter | Namespace):
                raise RegistryError(f"{declaration!r} is no Adapter or Namespace", where=f"{module}.ADAPTERS")
            registry = self.registries.setdefault(declaration.port, Registry(declaration.port))
            registry.declare(declaration, module.partition(".")[0])
        self._looked_up.clear()

    def imported(self, name: str) -> ComponentSchema:
        """Import ``module.path:attribute`` and derive its schema."""
        found = self.derivation.component(import_target(name))
        self.imported_names[name] = found.target
        return found

    def names(self, port: str) -> list[str]:
        """Return every plain name of a port."""
        return self.registries[port].names()

    def lookup(self, port: str, name: str) -> ComponentSchema:
        """Import what a name of a port stands for, and derive its schema."""
        known = self._looked_up.get((port, name))
        if known is None:
            known = self._looked_up[port, name] = self.derivation.component(self.registries[port].resolve(name))
        return known

    def callable_of(self, schema: ComponentSchema) -> Callable[..., object]:
        """Return the callable that a schema was derived from."""
        found = self.derivation.objects[schema.target]
        if not callable(found):
            raise ConfigError(f"'{schema.target}' is not callable")
        return found


def is_allowed(module: str, prefixes: Iterable[str]) -> bool:
    """Return whether a config may import a module, or from it."""
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


def declarations() -> Sequence[tuple[str, Adapter | Namespace]]:
    """Return the declarations of every installed package; ours, too, where Treenail itself is not installed."""
    return _declarations(tuple(sys.path))


@functools.lru_cache(maxsize=4)  # reading the entry points of all distributions takes longer than checking a config
def _declarations(_: tuple[str, ...]) -> Sequence[tuple[str, Adapter | Namespace]]:
    installed = tuple(installed_adapters())
    if any(scope == "treenail" for scope, _ in installed):
        return installed
    return (*(("treenail", each) for each in ADAPTERS), *installed)


def _mend(kind: str, port: str | None) -> str | None:
    """Say what to do about a component of one kind in the place of another."""
    if port == "hook":
        return "derive a hook's class from treenail.kernel.Hook"
    if port == "dataset" and kind == "a class":
        return (
            "a dataset has __len__ and __getitem__; what can only be iterated is trained on from Python, by StreamedBatches: "
            "see how-to/loops in the documentation"
        )
    return None


def a(noun: str) -> str:
    """Put the indefinite article before a noun."""
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"


def explain(error: TreenailError) -> str:
    """Return an error's text for a mistake in a config, whose place is told elsewhere."""
    place = f" ({error.where})" if error.where else ""
    return f"{error.message}{place}{f'; {error.mend}' if error.mend else ''}"
