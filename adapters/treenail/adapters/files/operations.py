"""Files and directories by URI or local path: what everyday code calls.

Each function finds the backend by `mounts`, the ones in use (`use_mounts`) when None. A path is taken as
`Mounts.resolve` takes it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote

from treenail.adapters.files import derived
from treenail.adapters.files.contents import check_content
from treenail.adapters.files.local.durable import written_beside
from treenail.adapters.files.local.walking import links_below
from treenail.adapters.files.mounts import Mounts, Place, resolved
from treenail.adapters.files.paths import join_uri, read_only, redacted, scheme_of, short_name
from treenail.contracts.files import HasDirectories, HasLocalPaths, SignsUrls
from treenail.kernel import FileError, FileMissingError, FileStat

AnyPath = str | os.PathLike[str]


def get(path: AnyPath, start: int = 0, length: int | None = None, *, mounts: Mounts | None = None) -> bytes:
    """Return the bytes of a file, or `length` of them from `start`.

    Raises:
        FileMissingError: There is no such file.
        FileError: The store failed.
    """
    return resolved(path, mounts).read(start, length)


def get_text(path: AnyPath, encoding: str = "utf-8", *, mounts: Mounts | None = None) -> str:
    """Return a file as text.

    Raises:
        FileMissingError: There is no such file.
        FileError: The store failed, or the bytes are not in this encoding.
    """
    data = get(path, mounts=mounts)
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise FileError(
            f"not text in {encoding}: {error}", where=redacted(os.fspath(path)), mend="name its encoding"
        ) from error


def put(data: bytes, path: AnyPath, *, mounts: Mounts | None = None) -> None:
    """Make a file hold exactly `data`; missing directories are made.

    Raises:
        FileError: The store refused or failed; the file is as it was.
    """
    place = resolved(path, mounts)
    check_content(data, place.uri)
    place.backend.write(place.file(), data)
    place.forget()


def put_text(text: str, path: AnyPath, encoding: str = "utf-8", *, mounts: Mounts | None = None) -> None:
    """Make a file hold a text; missing directories are made.

    Raises:
        FileError: The text has no such encoding, or the store refused or failed; the file is as it was.
    """
    try:
        data = text.encode(encoding)
    except (UnicodeEncodeError, LookupError) as error:
        raise FileError(
            f"no text in {encoding}: {error}", where=redacted(os.fspath(path)), mend="name another encoding"
        ) from error
    put(data, path, mounts=mounts)


def stat(path: AnyPath, *, mounts: Mounts | None = None) -> FileStat:
    """Return size, time and version of a file.

    Raises:
        FileMissingError: There is no such file.
    """
    place = resolved(path, mounts)
    return place.backend.stat(place.file())


def exists(path: AnyPath, *, mounts: Mounts | None = None) -> bool:
    """Return whether there is a file or directory."""
    return isfile(path, mounts=mounts) or isdir(path, mounts=mounts)


def isfile(path: AnyPath, *, mounts: Mounts | None = None) -> bool:
    """Return whether there is a file."""
    place = resolved(path, mounts)
    return bool(place.path) and derived.file_exists(place.backend, place.path)


def isdir(path: AnyPath, *, mounts: Mounts | None = None) -> bool:
    """Return whether there is a directory; in a store without directories, whether files lie below."""
    place = resolved(path, mounts)
    return derived.is_directory(place.backend, place.path)


def join_path(path: AnyPath, *parts: AnyPath) -> str:
    """Return a path with parts below it.

    A local path takes them as `os.path.join` does; below a URI a leading slash of a part means nothing. Parts are names as
    they are: below a ``file://`` URI, which has percent codes, they are encoded.
    """
    base, names = os.fspath(path), [os.fspath(part) for part in parts]
    scheme = scheme_of(base)
    if scheme is None:
        return os.path.join(base, *names)
    for name in names:
        stripped = name.strip("/")
        base = join_uri(base, quote(stripped) if scheme == "file" else stripped)
    return base


def make_directory(path: AnyPath, *, mounts: Mounts | None = None) -> None:
    """Make a directory and its missing parents; a store without directories needs none.

    Raises:
        FileError: A file has that name, or the store is read only.
    """
    place = resolved(path, mounts)
    if not place.backend.capabilities.writable:
        raise read_only(place.backend.uri, place.path, "make it in another place")
    if isinstance(place.backend, HasDirectories):
        place.backend.make_directory(place.path)
    elif place.path and derived.file_exists(place.backend, place.path):
        raise FileError("a file has that name", where=place.uri, mend="choose another name")


def remove(path: AnyPath, *, mounts: Mounts | None = None) -> None:
    """Remove a file.

    Raises:
        FileMissingError: There is no such file.
        FileError: It is a directory, or the store refused.
    """
    place = resolved(path, mounts)
    try:
        place.backend.delete(place.file())
    except FileMissingError:
        if derived.is_directory(place.backend, place.path):
            raise FileError("this is a directory", where=place.uri, mend="remove it with rmtree") from None
        raise
    finally:
        place.forget()


def rmtree(path: AnyPath, *, mounts: Mounts | None = None) -> None:
    """Remove a directory and all below it.

    Raises:
        FileMissingError: There is no such directory.
        FileError: It is a whole root, or the store failed; some files may be gone.
    """
    place = resolved(path, mounts)
    if not place.path:
        raise FileError("this is a whole root", where=place.uri, mend="remove what lies below it by name")
    if isinstance(place.backend, HasDirectories):
        place.backend.delete_directory(place.path)
        return
    found = list(place.backend.list(place.path))
    if not found:
        raise FileMissingError("there is no such directory", where=place.uri)
    for each in found:
        with suppress(FileMissingError):
            place.backend.delete(each)
        place._replace(path=each).forget()


def list_dir_or_file(
    path: AnyPath,
    list_dir: bool = True,
    list_file: bool = True,
    suffix: str | tuple[str, ...] | None = None,
    recursive: bool = False,
    *,
    mounts: Mounts | None = None,
) -> Iterator[str]:
    """Yield what lies in a directory, as paths relative to it.

    Hidden entries (a leading dot) are left out with what lies below them; a suffix asks for files only, as in mmengine.
    Symbolic links to directories are listed as such, and not entered.

    Args:
        path: The directory.
        list_dir: Yield directories; empty ones, too, where the store has such.
        list_file: Yield files.
        suffix: Endings of the files to yield.
        recursive: Go down into directories.
        mounts: Where backends are found.

    Raises:
        FileMissingError: There is no such directory.
        FileError: `suffix` is no string or tuple of strings, or the store failed.
    """
    if suffix is not None and not (
        isinstance(suffix, str) or (isinstance(suffix, tuple) and all(isinstance(each, str) for each in suffix))
    ):
        raise FileError(f"a suffix is a string or a tuple of them, not {suffix!r}", where=redacted(os.fspath(path)))
    return _listed(resolved(path, mounts), list_dir, list_file, suffix, recursive)


def _listed(
    place: Place, list_dir: bool, list_file: bool, suffix: str | tuple[str, ...] | None, recursive: bool
) -> Iterator[str]:
    empty = True
    for each, directory in derived.entries(place.backend, place.path, recursive=recursive):
        empty = False
        if each.startswith(".") or "/." in each:
            continue
        if directory:
            if list_dir and suffix is None:
                yield each
        elif list_file and (suffix is None or each.endswith(suffix)):
            yield each
    if empty and place.path and not derived.is_directory(place.backend, place.path):
        raise FileMissingError("there is no such directory", where=place.uri)


def copyfile(
    source: AnyPath,
    target: AnyPath,
    *,
    progress: Callable[[int], None] | None = None,
    mounts: Mounts | None = None,
) -> str:
    """Copy a file over any two stores, and return where it lies; into the target when that is a directory.

    A target that ends with a slash is a directory, which is made if it is missing. A copy between local files keeps the
    source's permissions.

    Args:
        source: The file.
        target: Its copy, or a directory.
        progress: Called with the number of bytes of each chunk that was copied.
        mounts: Where backends are found.

    Raises:
        FileMissingError: There is no such source.
        FileError: Source and target are the same file, or a store failed.
    """
    origin, place = resolved(source, mounts), resolved(target, mounts)
    name = PurePosixPath(origin.file()).name
    written = os.fspath(target)
    if not place.path or written.endswith(("/", os.sep)) or derived.is_directory(place.backend, place.path):
        written = join_path(written, name)
        place = resolved(written, mounts)
    if _is_same(origin, place):
        raise FileError("source and target are the same file", where=place.uri, mend="copy it to another name")
    derived.copy(origin.backend, origin.path, place.backend, place.file(), progress)
    place.forget()
    return written


def copytree(source: AnyPath, target: AnyPath, *, mounts: Mounts | None = None) -> str:
    """Copy a directory and all below it over any two stores, and return the target.

    Raises:
        FileMissingError: There is no such source.
        FileError: The target exists or lies within the source, the source has a symbolic link that leads to a directory
            or nowhere, or a store failed; then a part may be copied.
    """
    origin, place = resolved(source, mounts), resolved(target, mounts)
    if exists(target, mounts=mounts):
        raise FileError("the target exists", where=place.uri, mend="remove it first, or copy to another name")
    if is_within(place, origin):
        raise FileError("the target lies within the source", where=place.uri, mend="copy to another place")
    if not derived.is_directory(origin.backend, origin.path):
        raise FileMissingError("there is no such directory", where=origin.uri)
    for link in links_not_followed(origin):
        raise link
    make_directory(target, mounts=mounts)
    for each, directory in derived.entries(origin.backend, origin.path, recursive=True):
        below = place.below(each)
        if not directory:
            derived.copy(origin.backend, origin.below(each).path, below.backend, below.path)
            below.forget()
        elif isinstance(below.backend, HasDirectories):
            below.backend.make_directory(below.path)
    return os.fspath(target)


def copy_if_symlink_fails(source: AnyPath, target: AnyPath, *, mounts: Mounts | None = None) -> bool:
    """Make `target` a symbolic link to `source` where both lie on local disks that can, else copy it.

    Returns:
        Whether it is a link.

    Raises:
        FileMissingError: There is no such source.
        FileError: A store failed.
    """
    origin, place = resolved(source, mounts), resolved(target, mounts)
    if not exists(source, mounts=mounts):
        raise FileMissingError("there is nothing to link to", where=origin.uri)
    if place.path and place.backend.capabilities.writable and _linked(origin, place):
        return True
    if isfile(source, mounts=mounts):
        copyfile(source, target, mounts=mounts)
    else:
        copytree(source, target, mounts=mounts)
    return False


@contextmanager
def get_local_path(path: AnyPath, *, mounts: Mounts | None = None) -> Iterator[Path]:
    """Give a local file of the same content for the block: the file itself where it is local, else a temporary copy.

    Raises:
        FileMissingError: There is no such file.
        FileError: The store failed.
    """
    place = resolved(path, mounts)
    if isinstance(place.backend, HasLocalPaths):
        found = place.backend.local_path(place.file())
        place.backend.stat(place.path)
        yield found
        return
    if place.cache is not None:
        with place.cache.local_copy(place.backend, place.file()) as copy:
            yield copy
        return
    with tempfile.TemporaryDirectory(prefix="treenail-") as folder:
        local = Path(folder) / short_name(PurePosixPath(place.file()).name)
        derived.download(place.backend, place.path, local)
        yield local


@contextmanager
def put_to(path: AnyPath, *, mounts: Mounts | None = None) -> Iterator[Path]:
    """Give a local path to write; its file is published at `path` when the block ends without an exception.

    Raises:
        FileError: The block wrote no file, or the store refused or failed; then `path` is as it was.
    """
    place = resolved(path, mounts)
    name = short_name(PurePosixPath(place.file()).name)
    backend = place.backend
    if not backend.capabilities.writable:
        raise read_only(backend.uri, place.path, "write to another place")
    if isinstance(backend, HasLocalPaths):
        if isinstance(backend, HasDirectories):
            backend.make_directory(place.path.rpartition("/")[0])
        with written_beside(backend.local_path(place.path)) as local:
            yield local
        return
    with tempfile.TemporaryDirectory(prefix="treenail-") as folder:
        local = Path(folder) / name
        yield local
        if not local.is_file():
            raise FileError(
                "nothing was written to the local path", where=place.uri, mend=f"write a file '{name}' there"
            )
        derived.upload(local, backend, place.path)
    place.forget()


def generate_presigned_url(
    path: AnyPath, method: Literal["GET", "PUT"] = "GET", expires: float = 3600.0, *, mounts: Mounts | None = None
) -> str:
    """Return a URL that reads or writes a file without credentials for `expires` seconds.

    Raises:
        FileError: The store has no signed URLs, or cannot sign.
    """
    place = resolved(path, mounts)
    if not isinstance(place.backend, SignsUrls):
        raise FileError("this store has no signed URLs", where=place.uri, mend="get_local_path gives a local file")
    return place.backend.sign(place.file(), method=method, expires=expires)


def _is_same(one: Place, other: Place) -> bool:
    """Return whether two places are one file, by whatever mounts and links they are reached."""
    if one.backend is other.backend and one.path == other.path:
        return True
    here, there = one.local, other.local
    if here is None or there is None:
        return _identity(one) == _identity(other)
    try:
        return here.samefile(there)
    except OSError:  # one of them is not there
        return False


def _identity(place: Place) -> str:
    return join_uri(derived.identity(place.backend), place.path)


def is_within(inner: Place, outer: Place) -> bool:
    """Return whether a place is another, or lies below it, by whatever mounts and links they are reached."""
    if inner.backend is outer.backend and f"{inner.path}/".startswith(f"{outer.path}/" if outer.path else ""):
        return True
    here, there = inner.local, outer.local
    if here is None or there is None:
        return f"{_identity(inner)}/".startswith(f"{_identity(outer).rstrip('/')}/")
    return here.resolve().is_relative_to(there.resolve())


def links_not_followed(origin: Place) -> Iterator[FileError]:
    """Yield an error for each symbolic link below a local directory that a copy of it would have to leave out."""
    directory = origin.local
    for path, leads in () if directory is None else links_below(str(directory)):
        yield FileError(
            f"cannot copy a symbolic link that leads {leads}",
            where=os.fsencode(f"{directory}/{path}").decode(errors="backslashreplace"),
            mend="put what it should lead to in its place, or remove it",
        )


def _linked(origin: Place, place: Place) -> bool:
    """Make a symbolic link where both ends are local; return whether there is one that the target's store can follow."""
    here, there = origin.local, place.local
    if here is None or there is None:
        return False
    if isinstance(place.backend, HasDirectories):
        place.backend.make_directory(place.path.rpartition("/")[0])
    try:
        there.symlink_to(here, target_is_directory=here.is_dir())
    except OSError:
        return False
    try:
        derived.file_exists(place.backend, place.path)
    except FileError:  # the source lies outside the root of the target's store, which follows no such link
        there.unlink()
        return False
    return True
