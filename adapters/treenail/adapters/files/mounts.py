"""Which backend serves a URI: the one mounted at its longest prefix, else the one of its scheme."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import quote

from treenail.adapters.files.cache import FileCache
from treenail.adapters.files.local import LocalFiles
from treenail.adapters.files.memory import MemoryFiles
from treenail.adapters.files.mirror import LocalMirror
from treenail.adapters.files.paths import absolute, check_path, join_uri, local_path_of, path_below, redacted, scheme_of
from treenail.contracts.files import HasLocalPaths, SplitsUris
from treenail.kernel import (
    Adapter,
    FileBackend,
    FileError,
    Late,
    MissingDependencyError,
    Spec,
    did_you_mean,
    import_target,
    installed_adapters,
    name_of,
)

if TYPE_CHECKING:
    from treenail.contracts.run import Files  # imports torch

MAX_FORWARDS = 16
_MOST_OPENED = 256  # each signed URL is a root of its own


class LocalCopies(Protocol):
    """Keeps local copies of what is read from a store, as new as the store's files: `FileCache` and `LocalMirror`."""

    def read(self, backend: FileBackend, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return what `backend.read` would, from the copy."""
        ...

    def local_copy(self, backend: FileBackend, path: str) -> AbstractContextManager[Path]:
        """Give the copy's path for a block; it must not be written to."""
        ...

    def forget(self, backend: FileBackend, path: str) -> None:
        """Ask the store the next time; for whoever changed the file."""
        ...


class Place(NamedTuple):
    """A path of a backend; "" is its root."""

    backend: FileBackend
    path: str
    cache: LocalCopies | None = None
    """Where local copies of it are kept; None when it is local, or none are kept."""

    @property
    def uri(self) -> str:
        """The whole URI, for people and messages."""
        return join_uri(self.backend.uri, self.path)

    @property
    def local(self) -> Path | None:
        """Where it lies on a local disk; None where it does not."""
        if not isinstance(self.backend, HasLocalPaths):
            return None
        # The root itself is no path of a file.
        return self.backend.local_path(self.path) if self.path else self.backend.local_path("x").parent

    def below(self, path: str) -> Place:
        """Return what lies at a path below this directory."""
        return self._replace(path=path_below(self.path, path))

    def file(self) -> str:
        """Return the path, which must be that of a file.

        Raises:
            FileError: It is the root.
        """
        if not self.path:
            raise FileError("this is a root, not a file", where=self.uri, mend="name a file below it")
        return self.path

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        """Return bytes of the file, from the local copy where one is kept.

        Raises:
            FileMissingError: There is no such file.
            FileError: It is a root, or the store failed.
        """
        path = self.file()
        if self.cache is None:
            return self.backend.read(path, start, length)
        return self.cache.read(self.backend, path, start, length)

    def forget(self) -> None:
        """Let no local copy stand for what was there before; for whoever changed the file."""
        if self.cache is not None:
            self.cache.forget(self.backend, self.path)


class _Led(NamedTuple):
    """Where mounts lead: `rest` below a mounted backend or a confined local directory; else to `canonical` itself."""

    canonical: str
    rest: str = ""
    mount: str | None = None
    confined: bool = False


class Mounts:
    """Finds the backend of a URI or local path; safe between threads.

    Local paths are taken from the current directory. A prefix matches whole parts: ``data/`` serves ``data`` and
    ``data/x``, never ``database/x``. A scheme that nothing serves is an error, never a local path.

    Args:
        mounts: What lies at a prefix (a URI or a local directory): another URI or directory, or a backend whose root
            stands for the prefix.
        schemes: How the backends of a scheme are made, in the place of the adapter that declares the scheme; the first
            argument of each is the root's URI.
        cache: Keeps local copies of what is read from other than local backends.
        mirrors: Directories whose files are kept, once read, in a local directory under the same names, in the place of
            the cache.
    """

    def __init__(
        self,
        mounts: Mapping[str, str | Spec[FileBackend]] = {},  # read only
        *,
        schemes: Mapping[str, Late[str, FileBackend]] = {},  # read only
        cache: LocalCopies | None = None,
        mirrors: Mapping[str, str] = {},  # read only
    ) -> None:
        self._remake = partial(Mounts, schemes=dict(schemes), cache=cache, mirrors=dict(mirrors)), (dict(mounts),)
        self._cache = cache
        self._mirrors: dict[str, str] = {}
        self._mounts: dict[str, str | Spec[FileBackend] | FileBackend] = {}
        self._schemes = {_check_scheme(scheme): late for scheme, late in schemes.items()}
        self._opened: dict[str, FileBackend] = {}
        self._lock = threading.RLock()
        for prefix, target in mounts.items():
            if prefix and _canonical(prefix) in self._mounts:
                raise FileError("two mounts have this prefix", where=redacted(prefix), mend="take one of them out")
            self.mount(prefix, target)
        for prefix, folder in mirrors.items():
            self._mirror(prefix, folder)

    def __reduce__(self) -> tuple[object, ...]:
        """Let another process make the same mounts; what `mount` added later is not among them."""
        return self._remake

    def mount(self, prefix: str | os.PathLike[str], target: str | Spec[FileBackend] | FileBackend) -> None:
        """Let a backend, or what lies at another URI, stand at a prefix from now on.

        Raises:
            FileError: The prefix is empty.
        """
        if not os.fspath(prefix):
            raise FileError("a mount needs a prefix", mend="write a directory, or scheme://name")
        if not target or not isinstance(target, str | Spec | FileBackend):
            given = "an empty text" if target == "" else f"a {type(target).__name__}"  # a repr may hold credentials
            raise FileError(
                f"{given} cannot be mounted",
                where=redacted(os.fspath(prefix)),
                mend="give a directory, a URI or a backend",
            )
        with self._lock:
            self._mounts[_canonical(prefix)] = target

    def unmount(self, prefix: str | os.PathLike[str]) -> None:
        """Forget what `mount` put at a prefix.

        Raises:
            FileError: Nothing is mounted there.
        """
        with self._lock:
            if self._mounts.pop(_canonical(prefix), None) is None:
                raise FileError("nothing is mounted there", where=os.fspath(prefix), mend=self._known_mounts())

    def resolve(self, uri: str | os.PathLike[str]) -> Place:
        """Return the backend of a URI or local path, and the path in it; nothing is read.

        Raises:
            FileError: Nothing serves the scheme, the URI is malformed, or mounts lead to each other for ever.
            MissingDependencyError: The backend needs a package that is not installed.
        """
        canonical = _canonical(uri)
        place = self._resolve(canonical, os.fspath(uri))
        return place._replace(cache=self._copies(place))

    def prefixes(self) -> dict[str, str]:
        """Return what is mounted: prefix → URI, the longest first, without credentials."""
        with self._lock:
            mounts = sorted(self._mounts.items(), key=lambda item: -len(item[0]))
        return {redacted(prefix): _described(target) for prefix, target in mounts}

    def _mirror(self, prefix: str, folder: str) -> None:
        if not folder or scheme_of(folder) not in {None, "file"}:
            mend = "write prefix: directory; what lies in a store is mounted"
            raise FileError("a mirror needs a local directory", where=redacted(prefix), mend=mend)
        source, target = _canonical(prefix), _canonical(folder)
        if source in self._mirrors or target in self._mirrors.values():
            mend = "give each prefix one directory of its own"
            raise FileError("two mirrors have this prefix or directory", where=redacted(prefix), mend=mend)
        self._mirrors[source] = target

    def _copies(self, place: Place) -> LocalCopies | None:
        """Return what keeps local copies of a place."""
        if place.backend.capabilities.local:
            return None
        sources = {self._resolve(prefix, prefix): folder for prefix, folder in self._mirrors.items()}
        mirrored = [
            each for each in sources if each.backend is place.backend and _is_below(f"/{place.path}", f"/{each.path}")
        ]
        if not mirrored:
            return self._cache
        nearest = max(mirrored, key=lambda each: len(each.path))
        return LocalMirror(nearest.path, sources[nearest])

    def check(self, uri: str | os.PathLike[str]) -> None:
        """Raise what `resolve` would, but for what only an opened store can tell: no backend is made.

        Raises:
            FileError: Nothing serves the scheme, the URI is malformed, or mounts lead to each other for ever.
            MissingDependencyError: The backend needs a package that is not installed.
        """
        led = self._follow(_canonical(uri), os.fspath(uri))
        if led.mount is None and not led.confined and scheme_of(led.canonical) is not None:
            self._root_of(led.canonical, os.fspath(uri))

    def _resolve(self, canonical: str, given: str) -> Place:
        with self._lock:  # what is mounted stays while it is found and built
            led = self._follow(canonical, given)
            if led.confined:
                return Place(_confined(led.canonical), led.rest)
            if led.mount is None:
                return self._by_scheme(led.canonical, given)
            target = self._mounts[led.mount]
            if isinstance(target, Spec):
                with use_mounts(self):  # an archive lies at a URI itself
                    target = self._mounts[led.mount] = target.build()
        assert not isinstance(target, str), "these are followed"
        return Place(target, check_path(led.rest, target.uri, root=True))

    def _follow(self, canonical: str, given: str) -> _Led:
        """Go from mount to mount until a backend, a local directory or a scheme serves the path."""
        for _ in range(MAX_FORWARDS + 1):
            prefix = self._longest_mount(canonical)
            if prefix is None:
                return _Led(canonical)
            rest = canonical[len(prefix) :].lstrip("/")
            with self._lock:
                target = self._mounts[prefix]
            if not isinstance(target, str):
                return _Led(canonical, rest, mount=prefix)
            check_path(rest, redacted(prefix), root=True)
            canonical = _canonical(target)
            if rest:  # is names, which HTTP alone would read otherwise
                below = quote(rest) if scheme_of(canonical) in {"http", "https"} else rest
                if scheme_of(canonical) is None and self._longest_mount(join_uri(canonical, rest)) is None:
                    return _Led(canonical, rest, confined=True)  # no symbolic link may lead out of what is mounted
                canonical = join_uri(canonical, below)
        raise FileError("mounts lead to each other", where=redacted(given), mend=self._known_mounts())

    def _longest_mount(self, canonical: str) -> str | None:
        with self._lock:
            fitting = [prefix for prefix in self._mounts if _is_below(canonical, prefix)]
        return max(fitting, key=len, default=None)

    def _by_scheme(self, canonical: str, given: str) -> Place:
        scheme = scheme_of(canonical)
        if scheme is None:
            path = Path(canonical)
            return Place(_local(path.anchor), path.relative_to(path.anchor).as_posix() if path.name else "")
        make, root, below = self._root_of(canonical, given)
        with self._lock:
            backend = self._opened.pop(root, None)
            if backend is None:
                with use_mounts(self):  # an archive lies at a URI itself
                    backend = make(root)
            self._opened[root] = backend  # the last one used is last
            if len(self._opened) > _MOST_OPENED:
                del self._opened[next(iter(self._opened))]
        return Place(backend, check_path(below, backend.uri, root=True))

    def _root_of(self, canonical: str, given: str) -> tuple[Callable[[str], FileBackend], str, str]:
        """Return what makes the backend of a URI, the URI of its root, and the path below it."""
        scheme = scheme_of(canonical) or ""
        late = self._schemes.get(scheme)
        factory = _adapter_of(scheme, given) if late is None else late.target
        split = factory.split_uri if isinstance(factory, SplitsUris) else split_at_authority
        return partial(_open, factory) if late is None else late.build, *split(canonical)

    def _known_mounts(self) -> str:
        return f"mounted are {self.prefixes()}"


@functools.cache
def declared_schemes() -> dict[str, Adapter]:
    """Return which installed adapter serves each scheme; the first that declares it.

    fsspec's schemes come last: what any adapter serves itself is served by it.
    """
    found: dict[str, Adapter] = {}
    general: Adapter | None = None
    for _, adapter in installed_adapters():
        if isinstance(adapter, Adapter) and adapter.port == "files":
            found |= {scheme: adapter for scheme in adapter.schemes if scheme not in found}
            general = adapter if adapter.name == "fsspec" else general
    if general is not None and not general.missing():
        from fsspec.registry import known_implementations  # only where it is installed

        found |= {scheme: general for scheme in known_implementations if scheme not in found}
    return found


def _adapter_of(scheme: str, given: str) -> Callable[[str], FileBackend]:
    """Return what makes backends of a scheme."""
    declared = declared_schemes()
    adapter = declared.get(scheme)
    if adapter is None:
        near = did_you_mean(scheme, declared, cutoff=0.5)
        ours = sorted(name for name, each in declared.items() if each.name != "fsspec")
        known = f"there are {', '.join(ours)}, and what fsspec knows (pip install 'treenail[fsspec]')"
        raise FileError(
            f"nothing serves the scheme '{scheme}'",
            where=redacted(given),
            mend=f"{near} {known}" if near else known,
        )
    if missing := adapter.missing():
        raise MissingDependencyError(
            f"'{scheme}://' needs {' and '.join(missing)}, not installed here",
            where=redacted(given),
            mend=f"pip install '{adapter.install or ' '.join(missing)}'",
        )
    return import_target(adapter.target)


_in_memory = functools.cache(MemoryFiles)  # one for each root, which lasts as long as the process


def _open(factory: Callable[[str], FileBackend], root: str) -> FileBackend:
    return _in_memory(root) if factory is MemoryFiles else factory(root)


_CHOSEN: ContextVar[Mounts | None] = ContextVar("treenail_mounts", default=None)


@functools.cache
def _unmounted() -> Mounts:
    return Mounts()


def current_mounts() -> Mounts:
    """Return the mounts in use here; without any, local paths and the schemes of the installed adapters."""
    return _CHOSEN.get() or _unmounted()


def resolved(path: str | os.PathLike[str], mounts: Mounts | None) -> Place:
    """Return where a path lies by these mounts, or by those in use when None; see `Mounts.resolve`."""
    return (current_mounts() if mounts is None else mounts).resolve(path)


@contextmanager
def use_mounts(mounts: Mounts) -> Iterator[Mounts]:
    """Let every function of `treenail.adapters.files` find backends by these mounts in the block."""
    token = _CHOSEN.set(mounts)
    try:
        yield mounts
    finally:
        _CHOSEN.reset(token)


def mounts_of(files: Files) -> Mounts:
    """Return what a config says of files.

    Raises:
        FileError: A scheme or prefix is malformed, or the cache's folder cannot be made.
    """
    cache = files.cache
    kept = None if cache is None else FileCache(cache.folder, max_bytes=cache.max_bytes, max_age=cache.max_age)
    return Mounts(files.mounts, schemes=files.schemes, cache=kept, mirrors=files.mirrors)


def split_at_authority(uri: str) -> tuple[str, str]:
    """Return ("scheme://authority", "path") of a URI."""
    scheme, _, rest = uri.partition("://")
    authority, _, path = rest.partition("/")
    return f"{scheme}://{authority}", path.rstrip("/")


@functools.cache
def _local(anchor: str) -> LocalFiles:
    return LocalFiles(anchor, prune=False)


@functools.lru_cache(maxsize=256)
def _confined(directory: str) -> LocalFiles:
    return LocalFiles(directory, prune=False)


def _canonical(uri: str | os.PathLike[str]) -> str:
    """Return an absolute local path or a URI, without a slash at its end."""
    text = os.fspath(uri)
    if not text or "\0" in text:
        raise FileError(f"{text!r} is no path", mend="name a file or a directory")
    scheme = scheme_of(text)
    if scheme == "file":
        return os.path.abspath(local_path_of(text))
    if scheme is None:
        return os.path.abspath(absolute(os.path.expanduser(text)))
    rest = text[len(scheme) + 3 :]
    return f"{scheme}://{rest if '?' in rest or '#' in rest else rest.rstrip('/')}"


def _is_below(canonical: str, prefix: str) -> bool:
    return canonical == prefix or canonical.startswith(prefix if prefix.endswith("/") else f"{prefix}/")


def _check_scheme(scheme: str) -> str:
    name = scheme.removesuffix("://").lower()
    if scheme_of(f"{name}://") != name:
        raise FileError(f"{scheme!r} is no scheme", mend="write its name alone, such as s3")
    return name


def _described(target: str | Spec[FileBackend] | FileBackend) -> str:
    if isinstance(target, str):
        return redacted(target)
    return name_of(target.target) if isinstance(target, Spec) else redacted(target.uri)
