"""The imports of a module that is being written, and the names that they give."""

from __future__ import annotations

import functools
import sys
import sysconfig
from collections.abc import Iterable
from typing import Final

from treenail.kernel import ConfigError

_BY_MODULE: Final = {"torch": "", "torch.nn": "nn", "torch.nn.init": "nn.init"}
"""Modules that people name their members by: ``torch.float32``, ``nn.Conv2d``."""

_STAR_IMPORTED: Final = ("torch.nn",)
"""Packages that make public what they import, without an ``__all__``."""


class Imports:
    """Collects imports; two things never get one name.

    Args:
        own: Names that the module defines itself.
    """

    def __init__(self, own: Iterable[str]) -> None:
        self._taken: dict[str, str] = dict.fromkeys(own, "")
        self._plain: set[str] = set()
        self._from: dict[str, set[str]] = {}

    def keep(self, module: str, name: str) -> None:
        """Let a name stand for an attribute of a module only, whether it will be imported or not."""
        self._taken[name] = f"{module}:{name}"

    def name(self, module: str, attribute: str) -> str:
        """Import an attribute of a module; return the expression that it is then known by."""
        if module == "builtins":
            return attribute
        if module in _BY_MODULE:
            return self._by_module(module, attribute)
        first = attribute.partition(".")[0]
        origin = f"{module}:{first}"
        if self._taken.setdefault(first, origin) != origin:
            return f"{self.module(module)}.{attribute}"
        self._from.setdefault(module, set()).add(first)
        return attribute

    def _by_module(self, module: str, attribute: str) -> str:
        alias = _BY_MODULE[module]
        first = alias.partition(".")[0]
        if not first or self._taken.setdefault(first, "torch.nn") != "torch.nn":
            return f"{self.module(module)}.{attribute}"
        self._from.setdefault("torch", set()).add(first)
        return f"{alias}.{attribute}"

    def module(self, module: str) -> str:
        """Import a module by its full name, and return that."""
        self._plain.add(module)
        self._taken.setdefault(module.partition(".")[0], module.partition(".")[0])
        return module

    def own_name(self, wanted: str) -> str:
        """Return a name, with a number where it is taken, for what the module defines."""
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken[name] = ""
        return name

    def text(self) -> str:
        """Return the import statements, in isort's order."""
        sections: list[list[str]] = [[], [], []]
        for module in sorted(self._plain):
            sections[_section(module)].append(f"import {module}")
        for module in sorted(self._from):
            sections[_section(module)].append(_from_import(module, sorted(self._from[module], key=_order)))
        return "\n\n".join("\n".join(section) for section in sections if section)


def _order(name: str) -> tuple[int, str]:
    """Sort as isort does: CONSTANTS, Classes, functions."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2, name)


def _from_import(module: str, names: list[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= 120:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"


def _section(module: str) -> int:
    """Return 0 for the standard library, 1 for installed packages, 2 for Treenail and modules beside the config."""
    package = module.partition(".")[0]
    if package in sys.stdlib_module_names:
        return 0
    file = getattr(sys.modules.get(package), "__file__", None)
    installed = file is None or file.startswith((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    return 1 if installed and package != "treenail" else 2


def public_place(target: object, key: str, named: str | None, others: Iterable[str]) -> tuple[str, str]:
    """Return (module, attribute) that a callable or class is best imported by.

    Args:
        target: What is to be imported.
        key: ``module:qualname`` as it names itself.
        named: ``module:attribute`` that the config named it by, if it did.
        others: Modules that may hold it where it does not know its own.

    Raises:
        ConfigError: No import can name it.
    """
    if named is not None:
        module, _, attribute = named.partition(":")
        if _holds(module, attribute, target):
            return module, attribute
    home, _, qualname = key.partition("#")[0].partition(":")
    if home == "builtins":
        return home, qualname
    parts = home.split(".")
    for length in range(1, len(parts) + 1):
        module = ".".join(parts[:length])
        public = module == home or module in _STAR_IMPORTED or qualname.partition(".")[0] in _exports(module)
        if public and not any(part.startswith("_") for part in parts[:length]) and _holds(module, qualname, target):
            return module, qualname
    plain = getattr(target, "__name__", qualname)
    for module in (*others, home):
        if _holds(module, plain, target):
            return module, plain
    mend = "define it at the top level of a module"
    raise ConfigError(f"{key} has no name that can be imported", mend=mend)


def _exports(module: str) -> Iterable[str]:
    return getattr(sys.modules.get(module), "__all__", ())


def _holds(module: str, attribute: str, target: object) -> bool:
    try:
        return bool(attribute) and functools.reduce(getattr, attribute.split("."), sys.modules[module]) == target
    except (KeyError, AttributeError):
        return False
