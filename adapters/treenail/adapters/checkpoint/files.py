"""The files of a checkpoint: how they are written, looked over and removed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from re import compile as pattern
from typing import NamedTuple

import msgspec

from treenail.adapters.checkpoint.contents import digest_of
from treenail.adapters.checkpoint.errors import UnsuitableError
from treenail.adapters.checkpoint.manifests import encode_manifest
from treenail.adapters.checkpoint.state_file import read_state, write_state
from treenail.adapters.checkpoint.tree import Snapshot
from treenail.contracts import FileEntry, Manifest
from treenail.kernel import CheckpointError, FileBackend, FileError, FileMissingError

OWNER, TENSORS, TREE, MANIFEST = "owner", "state.safetensors", "state.json", "manifest.json"
SHARD = pattern(r"shard-(\d{5,})-of-(\d{5,})\.safetensors")  # what one rank of several writes
RECEIPT = pattern(r"shard-\d{5,}-of-\d{5,}\.json")  # what it says of that until the manifest does
DIRECTORY = pattern(r"step-\d{8,}(\.\d+)?")  # what a store calls its directories

# The manifest goes first, so that a crash leaves no torn checkpoint; the owner last, so that somebody can go on.
_REMOVAL = (MANIFEST, TREE, TENSORS, OWNER)


def persist(
    frozen: Snapshot, files: FileBackend, directory: str, manifest: Manifest, shards: Sequence[FileEntry] = ()
) -> Manifest:
    """Write a snapshot and, last, its manifest; works on any thread.

    When it fails, it removes what it has written, as far as the backend lets it, and the shards.

    Args:
        frozen: The snapshot.
        files: Where to.
        directory: Path of the checkpoint's directory, a new one.
        manifest: What to say of it; `files` is filled in here.
        shards: Files that the ranks of the run have written there.

    Raises:
        CheckpointError: The snapshot cannot be encoded, or the backend failed.
    """
    try:
        tree = msgspec.json.encode(frozen.tree)
        msgspec.json.encode(manifest)  # before anything is written
    except Exception as error:  # of the encoder, or of what the config holds
        raise CheckpointError(f"the state cannot be encoded: {error}", where=directory) from error
    begun = [*(entry.path for entry in shards), OWNER, TENSORS, TREE, MANIFEST]
    try:
        files.write(f"{directory}/{OWNER}", manifest.run.encode())
        tensors = write_state(files, directory, TENSORS, frozen.tensors)
        files.write(f"{directory}/{TREE}", tree)
        entries = (tensors, FileEntry(path=TREE, size=len(tree), sha256=digest_of(tree)))
        content, manifest = encode_manifest(msgspec.structs.replace(manifest, files=(*entries, *shards)))
        files.write(f"{directory}/{MANIFEST}", content)
    except BaseException as error:
        with suppress(Exception):  # the error that led here is the one to tell
            remove(files, directory, begun)
        if isinstance(error, FileError):
            raise CheckpointError(
                f"the checkpoint could not be written: {error.message}",
                where=error.where,
                mend=f"{error.mend or 'make room or choose another --work-dir'}; earlier checkpoints are untouched",
            ) from error
        raise
    return manifest


def remove(files: FileBackend, directory: str, below: Iterable[str]) -> None:
    """Remove the files of a checkpoint, and nothing else that somebody put beside them.

    Args:
        files: Where it lies.
        directory: Its directory.
        below: What lies in it.

    Raises:
        FileError: The backend failed; what comes later in the order of removal is still there.
    """
    for name in sorted((name for name in below if _is_ours(name)), key=_removed_at):
        with suppress(FileMissingError):
            files.delete(f"{directory}/{name}")


def _is_ours(name: str) -> bool:
    return name in _REMOVAL or SHARD.fullmatch(name) is not None or RECEIPT.fullmatch(name) is not None


def _removed_at(name: str) -> int:
    return _REMOVAL.index(name) if name in _REMOVAL else 1  # shards go after the manifest, and before the owner


class Survey(NamedTuple):
    """What lies at the root of a backend.

    Args:
        directories: The paths below each directory, relative to it.
        files: Names of the files beside the directories.
    """

    directories: dict[str, set[str]]
    files: list[str]

    @property
    def whole(self) -> list[str]:
        """The directories that have a manifest."""
        return [directory for directory, below in self.directories.items() if MANIFEST in below]


def survey(files: FileBackend, limit: int | None = None) -> Survey:
    """Look over a backend, or over its first `limit` files.

    Raises:
        FileError: The backend failed.
    """
    found = Survey({}, [])
    for path in islice(files.list(), limit):
        directory, slash, below = path.partition("/")
        if slash:
            found.directories.setdefault(directory, set()).add(below)
        else:
            found.files.append(path)
    return found


def remove_torn(files: FileBackend, found: Survey, run: str) -> None:
    """Remove what saves of this run left when they were killed, from the backend and from the survey.

    Torn is a directory without a manifest; it is the run's if its owner file says so. What cannot be removed stays.
    """
    for directory, below in list(found.directories.items()):
        if OWNER not in below or MANIFEST in below or not DIRECTORY.fullmatch(directory):
            continue
        with suppress(FileError):
            expected = run.encode()
            if files.read(f"{directory}/{OWNER}", 0, len(expected) + 1) == expected:
                remove(files, directory, below)
                below.difference_update([name for name in below if _is_ours(name)])
                if not below:
                    del found.directories[directory]


def read_snapshot(files: FileBackend, directory: str, manifest: Manifest) -> Snapshot:
    """Read the state of a checkpoint, without shards, and compare it with its manifest.

    Raises:
        CheckpointError: A file is missing or is not what the manifest says.
    """
    where = f"{files.uri}/{directory}"
    entries = {entry.path: entry for entry in manifest.files}
    if not {TENSORS, TREE} <= entries.keys():
        raise CheckpointError(f"the manifest does not list {TENSORS} and {TREE}", where=where)
    tree = _read_verified(files, directory, entries[TREE])
    tensors = read_state(files, f"{directory}/{TENSORS}", entries[TENSORS])
    try:
        return Snapshot(msgspec.json.decode(tree), tensors)
    except msgspec.DecodeError as error:
        raise CheckpointError(f"the state cannot be decoded: {error}", where=where) from error


def _read_verified(files: FileBackend, directory: str, entry: FileEntry) -> bytes:
    where = f"{files.uri}/{directory}/{entry.path}"
    try:
        content = files.read(f"{directory}/{entry.path}")
    except FileMissingError:
        raise CheckpointError("a file of the checkpoint is missing", where=where) from None
    except FileError as error:
        raise UnsuitableError(f"a file of the checkpoint is unreadable: {error.message}", where=where) from error
    if len(content) != entry.size:
        raise CheckpointError(f"the file has {len(content)} bytes, its manifest says {entry.size}", where=where)
    if digest_of(content) != entry.sha256:
        raise CheckpointError("the file's checksum is not that of its manifest", where=where)
    return content


def has_its_sizes(files: FileBackend, directory: str, manifest: Manifest) -> bool:
    """Tell, without reading them, whether the files of a checkpoint are there with the sizes that its manifest says."""
    try:
        return all(files.stat(f"{directory}/{entry.path}").size == entry.size for entry in manifest.files)
    except FileError:
        return False
