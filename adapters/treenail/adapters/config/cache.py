"""Schemas kept between processes, so that a check need not import what a config names.

Deriving schemas imports torch, which takes seconds; reading them takes milliseconds. A stored schema is used only while
every file and package that it may depend on is unchanged, and only to check: what trains is derived anew.
"""

from __future__ import annotations

import importlib.util
import os
import site
import sys
import tempfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final, NoReturn

import msgspec
from msgspec import Struct

from treenail.adapters.config.catalog import Catalog, Names
from treenail.adapters.config.load import Checked, Source, check_document, read_source
from treenail.adapters.config.schema import ComponentSchema, RecordSchema, Schemas
from treenail.kernel import Adapter, MissingDependencyError, Namespace, RegistryError, did_you_mean, mix

_FORMAT: Final = 2


class NotStoredError(Exception):
    """Something is asked that only an import can answer; never shown, so it is none of our errors."""


class Stored(Struct):
    """What is stored.

    Args:
        format: Version of this format.
        environment: What `environment` returned.
        files: (time of modification in ns, size in bytes) of the files that the schemas came from.
        adapters: (package, declaration) of each adapter.
        namespaces: (package, declaration) of each namespace.
        members: Keys of the schemas of the namespaces' members, by port and name.
        targets: Keys of the schemas of adapters and imported components, by ``module:attribute``.
        origins: The files of the packages that these lie in, by name; another one may have come before it.
        schemas: The schemas.
    """

    format: int
    environment: str
    files: dict[str, tuple[int, int]]
    adapters: list[tuple[str, Adapter]]
    namespaces: list[tuple[str, Namespace]]
    members: dict[str, dict[str, str]]
    targets: dict[str, str]
    origins: dict[str, str]
    schemas: Schemas


class StoredNames(Names):
    """Names and schemas as they were stored; imports nothing."""

    def __init__(self, stored: Stored) -> None:
        super().__init__([*stored.adapters, *stored.namespaces])
        self._stored = stored

    @property
    def schemas(self) -> Schemas:
        """The stored schemas."""
        return self._stored.schemas

    def imported(self, name: str) -> ComponentSchema:
        """Return the schema of ``module.path:attribute`` if it was stored."""
        return self._schema(self._stored.targets.get(name))

    def import_components(self, module: str) -> None:
        """Ask for an import: what a module registers is for one config, and not stored."""
        _ask()

    def record(self, key: str) -> RecordSchema:
        """Return the schema of a record."""
        return self._stored.schemas.records[key] if key in self._stored.schemas.records else _ask()

    def names(self, port: str) -> list[str]:
        """Return every plain name of a port."""
        declared = [name for _, each in self.registries[port] for name in (each.name, *each.aliases)]
        return list(dict.fromkeys([*declared, *self._stored.members.get(port, ())]))

    def lookup(self, port: str, name: str) -> ComponentSchema:
        """Return the schema of a name of a port.

        Raises:
            RegistryError: It is unknown or ambiguous.
            MissingDependencyError: It needs a package that is not installed.
        """
        members = self._stored.members.get(port, {})
        adapter = self.registries[port].declared(name)
        if adapter is not None:
            return self._schema(self._stored.targets.get(adapter.target))
        if name in members:
            return self._schema(members[name])
        mend = did_you_mean(name, self.names(port)) or (
            "`treenail adapters` lists what is known, yours are named package.module:Name"
        )
        raise RegistryError(f"unknown {port} '{name}'", mend=mend)

    def _schema(self, key: str | None) -> ComponentSchema:
        found = self._stored.schemas.components.get(key) if key is not None else None
        return found if found is not None else _ask()


def _ask() -> NoReturn:
    raise NotStoredError("not stored")


class ConfigChecker:
    """Checks configs with stored schemas where there are some, else with schemas derived now, which it stores.

    Args:
        fresh: Derive all schemas now.
    """

    def __init__(self, *, fresh: bool = False) -> None:
        self._fresh = fresh
        self._stored: dict[tuple[Path, ...], StoredNames | None] = {}
        self._catalog: Catalog | None = None

    def check(self, source: Source) -> Checked:
        """Check the config of a run and build nothing.

        Raises:
            InvalidConfigError: Everything that is wrong in the config.
            ConfigError: The file cannot be read.
        """
        path, modules = list(sys.path), set(sys.modules)
        try:
            return self._check(source)
        finally:  # another config may have a module of the same name beside it
            sys.path[:] = path
            folder = None if source.folder is None else str(source.folder) + os.sep
            for name in set(sys.modules) - modules:
                if folder and (getattr(sys.modules[name], "__file__", None) or "").startswith(folder):
                    del sys.modules[name]

    def _check(self, source: Source) -> Checked:
        document, rules = read_source(source)
        data = document.data if isinstance(document.data, dict) else {}
        registers = bool(data.get("custom_imports"))
        imports = registers or bool(data.get("imports") or source.imports)
        beside = () if source.folder is None else (source.folder,)
        folders = (Path.cwd(), *beside) if imports else ()
        if not (document.has_originals or registers or self._fresh):
            if folders not in self._stored:
                self._stored[folders] = load_stored(folders)
            stored = self._stored[folders]
            try:
                if stored is not None:
                    return check_document(document, rules, stored, source.imports)
            except NotStoredError:
                del self._stored[folders]
        # What a config imports is for this config alone.
        catalog = Catalog(described=True) if imports or self._catalog is None else self._catalog
        self._catalog = self._catalog if imports else catalog
        try:
            return check_document(document, rules, catalog, source.imports)
        finally:
            if not registers:
                store(catalog, folders)


def load_stored(folders: Sequence[Path]) -> StoredNames | None:
    """Return what was stored for this environment, if nothing that it depends on has changed.

    Args:
        folders: Where modules are imported from besides the environment; none if nothing is.
    """
    try:
        stored = msgspec.msgpack.decode(_file(folders).read_bytes(), type=Stored)
    except (OSError, msgspec.DecodeError):
        return None
    right = stored.format == _FORMAT and stored.environment == environment() and stored.files == _stamps(stored.files)
    return StoredNames(stored) if right and stored.origins == _origins(stored.origins) else None


def store(catalog: Catalog, folders: Sequence[Path]) -> None:
    """Store every schema of a catalog; where there is no room or right to write, the next check takes longer.

    Args:
        catalog: What to store; its schemas are derived now.
        folders: Where modules are imported from besides the environment; none if nothing is.
    """
    targets, members = dict(catalog.imported_names), {port: {} for port in catalog.registries}  # type: dict[str, str], dict[str, dict[str, str]]
    adapters = [(scope, adapter) for registry in catalog.registries.values() for scope, adapter in registry]
    namespaces = [("", each) for registry in catalog.registries.values() for each in registry.namespaces]
    for port in catalog.registries:
        declared = {name for _, each in catalog.registries[port] for name in (each.name, *each.aliases)}
        for name in catalog.names(port):
            if name not in declared:
                members[port][name] = catalog.lookup(port, name).target
    for _, adapter in adapters:
        if not adapter.missing():
            try:
                targets[adapter.target] = catalog.imported(adapter.target).target
            except (RegistryError, MissingDependencyError):
                continue  # a broken adapter is reported when it is named
    catalog.derivation.record(_run_struct())
    packages = {target.partition(":")[0].partition(".")[0] for target in targets} - {"torch"}
    stored = Stored(
        format=_FORMAT,
        environment=environment(),
        files=_stamps(_files_of(packages)),
        adapters=adapters,
        namespaces=namespaces,
        members=members,
        targets=targets,
        origins=_origins(packages),
        schemas=catalog.schemas,
    )
    try:
        content = msgspec.msgpack.encode(stored)
    except (TypeError, ValueError, OverflowError):  # a declaration of somebody's holds what cannot be stored
        return
    _write(_file(folders), content)


def _run_struct() -> object:
    from treenail.contracts import Run

    return Run


def environment() -> str:
    """Return a text that changes when Python or an installed distribution does."""
    packages = [f"{path}:{_stamp(path)}" for path in _site_packages()]
    return "|".join([sys.version, sys.prefix, os.environ.get("PYTHONPATH", ""), *packages])


def _site_packages() -> list[str]:
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    return sorted({*folders, *(path for path in sys.path if path.endswith(("site-packages", "dist-packages")))})


def _files_of(packages: Collection[str]) -> Iterable[str]:
    """Yield the files of modules: of some packages, and of all that lie outside of Python and its site-packages."""
    foreign = (os.path.dirname(os.__file__) + os.sep, *(f"{path}{os.sep}" for path in _site_packages()))
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and (name.partition(".")[0] in packages or not file.startswith(foreign)) and os.path.exists(file):
            yield file


def _origins(packages: Iterable[str]) -> dict[str, str]:
    """Return which file each package would be imported from; a name without dots is found without importing it."""
    found = {}
    for package in packages:
        try:
            spec = importlib.util.find_spec(package)
        except (ImportError, ValueError):
            spec = None
        found[package] = str(spec.origin or spec.submodule_search_locations) if spec else ""
    return found


def _stamps(files: Iterable[str]) -> dict[str, tuple[int, int]]:
    return {file: _stamp(file) for file in files}


def _stamp(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


def _file(folders: Sequence[Path]) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    name = mix(sys.prefix, sys.version, *(str(folder.absolute()) for folder in folders))
    return Path(home) / "treenail" / f"schemas-{name:016x}.msgpack"


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(beside, path)
    except OSError:
        return
