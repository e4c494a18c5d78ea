"""Which backend a name or a scheme means: mmengine's `register_backend`, `get_file_backend` and `FileClient`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar

from treenail.adapters.files.compat.backends import MountedBackend
from treenail.adapters.files.compat.errors import (
    ArgumentTypeError,
    ArgumentValueError,
    BackendNameError,
    ContentError,
)
from treenail.adapters.files.compat.storage import BaseStorageBackend, text_of
from treenail.adapters.files.compat.stores import (
    HardDiskBackend,
    HTTPBackend,
    LmdbBackend,
    LocalBackend,
    MemcachedBackend,
    PetrelBackend,
)
from treenail.adapters.files.mounts import current_mounts, declared_schemes
from treenail.adapters.files.operations import AnyPath
from treenail.adapters.files.paths import redacted, scheme_of
from treenail.kernel import FileError, MissingDependencyError, did_you_mean

Arguments = Mapping[str, Any]  # of constructors of any backend
B = TypeVar("B", bound=type[BaseStorageBackend])
T = TypeVar("T")


class BackendTable:
    """Backends by name and by scheme, and those that were made; safe between threads.

    Args:
        names: Name → class.
        prefixes: Scheme → class; "" is that of paths without one.
    """

    def __init__(
        self, names: Mapping[str, type[BaseStorageBackend]], prefixes: Mapping[str, type[BaseStorageBackend]]
    ) -> None:
        self.names = dict(names)
        self.prefixes = dict(prefixes)
        self._made: dict[object, Any] = {}  # backends and clients of them
        self._lock = threading.RLock()

    def register(self, name: str, backend: object, force: bool, prefixes: str | Sequence[str] | None) -> None:
        """Add a class under a name and schemes.

        Raises:
            ArgumentTypeError: The name is no text, or the backend no subclass of `BaseStorageBackend`.
            BackendNameError: The name, or a scheme, is taken, and `force` is False.
        """
        if not isinstance(name, str):
            raise ArgumentTypeError(f"a backend's name is a str, not {name!r}")
        if not isinstance(backend, type) or not issubclass(backend, BaseStorageBackend):
            raise ArgumentTypeError(f"{backend!r} is no subclass of BaseStorageBackend", where=name)
        wanted = (prefixes,) if isinstance(prefixes, str) else tuple(prefixes or ())
        with self._lock:
            taken = [each for each in (name,) if each in self.names] + [
                each for each in wanted if each in self.prefixes
            ]
            if taken and not force:
                raise BackendNameError(f"{taken[0]!r} is registered already", mend="say force=True to replace it")
            replaced = {self.names.get(name), *(self.prefixes.get(each) for each in wanted)}
            self.names[name] = backend
            self.prefixes |= dict.fromkeys(wanted, backend)
            self._made = {
                key: made for key, made in self._made.items() if type(getattr(made, "client", made)) not in replaced
            }

    def named(self, name: str) -> type[BaseStorageBackend]:
        """Return the class of a name.

        Raises:
            BackendNameError: There is none.
        """
        if name not in self.names:
            near = did_you_mean(str(name), self.names)
            known = f"known are {', '.join(self.names)}"
            raise BackendNameError(f"there is no backend {name!r}", mend=f"{near} {known}" if near else known)
        return self.names[name]

    def made(self, key: object, make: Callable[[], T]) -> T:
        """Return what was made for a key at its first call."""
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
            found: T = self._made[key]
            return found


_BACKENDS = BackendTable(
    {
        "local": LocalBackend,
        "memcached": MemcachedBackend,
        "lmdb": LmdbBackend,
        "petrel": PetrelBackend,
        "http": HTTPBackend,
    },
    {"": LocalBackend, "petrel": PetrelBackend, "s3": PetrelBackend, "http": HTTPBackend, "https": HTTPBackend},
)
"""What `register_backend` adds to: registering in one place for the whole program is what that function is for."""


def register_backend(
    name: str,
    backend: type[BaseStorageBackend] | None = None,
    force: bool = False,
    prefixes: str | Sequence[str] | None = None,
) -> Callable[[B], B] | None:
    """Let `backend_args` and the io functions know a backend; a decorator without `backend`.

    Args:
        name: What ``backend_args={"backend": name}`` means from now on.
        backend: The class.
        force: Replace what has the name or a scheme.
        prefixes: Schemes, such as "s3".

    Raises:
        ArgumentTypeError: The name is no text, or the backend no subclass of `BaseStorageBackend`.
        BackendNameError: The name, or a scheme, is taken.
    """
    return _registered(_BACKENDS, name, backend, force, prefixes)


def get_file_backend(
    uri: AnyPath | None = None, *, backend_args: Arguments | None = None, enable_singleton: bool = False
) -> BaseStorageBackend:
    """Return a backend: the one that `backend_args` names, else the one of the URI's scheme.

    A scheme that is not registered is served as the mounts in use serve it.

    Args:
        uri: A path or URI.
        backend_args: "backend" is a name; the others are arguments of its constructor.
        enable_singleton: The same backend for the same arguments.

    Raises:
        ArgumentValueError: There is neither a URI nor a name.
        BackendNameError: There is no such name, or nothing serves the scheme.
    """
    arguments = dict(backend_args or {})
    name = arguments.pop("backend", None)
    prefix = "" if uri is None else prefix_of(uri) or ""
    if name is None and uri is None:
        raise ArgumentValueError("there is neither a uri nor a backend", mend="give one of them")

    def make() -> BaseStorageBackend:
        if name is not None:
            return _made(_BACKENDS.named(name), arguments)
        known = _BACKENDS.prefixes.get(prefix)
        if known is None and uri is not None:
            _check_resolves(uri)
            return _made(MountedBackend, arguments)
        return _made(known or LocalBackend, arguments)

    return _BACKENDS.made((name, prefix, _key(arguments)), make) if enable_singleton else make()


def prefix_of(uri: AnyPath) -> str | None:
    """Return what stands before ``://``, without a cluster's name; None for a local path."""
    text = str(uri)
    prefix, found, _ = text.partition("://")
    return prefix.rpartition(":")[2] if found else None


class FileClient:
    """A backend by name or scheme, the same object for the same arguments. The io functions do the same without it.

    Args:
        backend: "disk", "memcached", "lmdb", "petrel", "http" or a registered name; local disks without both.
        prefix: Or a scheme.
        **kwargs: Of the backend's constructor.

    Raises:
        BackendNameError: There is no such name, or nothing serves the scheme.
    """

    client: BaseStorageBackend
    _arguments: tuple[str | None, str | None, dict[str, Any]]

    def __new__(cls, backend: str | None = None, prefix: str | None = None, **kwargs: Any) -> Self:  # any backend's
        """Return the client of these arguments."""
        name = "disk" if backend is None and prefix is None else backend
        for scheme in () if prefix is None or prefix in _CLIENT_BACKENDS.prefixes else (prefix,):
            _check_served(scheme)

        def make() -> FileClient:
            made = object.__new__(cls)
            made._arguments = backend, prefix, kwargs
            if name is not None:
                made.client = _made(_CLIENT_BACKENDS.named(name), kwargs)
            else:
                made.client = _made(_CLIENT_BACKENDS.prefixes.get(prefix or "", MountedBackend), kwargs)
            return made

        found = _CLIENT_BACKENDS.made((cls, name, prefix, _key(kwargs)), make)
        assert isinstance(found, cls)
        return found

    def __reduce__(self) -> tuple[object, ...]:
        return _client, (type(self), *self._arguments)

    @property
    def name(self) -> str:
        """The name of the backend's class."""
        return self.client.name

    @property
    def allow_symlink(self) -> bool:
        """Whether the store has symbolic links."""
        return self.client.allow_symlink

    @staticmethod
    def parse_uri_prefix(uri: AnyPath) -> str | None:
        """Return the scheme of a URI, without a cluster's name; None for a local path."""
        return prefix_of(uri)

    @classmethod
    def infer_client(cls, file_client_args: Arguments | None = None, uri: AnyPath | None = None) -> Self:
        """Return the client of arguments, or else of a URI.

        Raises:
            ContentError: There is neither.
        """
        if file_client_args is not None:
            return cls(**file_client_args)
        if uri is None:
            raise ContentError("there are neither file_client_args nor a uri", mend="give one of them")
        return cls(prefix=prefix_of(uri))

    @classmethod
    def register_backend(
        cls,
        name: str,
        backend: type[BaseStorageBackend] | None = None,
        force: bool = False,
        prefixes: str | Sequence[str] | None = None,
    ) -> Callable[[B], B] | None:
        """Let clients know a backend; a decorator without `backend`. The io functions have a `register_backend` of their own.

        Raises:
            ArgumentTypeError: The name is no text, or the backend no subclass of `BaseStorageBackend`.
            BackendNameError: The name, or a scheme, is taken.
        """
        return _registered(_CLIENT_BACKENDS, name, backend, force, prefixes)

    def get(self, filepath: AnyPath) -> bytes:
        """Return the bytes of a file."""
        return self.client.get(filepath)

    def get_text(self, filepath: AnyPath, encoding: str = "utf-8") -> str:
        """Return a file as text."""
        return text_of(self.client, filepath, encoding)

    def put(self, obj: bytes, filepath: AnyPath) -> None:
        """Write bytes; missing directories are made."""
        self.client.put(obj, filepath)

    def put_text(self, obj: str, filepath: AnyPath, encoding: str = "utf-8") -> None:
        """Write a text; missing directories are made."""
        self.client.put_text(obj, filepath, encoding)

    def remove(self, filepath: AnyPath) -> None:
        """Remove a file."""
        self.client.remove(filepath)

    def exists(self, filepath: AnyPath) -> bool:
        """Return whether there is a file or directory."""
        return self.client.exists(filepath)

    def isdir(self, filepath: AnyPath) -> bool:
        """Return whether there is a directory."""
        return self.client.isdir(filepath)

    def isfile(self, filepath: AnyPath) -> bool:
        """Return whether there is a file."""
        return self.client.isfile(filepath)

    def join_path(self, filepath: AnyPath, *filepaths: AnyPath) -> str:
        """Return a path with parts below it."""
        return self.client.join_path(filepath, *filepaths)

    @contextmanager
    def get_local_path(self, filepath: AnyPath) -> Iterator[AnyPath]:
        """Give a local path for the block: a local file's own, or that of a copy, which goes after it."""
        with self.client.get_local_path(str(filepath)) as local:
            yield local

    def list_dir_or_file(
        self,
        dir_path: AnyPath,
        list_dir: bool = True,
        list_file: bool = True,
        suffix: str | tuple[str, ...] | None = None,
        recursive: bool = False,
    ) -> Iterator[str]:
        """Yield what lies in a directory, as paths relative to it."""
        yield from self.client.list_dir_or_file(dir_path, list_dir, list_file, suffix, recursive)


_CLIENT_BACKENDS = BackendTable(
    {
        "disk": HardDiskBackend,
        "memcached": MemcachedBackend,
        "lmdb": LmdbBackend,
        "petrel": PetrelBackend,
        "http": HTTPBackend,
    },
    {"petrel": PetrelBackend, "s3": PetrelBackend, "http": HTTPBackend, "https": HTTPBackend},
)
"""What `FileClient.register_backend` adds to."""


def _client(cls: type[FileClient], backend: str | None, prefix: str | None, kwargs: dict[str, Any]) -> FileClient:
    return cls(backend, prefix, **kwargs)


def _registered(
    table: BackendTable,
    name: str,
    backend: type[BaseStorageBackend] | None,
    force: bool,
    prefixes: str | Sequence[str] | None,
) -> Callable[[B], B] | None:
    if backend is not None:
        table.register(name, backend, force, prefixes)
        return None

    def register(decorated: B) -> B:
        table.register(name, decorated, force, prefixes)
        return decorated

    return register


def _made(factory: Callable[..., BaseStorageBackend], arguments: Arguments) -> BaseStorageBackend:
    try:
        return factory(**arguments)
    except TypeError as error:
        if isinstance(error, FileError):
            raise
        raise ArgumentTypeError(f"{factory.__name__} takes no such arguments: {error}") from error


def _key(arguments: Arguments) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, repr(value)) for name, value in arguments.items()))


def _check_resolves(uri: AnyPath) -> None:
    """Raise where the mounts in use do not serve a URI."""
    text = str(uri)
    try:
        current_mounts().resolve(uri)
    except MissingDependencyError:
        raise
    except FileError as error:
        raise BackendNameError(error.message, where=error.where, mend=error.mend) from error
    if scheme_of(text) is None:
        raise BackendNameError("this is neither a URI nor a local path", where=redacted(text), mend="write scheme://…")


def _check_served(scheme: str) -> None:
    """Raise where neither an installed adapter nor a mount has a scheme."""
    served = {*declared_schemes(), *(scheme_of(prefix) for prefix in current_mounts().prefixes())}
    if scheme not in served:
        known = ", ".join(sorted(each for each in served if each))
        raise BackendNameError(f"nothing serves the prefix {scheme!r}", mend=f"known are {known}")
