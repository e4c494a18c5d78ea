"""Names to callables, one registry a port; packages declare adapters, nothing is imported until it is named."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, NamedTuple, ParamSpec, TypeVar, overload

from treenail.kernel.errors import MissingDependencyError, RegistryError, did_you_mean

T = TypeVar("T")
P = ParamSpec("P")

ENTRY_POINT_GROUP = "treenail.adapters"


class Adapter(NamedTuple):
    """What a package offers for a port, as data.

    Args:
        port: Name of the port: ``"sampler"``, ``"hook"``, ``"files"`` …
        name: The name a config writes after ``type:``.
        target: Where the callable lies: ``"package.module:attribute"``.
        aliases: Further names for the same callable.
        requires: Modules that must be installed for it to work.
        install: What to install when they are not, for example ``"treenail[onnx]"``.
        summary: One line for listings.
        schemes: Of URIs that a file backend serves; it is made with the root's URI as its first argument.
    """

    port: str
    name: str
    target: str
    aliases: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    install: str | None = None
    summary: str = ""
    schemes: tuple[str, ...] = ()

    def missing(self) -> tuple[str, ...]:
        """Return the required modules that cannot be found, without importing them."""
        return tuple(module for module in self.requires if not _is_installed(module))


class Namespace(NamedTuple):
    """A module whose public classes or functions are all nameable for a port, under their own names.

    Args:
        port: Name of the port.
        module: The module: ``"torch.optim"``.
        base: ``"module:class"`` that eligible classes derive from, or None for the module's public functions.
        match: Regular expression that the whole of a name must match.
    """

    port: str
    module: str
    base: str | None = None
    match: str = ".*"

    def members(self, only: str | None = None) -> dict[str, Callable[..., object]]:
        """Import the module and return its eligible components by name, or the one of a name; none if it is not here."""
        if not _is_installed(self.module):
            return {}
        module = importlib.import_module(self.module)
        pattern = re.compile(rf"(?!_)(?:{self.match})")
        names = [
            name for name in ([only] if only else dir(module)) if pattern.fullmatch(name) and hasattr(module, name)
        ]
        found = {name: getattr(module, name) for name in names}
        if self.base is not None:
            base = import_target(self.base)
            return {name: member for name, member in found.items() if _is_below(member, base)}
        return {
            name: member
            for name, member in found.items()
            if callable(member)
            and not isinstance(member, type)
            and getattr(member, "__module__", "").startswith(("torch", self.module))
        }


class Registry(Generic[T]):
    """The adapters of one port.

    A plain name is looked up among the declared adapters, then among the namespaces; ``package:name`` asks for the
    adapter that the package declared; two packages that declare one name must be told apart that way.

    Args:
        port: Name of the port, for messages.
    """

    def __init__(self, port: str) -> None:
        self.port = port
        self._by_name: dict[str, list[tuple[str, Adapter]]] = {}
        self._callables: dict[str, Callable[..., T]] = {}
        self._namespaces: list[Namespace] = []
        self._adapters: list[tuple[str, Adapter]] = []

    def declare(self, declaration: Adapter | Namespace, scope: str = "") -> None:
        """Add a declaration of a package (``scope``).

        Raises:
            RegistryError: It is for another port, or the package declared the name before.
        """
        if declaration.port != self.port:
            raise RegistryError(f"'{declaration}' is for the port '{declaration.port}', this is '{self.port}'")
        if isinstance(declaration, Namespace):
            self._namespaces.append(declaration)
            return
        self._adapters.append((scope, declaration))
        for name in (declaration.name, *declaration.aliases):
            rivals = self._by_name.setdefault(name, [])
            if name in self._callables or any(scope == other for other, _ in rivals):
                raise RegistryError(
                    f"the {self.port} '{name}' is registered twice",
                    where=f"package '{scope}'" if scope else None,
                    mend="choose another name",
                )
            rivals.append((scope, declaration))

    @overload
    def register(self, target: Callable[P, T], /, *names: str, force: bool = False) -> Callable[P, T]: ...
    @overload
    def register(
        self, name: str = "", /, *aliases: str, force: bool = False
    ) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
    def register(
        self, first: Callable[P, T] | str = "", /, *others: str, force: bool = False
    ) -> Callable[P, T] | Callable[[Callable[P, T]], Callable[P, T]]:
        """Register a class or function of this process: ``@register``, ``@register("name")``, ``register(Mine, "name")``.

        Args:
            first: What to register, or a name of it.
            others: Names; its ``__name__`` when there are none.
            force: Replace what the names stand for.

        Raises:
            RegistryError: A name is taken, or there is none.
        """
        if isinstance(first, str):
            return lambda target: self.register(target, *filter(None, (first, *others)), force=force)
        names = others or (getattr(first, "__name__", ""),)
        for name in names:
            if not name or (not force and (name in self._callables or name in self._by_name)):
                problem = f"'{name}' is registered twice" if name else f"{first!r} has no name of its own"
                raise RegistryError(f"the {self.port} {problem}", mend="choose another name")
        self._callables.update(dict.fromkeys(names, first))
        return first

    def unregister(self, name: str) -> None:
        """Forget what was registered under a name; a declaration that it had replaced is back.

        Raises:
            RegistryError: Nothing was registered under the name in this process.
        """
        if self._callables.pop(name, None) is None:
            raise RegistryError(f"no {self.port} '{name}' was registered", mend=did_you_mean(name, self._callables))

    @property
    def registered(self) -> Mapping[str, Callable[..., T]]:
        """What was registered in this process, by name."""
        return dict(self._callables)

    def declared(self, name: str) -> Adapter | None:
        """Return the declaration that a name or ``package:name`` stands for, None where there is none; imports nothing.

        Raises:
            RegistryError: Several packages declare the name.
            MissingDependencyError: The adapter needs a package that is not installed.
        """
        scope, _, plain = name.rpartition(":")
        candidates = [each for each in self._by_name.get(plain, []) if not scope or each[0] == scope]
        if len(candidates) > 1:
            choices = ", ".join(f"'{owner}:{plain}'" for owner, _ in candidates)
            raise RegistryError(f"several packages offer a {self.port} '{plain}'", mend=f"write one of {choices}")
        if not candidates:
            return None
        adapter = candidates[0][1]
        if missing := adapter.missing():
            raise MissingDependencyError(
                f"the {self.port} '{name}' needs {' and '.join(missing)}, not installed here",
                mend=f"pip install '{adapter.install or ' '.join(missing)}'",
            )
        return adapter

    def resolve(self, name: str) -> Callable[..., T]:
        """Return the callable that a name stands for, importing its module now.

        Raises:
            RegistryError: The name is unknown (with the nearest one), ambiguous, or leads nowhere.
            MissingDependencyError: The adapter needs a package that is not installed.
        """
        if name in self._callables:
            return self._callables[name]
        adapter = self.declared(name)
        if adapter is not None:
            return import_target(adapter.target)
        if ":" not in name:
            for namespace in self._namespaces:
                member = namespace.members(name).get(name)
                if member is not None:
                    return member  # type: ignore[return-value]  # the namespace's base is the port's type
        mend = did_you_mean(name, self.names()) or (
            "`treenail adapters` lists what is known, yours are named package.module:Name"
        )
        raise RegistryError(f"unknown {self.port} '{name}'", mend=mend)

    def names(self) -> list[str]:
        """Return every plain name that `resolve` knows, declared ones first."""
        names = dict.fromkeys([*self._callables, *self._by_name])
        for namespace in self._namespaces:
            names.update(dict.fromkeys(namespace.members()))
        return list(names)

    def __contains__(self, name: str) -> bool:
        return name in self.names()

    def __iter__(self) -> Iterator[tuple[str, Adapter]]:
        """Yield (package, declaration) in the order of declaration."""
        return iter(self._adapters)

    @property
    def namespaces(self) -> tuple[Namespace, ...]:
        """The modules whose members are nameable under their own names."""
        return tuple(self._namespaces)


def installed_adapters() -> Iterator[tuple[str, Adapter | Namespace]]:
    """Yield (package, declaration) of every installed distribution that has the entry-point group `treenail.adapters`.

    The entry point's name is the package's scope, its value an iterable of `Adapter` and `Namespace`.

    Raises:
        RegistryError: An entry point cannot be loaded or holds something else.
    """
    from importlib.metadata import entry_points  # costs as much to import as the rest of the kernel

    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        try:
            declarations = point.load()
        except Exception as error:
            raise RegistryError(
                f"the adapters of '{point.name}' cannot be loaded: {type(error).__name__}: {error}",
                where=f"entry point {point.value}",
                mend="repair or uninstall that package",
            ) from error
        if not isinstance(declarations, Iterable):
            raise RegistryError("not an iterable of Adapter and Namespace", where=f"entry point {point.value}")
        for declaration in declarations:
            if not isinstance(declaration, Adapter | Namespace):
                raise RegistryError(f"{declaration!r} is no Adapter or Namespace", where=f"entry point {point.value}")
            yield point.name, declaration


def import_target(target: str) -> Callable[..., T]:
    """Import ``"package.module:attribute"`` and return the attribute.

    Raises:
        RegistryError: The form is wrong, importing the module raises, or it has no such callable.
    """
    module_name, _, path = target.partition(":")
    if not module_name or not path:
        raise RegistryError(f"'{target}' does not name a component", mend="write 'package.module:attribute'")
    try:
        found: object = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        absent = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}.")
        if absent:
            raise RegistryError(f"'{target}': {error}", mend="is the module on the Python path?") from error
        problem = getattr(error, "msg", None) or str(error)  # a SyntaxError's text would name the place twice
        raise RegistryError(
            f"'{target}' cannot be imported: {type(error).__name__}: {problem}", where=_raised_at(error)
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            mend = did_you_mean(part, [name for name in dir(found) if not name.startswith("_")])
            raise RegistryError(f"'{target}': '{part}' is not in the module", mend=mend)
        found = getattr(found, part)
    if not callable(found):
        raise RegistryError(f"'{target}' is a {type(found).__name__}, not a class or function")
    return found


def _raised_at(error: BaseException) -> str | None:
    """Return ``file:line`` of what an imported module did wrong; None if the import never came to a file."""
    import traceback  # only needed once something went wrong

    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    own = (__file__, importlib.__file__, "<frozen")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(own)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


def _is_below(member: object, base: object) -> bool:
    return isinstance(member, type) and isinstance(base, type) and issubclass(member, base) and member is not base


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
