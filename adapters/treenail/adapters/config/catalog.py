"""What can be named in a config: a registry for each port, and which port a slot of a given type asks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import FunctionType, MappingProxyType
from typing import Any, get_args, get_origin

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import get_protocol_members, is_protocol

from treenail.adapters import ADAPTERS
from treenail.contracts import Dataset, Loss
from treenail.kernel import (
    Adapter,
    Communicator,
    Exporter,
    FileBackend,
    Hook,
    Loop,
    Metric,
    Namespace,
    Registry,
    RegistryError,
    Sampler,
    VisBackend,
    did_you_mean,
    import_target,
    installed_adapters,
)

PORTS = MappingProxyType(
    {
        "module": nn.Module,
        "loss": Loss,
        "optimizer": Optimizer,
        "scheduler": LRScheduler,
        "dataset": Dataset,
        "sampler": Sampler,
        "loop": Loop,
        "metric": Metric,
        "hook": Hook,
        "vis": VisBackend,
        "files": FileBackend,
        "exporter": Exporter,
        "communicator": Communicator,
    }
)
"""The ports by name, and the type that a slot for each has."""


class Catalog:
    """The adapters of every port.

    Args:
        declared: (package, declaration) pairs; those of every installed package, ours included, when None.
    """

    def __init__(self, declared: Iterable[tuple[str, Adapter | Namespace]] | None = None) -> None:
        self.registries: dict[str, Registry[object]] = {port: Registry(port) for port in PORTS}
        if declared is None:
            installed = list(installed_adapters())
            ours = (
                [] if any(scope == "treenail" for scope, _ in installed) else [("treenail", each) for each in ADAPTERS]
            )
            declared = [*ours, *installed]
        for scope, declaration in declared:
            registry = self.registries.setdefault(declaration.port, Registry(declaration.port))
            registry.declare(declaration, scope)

    def registry(self, port: str) -> Registry[object]:
        """Return the registry of a port.

        Raises:
            RegistryError: There is no such port.
        """
        if port not in self.registries:
            raise RegistryError(f"unknown port '{port}'", mend=did_you_mean(port, self.registries))
        return self.registries[port]

    def resolve(self, name: str, slot: object, imports: tuple[str, ...]) -> Callable[..., object]:
        """Return what a ``type:`` stands for in a slot of a type.

        Args:
            name: A registered name, ``package:name``, or ``module.path:attribute`` below one of the `imports`.
            slot: The type that the component shall have; anything fits Any.
            imports: Prefixes of modules that may be imported.

        Raises:
            RegistryError: The name is unknown, may not be imported, or stands for something of another type.
            MissingDependencyError: It needs a package that is not installed.
        """
        module, colon, _ = name.partition(":")
        if colon and not any(scope == module for registry in self.registries.values() for scope, _ in registry):
            if not any(module == prefix or module.startswith(f"{prefix}.") for prefix in imports):
                raise RegistryError(
                    f"'{name}' would import the module '{module}', which is not allowed here",
                    mend=f"add '{module.partition('.')[0]}' to `imports:` in the config if you trust it",
                )
            target: Callable[..., object] = import_target(name)
        else:
            target = self._registered(name, slot)
        if not fits(target, slot):
            raise RegistryError(f"'{name}' is {_kind(target)}, not {a(type_name(slot))}")
        return target

    def _registered(self, name: str, slot: object) -> Callable[..., object]:
        port = next((port for port, kind in PORTS.items() if kind == slot), None)
        if port is not None:
            try:
                return self.registries[port].resolve(name)
            except RegistryError as error:
                others = [other for other, registry in self.registries.items() if other != port and name in registry]
                if others and not error.message.startswith("several"):
                    raise RegistryError(
                        f"'{name}' is {a(others[0])}, here {a(port)} is needed", mend="`treenail adapters` lists them"
                    ) from None
                raise
        found = {id(target): target for target in self._anywhere(name) if fits(target, slot)}
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            raise RegistryError(f"'{name}' is known to several ports", mend="name it as module:attribute")
        known = [each for registry in self.registries.values() for each in registry.names()]
        raise RegistryError(f"unknown component '{name}'", mend=did_you_mean(name, known))

    def _anywhere(self, name: str) -> Iterable[Callable[..., object]]:
        for registry in self.registries.values():
            if name.rpartition(":")[2] in registry:
                yield registry.resolve(name)


def fits(target: Callable[..., object], slot: object) -> bool:
    """Return whether what a callable returns is of a slot's type, as far as its declaration tells."""
    if slot is Any or slot is object:
        return True
    if (get_origin(slot) or slot) is Callable:
        return not isinstance(target, type) or _has(target, "__call__")
    wanted = get_origin(slot) or slot
    produced: object = target
    if not isinstance(target, type):
        produced = getattr(target, "__annotations__", {}).get("return")
        if isinstance(produced, str):
            module = sys.modules.get(getattr(target, "__module__", ""))
            produced = getattr(module, produced.partition("[")[0], None)
        produced = get_origin(produced) or produced
    if not isinstance(wanted, type) or not isinstance(produced, type):
        return True
    if is_protocol(wanted):
        return all(_has(produced, name) for name in get_protocol_members(wanted) if _is_method(wanted, name))
    return issubclass(produced, wanted)


def _has(produced: type, name: str) -> bool:
    return any(name in vars(base) for base in produced.__mro__ if base is not object)


def _is_method(protocol: type, name: str) -> bool:
    return any(
        isinstance(vars(base).get(name), FunctionType) for base in protocol.__mro__
    )  # an attribute may be set later


def _kind(target: Callable[..., object]) -> str:
    for port, kind in PORTS.items():
        if isinstance(target, type) and not get_args(kind) and fits(target, kind):
            return a(port)
    return "a class" if isinstance(target, type) else "a function"


def type_name(slot: object) -> str:
    """Name a slot's type for messages: the port's name where it is one."""
    port = next((port for port, kind in PORTS.items() if kind == slot), None)
    return port or getattr(slot, "__name__", None) or str(slot)


def a(noun: str) -> str:
    """Put the indefinite article before a noun."""
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"
