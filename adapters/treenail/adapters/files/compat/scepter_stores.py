"""What SCEPTER's `FS` is made of: its configs of stores, where it finds paths, its errors and its local copies."""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path, PurePosixPath
from shutil import rmtree
from typing import Any, NamedTuple, Protocol, Self
from uuid import uuid4

from treenail.adapters.files.compat.errors import AbsentError, ArgumentValueError, StoreFailedError, as_python_errors
from treenail.adapters.files.mirror import LocalMirror
from treenail.adapters.files.mounts import Mounts, Place, current_mounts, declared_schemes
from treenail.adapters.files.operations import AnyPath
from treenail.adapters.files.paths import check_path, local_path_of, scheme_of
from treenail.contracts.files import HasLocalPaths
from treenail.kernel import FileBackend, FileError, FileMissingError, Late, did_you_mean


class ReadException(StoreFailedError):  # noqa: N818  # SCEPTER's name
    """Something could not be read."""


class WriteException(StoreFailedError):  # noqa: N818  # SCEPTER's name
    """Something could not be written."""


class MissingObjectError(ReadException, AbsentError):
    """There is no such file or directory."""


class IoString(str):
    """A text that `with` gives as it is."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""


class IoBytes(bytes):
    """Bytes that `with` gives as they are."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""


@contextmanager
def reading() -> Iterator[None]:
    """Raise what fails in the block as SCEPTER's `ReadException`."""
    try:
        with as_python_errors():
            yield
    except ReadException:
        raise
    except FileMissingError as error:
        raise MissingObjectError(error.message, where=error.where, mend=error.mend) from error
    except FileError as error:
        raise ReadException(error.message, where=error.where, mend=error.mend) from error


@contextmanager
def writing() -> Iterator[None]:
    """Raise what fails in the block as SCEPTER's `WriteException`."""
    try:
        with as_python_errors():
            yield
    except FileError as error:
        if isinstance(error, WriteException):
            raise
        raise WriteException(error.message, where=error.where, mend=error.mend) from error


class HasEntries(Protocol):
    """A config: a mapping, or SCEPTER's `Config`."""

    def get(self, key: str, default: Any = None, /) -> Any:  # entries of any type
        """Return an entry."""
        ...


class Store(NamedTuple):
    """What `init_fs_client` made of a config.

    Args:
        prefix: What the paths begin with.
        backend: Where the files below the prefix lie; None where `mounts` find them.
        mounts: What finds them; None for the mounts in use.
        folder: Where local copies are kept; None for a temporary directory.
        clean: Remove the local copies when the process ends.
        writable: Writing is allowed.
    """

    prefix: str
    backend: FileBackend | None = None
    mounts: Mounts | None = None
    folder: Path | None = None
    clean: bool = False
    writable: bool = True


_COMMON = ("NAME", "TEMP_DIR", "AUTO_CLEAN")
_KEYS = {
    "LocalFs": _COMMON,
    "HttpFs": (*_COMMON, "RETRY_TIMES"),
    "AliyunOssFs": (
        *_COMMON,
        *("ENDPOINT", "BUCKET", "OSS_AK", "OSS_SK", "PREFIX", "WRITABLE", "CHECK_WRITABLE", "RETRY_TIMES"),
    ),
    "ModelscopeFs": (*_COMMON, "RETRY_TIMES"),
    "HuggingfaceFs": (*_COMMON, "RETRY_TIMES"),
}
_HUBS = {"ModelscopeFs": "ms", "HuggingfaceFs": "hf"}


def store_of(cfg: HasEntries | FileBackend | None) -> Store:
    """Return the store that a config of SCEPTER's means; of one of our backends, that one at its URI; of None, local disks.

    Raises:
        ArgumentValueError: The config names no store, has an unknown entry, or holds credentials.
        FileError: The store's own options are wrong.
        MissingDependencyError: The store needs a package that is not installed.
    """
    if cfg is None:
        return Store(os.getcwd())
    if isinstance(cfg, FileBackend):
        return Store(cfg.uri.rstrip("/"), cfg, writable=cfg.capabilities.writable)
    name = cfg.get("NAME")
    if not isinstance(name, str) or name not in _KEYS:
        near = did_you_mean(str(name), _KEYS)
        known = f"known are {', '.join(_KEYS)}; a file backend of ours may be given instead"
        raise ArgumentValueError(f"NAME is {name!r}, which is no store", mend=f"{near} {known}" if near else known)
    if isinstance(cfg, Mapping) and (unknown := [str(key) for key in cfg if key not in _KEYS[name]]):
        near = did_you_mean(unknown[0], _KEYS[name])
        raise ArgumentValueError(f"{name} has no entry {unknown[0]}", mend=near or f"it has {', '.join(_KEYS[name])}")
    folder = cfg.get("TEMP_DIR")
    kept = Path(str(folder)).expanduser().absolute() if folder else None
    clean = kept is None or bool(cfg.get("AUTO_CLEAN", False))
    retries = cfg.get("RETRY_TIMES", 10)
    if name == "LocalFs":
        return Store(os.getcwd(), None, None, kept, clean)
    if name == "HttpFs":
        from treenail.adapters.files.http import HttpFiles

        late: Late[str, FileBackend] = Late(HttpFiles, (), {"retries": retries}, awaited=1)
        return Store("http", None, Mounts(schemes={"http": late, "https": late}), kept, clean, writable=False)
    if name in _HUBS:
        if _HUBS[name] not in declared_schemes():
            raise FileError(f"nothing serves the scheme '{_HUBS[name]}'", mend="pip install 'treenail[hubs]'")
        return Store(f"{_HUBS[name]}://", None, None, kept, clean, writable=False)
    return _bucket(cfg, retries, kept, clean)


def _bucket(cfg: HasEntries, retries: object, folder: Path | None, clean: bool) -> Store:
    from treenail.adapters.files.objects import ObjectFiles

    bucket, below = str(cfg.get("BUCKET") or ""), str(cfg.get("PREFIX") or "").strip("/")
    if not bucket:
        raise ArgumentValueError("AliyunOssFs has no BUCKET", mend="name one")
    root = f"oss://{bucket}/{below}".rstrip("/")
    options: dict[str, object] = {"retries": retries}
    if endpoint := str(cfg.get("ENDPOINT") or ""):
        options["endpoint"] = endpoint if "://" in endpoint else f"https://{endpoint}"
    for key, option in (("OSS_AK", "access_key_variable"), ("OSS_SK", "secret_key_variable")):
        if value := str(cfg.get(key) or ""):
            if not value.startswith("$"):
                raise ArgumentValueError(
                    f"{key} holds a credential, which does not belong into a config",
                    where=root,
                    mend=f"put it into an environment variable and write {key}: $ITS_NAME, or leave {key} out and set "
                    "OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET",
                )
            options[option] = value.removeprefix("$")
    late: Late[str, FileBackend] = Late(ObjectFiles, (), options, awaited=1)
    backend = late.build(root)
    writable = bool(cfg.get("WRITABLE", True))
    if writable and cfg.get("CHECK_WRITABLE", False):
        with writing():
            probe = f".treenail-check-{uuid4().hex}"
            backend.write(probe, b"")
            backend.delete(probe)
    return Store(root, backend, None, folder, clean, writable)


class FsMounts(Mounts):
    """Finds paths in the stores of `init_fs_client`, else in the mounts in use."""

    def __init__(self) -> None:
        super().__init__()
        self.stores: dict[str, Store] = {}
        self.local_maps: dict[str, Path] = {}

    def __reduce__(self) -> tuple[object, ...]:
        return _mounts_again, (self.stores, self.local_maps)

    def store_at(self, uri: AnyPath) -> Store | None:
        """Return the store of a path; None where it belongs to the mounts in use."""
        canonical = _canonical(uri)
        fitting = [store for store in self.stores.values() if _fits(canonical, store.prefix)]
        return max(fitting, key=lambda store: len(store.prefix), default=None)

    def resolve(self, uri: AnyPath) -> Place:
        """Return the backend of a path, and the path in it."""
        canonical, store = _canonical(uri), self.store_at(uri)
        if store is not None and store.backend is not None:
            rest = canonical[len(store.prefix) :].lstrip("/")
            place = Place(store.backend, check_path(rest, store.backend.uri, root=True))
        else:
            place = (store.mounts if store is not None and store.mounts is not None else current_mounts()).resolve(uri)
        if isinstance(place.backend, HasLocalPaths):
            return place
        target = max((each for each in self.local_maps if _fits(canonical, each)), key=len, default=None)
        if target is None:
            return place
        rest = canonical[len(target) :].lstrip("/")
        return place._replace(cache=LocalMirror(place.path.removesuffix(rest).rstrip("/"), self.local_maps[target]))

    def map_locally(self, target: AnyPath, folder: AnyPath) -> None:
        """Keep what is read below a directory in a local one, under the same names."""
        self.local_maps[_canonical(target)] = Path(folder).expanduser().absolute()


class Scratch:
    """Folders of local copies: a store's own, or else a temporary one, which goes with this object or the process."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.gettempdir()) / f"treenail-fs-{uuid4().hex}"
        self._finalizers: dict[Path, weakref.finalize[[Path, int], Scratch]] = {}
        self._lock = threading.Lock()

    def mirror_of(self, place: Place, path: AnyPath, store: Store | None, *, shared: bool) -> LocalMirror:
        """Return what keeps the local copy of a file.

        Args:
            place: The file.
            path: What the caller calls it; another query of a URL is another file.
            store: Its store.
            shared: In a folder that all processes of this user have in common.
        """
        parent = PurePosixPath(place.path).parent.as_posix()
        source = "" if parent == "." else parent
        return LocalMirror(source, self.folder(path, store, shared=shared))

    def folder(self, path: AnyPath, store: Store | None, *, shared: bool) -> Path:
        """Return where the copy of a file or directory is kept; nothing is made."""
        return self._base(store, shared=shared) / sha256(os.fspath(path).encode()).hexdigest()[:32]

    def prepare(self, store: Store | None, *, shared: bool) -> None:
        """Make the folder of local copies, for this user only.

        Raises:
            FileError: Somebody else made it.
        """
        base = self._base(store, shared=shared)
        with self._lock:
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            if store is None or store.folder is None:
                about = base.lstat()
                if hasattr(os, "getuid") and (about.st_uid != os.getuid() or base.is_symlink()):
                    raise FileError("this folder is somebody else's", where=str(base), mend="set TEMP_DIR")
            if (base == self._folder or (store is not None and store.clean)) and base not in self._finalizers:
                self._finalizers[base] = weakref.finalize(self, _remove, base, os.getpid())

    def clear(self) -> None:
        """Remove the local copies that are not to be kept."""
        with self._lock:
            for finalizer in self._finalizers.values():
                finalizer()
            self._finalizers.clear()

    def _base(self, store: Store | None, *, shared: bool) -> Path:
        if store is not None and store.folder is not None:
            return store.folder
        user = os.getuid() if hasattr(os, "getuid") else os.getlogin()
        return Path(tempfile.gettempdir()) / f"treenail-fs-of-{user}" if shared else self._folder


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # a fork must not remove what its parent uses
        rmtree(folder, ignore_errors=True)


def _canonical(uri: AnyPath) -> str:
    text = os.fspath(uri)
    if scheme_of(text) in {None, "file"}:
        return os.path.abspath(os.path.expanduser(local_path_of(text)))
    scheme, _, rest = text.partition("://")
    return f"{scheme.lower()}://{rest.rstrip('/')}"


def _fits(canonical: str, prefix: str) -> bool:
    if prefix == "http":  # SCEPTER's prefix of both schemes, which must not take a local http_logs/
        return canonical.startswith(("http://", "https://"))
    return canonical == prefix or canonical.startswith(prefix if prefix.endswith("/") else f"{prefix}/")


def _mounts_again(stores: dict[str, Store], local_maps: dict[str, Path]) -> FsMounts:
    made = FsMounts()
    made.stores, made.local_maps = stores, local_maps
    return made
