"""Checkpoints in a file backend: whole or absent.

A checkpoint is a directory ``step-00000200`` of ``state.safetensors``, ``state.json`` and ``manifest.json``. Each file is
written atomically and durably, the manifest last: a directory without a valid manifest is no checkpoint. The pointers
(``latest``, ``best``) are small files that name a directory; they move only after the manifest is there.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import cast
from uuid import uuid4

import msgspec
import torch
from torch import Tensor

from treenail.adapters.checkpoint.tree import Snapshot, freeze, thaw
from treenail.contracts import FORMAT_VERSION, FileEntry, Manifest
from treenail.kernel import CheckpointError, FileBackend, FileError, FileMissingError, did_you_mean, require

TENSORS, TREE, MANIFEST = "state.safetensors", "state.json", "manifest.json"


def snapshot(state: Mapping[str, object]) -> Snapshot:
    """Copy a state tree; the training may go on as soon as this returns."""
    return freeze(state)


def persist(frozen: Snapshot, files: FileBackend, directory: str, manifest: Manifest) -> Manifest:
    """Write a snapshot and, last, its manifest; works on any thread.

    Args:
        frozen: The snapshot.
        files: Where to.
        directory: Path of the checkpoint's directory.
        manifest: What to say of it; `files` is filled in here.

    Raises:
        CheckpointError: The snapshot cannot be encoded, or the backend failed.
        MissingDependencyError: safetensors is not installed.
    """
    safetensors = require("safetensors.torch", extra="train", purpose="saving checkpoints")
    try:
        contents: dict[str, bytes] = {
            TENSORS: safetensors.save(frozen.tensors),
            TREE: msgspec.json.encode(frozen.tree),
        }
    except Exception as error:  # safetensors raises several types of its own
        raise CheckpointError(f"the state cannot be encoded: {error}", where=directory) from error
    entries = []
    try:
        for name, content in contents.items():
            files.write(f"{directory}/{name}", content)
            entries.append(FileEntry(path=name, size=len(content), sha256=sha256(content).hexdigest()))
        manifest = msgspec.structs.replace(manifest, files=tuple(entries))
        files.write(f"{directory}/{MANIFEST}", msgspec.json.format(msgspec.json.encode(manifest)))
    except FileError as error:
        raise CheckpointError(
            f"the checkpoint could not be written: {error.message}",
            where=error.where,
            mend="make room or choose another --work-dir; earlier checkpoints are untouched",
        ) from error
    return manifest


class CheckpointStore:
    """The checkpoints of one run in a file backend; a `Checkpointer`.

    Args:
        files: The backend; checkpoints lie at its root.
        run: Identity of the run; a new one when None. A resumed run takes that of the checkpoint it goes on from.
        keep_last: How many checkpoints of this run stay besides those that a pointer leads to; None keeps all.
        config: The run's config as plain data, for the manifests.
        world_size: Processes of the run.
    """

    def __init__(
        self,
        files: FileBackend,
        *,
        run: str | None = None,
        keep_last: int | None = None,
        config: object = None,
        world_size: int = 1,
    ) -> None:
        self.files = files
        self.run = run or uuid4().hex
        self.keep_last = keep_last
        self._config = config
        self._world_size = world_size

    def save(
        self, checkpoint: Mapping[str, object], *, step: int, epoch: int, reason: str, pointers: Sequence[str]
    ) -> str:
        """Save a state tree, then move the pointers to it, then remove what need not stay.

        Raises:
            CheckpointError: It could not be saved; earlier checkpoints are untouched.
        """
        engine = checkpoint.get("engine")
        attempt = engine.get("attempt") if isinstance(engine, dict) else None
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            run=self.run,
            attempt=attempt if isinstance(attempt, int) else 1,
            step=step,
            epoch=epoch,
            reason=reason,
            created=datetime.now(UTC).isoformat(),
            world_size=self._world_size,
            files=(),
            config=self._config,
            versions=_versions(),
        )
        directory = self._free_name(f"step-{step:08d}")
        persist(snapshot(checkpoint), self.files, directory, manifest)
        try:
            for pointer in pointers:
                self.files.write(pointer, directory.encode())
            self._retain(directory)
        except FileError as error:
            raise CheckpointError(f"the checkpoint is saved, but {error.message}", where=error.where) from error
        return f"{self.files.uri}/{directory}"

    def _free_name(self, name: str) -> str:
        # A state before and one after the validation have the same step; a resumed attempt may reach a step again.
        taken = {path.rpartition("/")[0] for path in self.files.list() if path.endswith(f"/{MANIFEST}")}
        numbers = [int(each[len(name) + 1 :] or 1) for each in taken if re.fullmatch(rf"{name}(\.\d+)?", each)]
        return f"{name}.{max(numbers) + 1}" if numbers else name

    def _exists(self, path: str) -> bool:
        try:
            self.files.stat(path)
        except FileMissingError:
            return False
        return True

    def _retain(self, newest: str) -> None:
        if self.keep_last is None:
            return
        ours = sorted(
            (manifest.step, manifest.created, directory)
            for directory, manifest in self.manifests()
            if manifest.run == self.run
        )
        # Of several states of one step (before and after its validation) only the newest counts.
        last = list({step: directory for step, _, directory in ours}.values())[-self.keep_last :]
        kept = {*last, newest, *self.pointers().values()}
        for _, _, directory in ours:
            if directory not in kept:
                self.files.delete(f"{directory}/{MANIFEST}")  # first, so that a crash leaves no torn checkpoint
                for path in list(self.files.list(directory)):
                    self.files.delete(path)

    def manifests(self) -> Iterator[tuple[str, Manifest]]:
        """Yield (directory, manifest) of every whole checkpoint; what cannot be decoded is none."""
        for path in list(self.files.list()):
            directory, _, name = path.rpartition("/")
            if name == MANIFEST and directory:
                try:
                    yield directory, self._manifest(directory)
                except CheckpointError:
                    continue

    def pointers(self) -> dict[str, str]:
        """Return the pointers, and the directory that each leads to."""
        found = {path: self.files.read(path, 0, 256) for path in self.files.list() if "/" not in path}
        return {path: name.decode() for path, name in found.items() if re.fullmatch(rb"[\w.-]*\w", name)}

    def _manifest(self, directory: str) -> Manifest:
        path = f"{directory}/{MANIFEST}"
        where = f"{self.files.uri}/{path}"
        try:
            content = self.files.read(path)
        except FileMissingError:
            raise CheckpointError(
                "there is no whole checkpoint here (no manifest)", where=f"{self.files.uri}/{directory}"
            ) from None
        try:
            found = msgspec.json.decode(content, type=Manifest)
        except msgspec.DecodeError as error:
            raise CheckpointError(f"the manifest cannot be read: {error}", where=where) from error
        if found.format_version > FORMAT_VERSION:
            raise CheckpointError(
                f"the checkpoint has format {found.format_version}, this treenail reads up to {FORMAT_VERSION}",
                where=where,
                mend="upgrade treenail",
            )
        return found

    def resolve(self, name: str = "latest") -> str:
        """Return the directory that a pointer or a directory's name stands for.

        Raises:
            CheckpointError: There is neither; the message names what there is.
        """
        pointers = self.pointers()
        directory = pointers.get(name, name)
        if self._exists(f"{directory}/{MANIFEST}"):
            return directory
        known = [*pointers, *(found for found, _ in self.manifests())]
        mend = did_you_mean(name, known) or f"there are {', '.join(known) or 'none'}"
        raise CheckpointError(f"there is no checkpoint '{name}'", where=self.files.uri, mend=mend)

    def load(self, name: str = "latest") -> tuple[Manifest, dict[str, object]]:
        """Read a checkpoint and verify it against its manifest.

        Args:
            name: A pointer, or a directory's name.

        Returns:
            The manifest and the state tree, tensors on the CPU.

        Raises:
            CheckpointError: It is missing, torn or of a later format.
            MissingDependencyError: safetensors is not installed.
        """
        safetensors = require("safetensors.torch", extra="train", purpose="loading checkpoints")
        directory = self.resolve(name)
        manifest = self._manifest(directory)
        contents = {entry.path: self._verified(directory, entry) for entry in manifest.files}
        where = f"{self.files.uri}/{directory}"
        if not {TENSORS, TREE} <= contents.keys():
            raise CheckpointError(f"the manifest does not list {TENSORS} and {TREE}", where=where)
        try:
            tensors: dict[str, Tensor] = safetensors.load(contents[TENSORS])
            tree = msgspec.json.decode(contents[TREE])
        except Exception as error:  # safetensors raises several types of its own
            raise CheckpointError(f"the state cannot be decoded: {error}", where=where) from error
        state = thaw(Snapshot(tree, tensors))
        if not isinstance(state, dict):
            raise CheckpointError("the state is not a mapping", where=where)
        return manifest, cast("dict[str, object]", state)

    def _verified(self, directory: str, entry: FileEntry) -> bytes:
        where = f"{self.files.uri}/{directory}/{entry.path}"
        mend = "use another checkpoint; this one is damaged"
        try:
            content = self.files.read(f"{directory}/{entry.path}")
        except FileMissingError:
            raise CheckpointError("a file of the checkpoint is missing", where=where, mend=mend) from None
        if len(content) != entry.size:
            raise CheckpointError(
                f"the file has {len(content)} bytes, its manifest says {entry.size}", where=where, mend=mend
            )
        if sha256(content).hexdigest() != entry.sha256:
            raise CheckpointError("the file's checksum is not that of its manifest", where=where, mend=mend)
        return content


def _versions() -> dict[str, str]:
    try:
        treenail = version("treenail")
    except PackageNotFoundError:  # embedded as a source tree
        treenail = "unknown"
    return {"treenail": treenail, "torch": str(torch.__version__), "python": platform.python_version()}
