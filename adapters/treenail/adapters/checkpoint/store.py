"""Checkpoints in a file backend: whole or absent.

A checkpoint is a directory ``step-00000200`` of ``owner``, ``state.safetensors``, ``state.json`` and ``manifest.json``.
Each file is written atomically and durably, in this order: a directory without a valid manifest is no checkpoint. The
pointers (``latest``, ``best``) are small files that name a directory; they move only after the manifest is there.
"""

from __future__ import annotations

import platform
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple, cast
from uuid import uuid4

import torch

from treenail.adapters.checkpoint.errors import UnsuitableError
from treenail.adapters.checkpoint.files import (
    DIRECTORY,
    MANIFEST,
    OWNER,
    Survey,
    has_its_sizes,
    persist,
    read_snapshot,
    remove,
    remove_torn,
    survey,
)
from treenail.adapters.checkpoint.manifests import decode_manifest
from treenail.adapters.checkpoint.parts import SHARDS, places_of, put
from treenail.adapters.checkpoint.sharded import read_whole
from treenail.adapters.checkpoint.tree import Snapshot, freeze, thaw
from treenail.contracts import FORMAT_VERSION, FileEntry, Manifest
from treenail.kernel import CheckpointError, FileBackend, FileError, FileMissingError, did_you_mean

_POINTER_BYTES = 256  # a larger file is no pointer
_LOOK_AROUND = 10_000  # files that are looked at for the sake of a message


class SaveRequest(NamedTuple):
    """What is to be said of a checkpoint, as it was when its state was copied.

    Args:
        step: Training steps committed.
        epoch: Training epochs completed.
        attempt: How often the run had been resumed, plus one.
        reason: Why it is saved.
        pointers: Names that shall lead to it.
    """

    step: int
    epoch: int
    attempt: int
    reason: str
    pointers: tuple[str, ...]


class Candidates(NamedTuple):
    """Checkpoints that a run can go on from.

    Args:
        directories: The first one that is whole is to be taken.
        problem: What is wrong with ``latest``, if it leads to none.
    """

    directories: list[str]
    problem: str | None


def attempt_of(checkpoint: Mapping[str, object]) -> int:
    """Return the attempt that an engine's state tree is of; 1 of any other tree."""
    engine = checkpoint.get("engine")
    attempt = engine.get("attempt") if isinstance(engine, dict) else None
    return attempt if isinstance(attempt, int) else 1


def snapshot(state: Mapping[str, object]) -> Snapshot:
    """Copy a state tree; the training may go on as soon as this returns."""
    return freeze(state)


def commits_of(checkpoint: Mapping[str, object]) -> int | None:
    """Return how many commits an engine's state tree is of; None of any other tree."""
    engine = checkpoint.get("engine")
    commits = engine.get("commits") if isinstance(engine, dict) else None
    return commits if isinstance(commits, int) else None


class CheckpointStore:
    """The checkpoints of one run in a file backend; a `Checkpointer`.

    One process at a time saves the checkpoints of a run. The store removes only what its run wrote: checkpoints that need
    not stay, and what is left of saves that were killed.

    Args:
        files: The backend; checkpoints lie at its root.
        run: Identity of the run; a new one when None. A resumed run takes that of the checkpoint it goes on from.
        keep_last: How many checkpoints of this run stay besides those that a pointer leads to; None keeps all.
        keep_every: Of every so many steps, the first checkpoint stays for ever.
        config: The run's config as plain data, for the manifests.
        world_size: Processes of the run.
    """

    def __init__(
        self,
        files: FileBackend,
        *,
        run: str | None = None,
        keep_last: int | None = None,
        keep_every: int | None = None,
        config: object = None,
        world_size: int = 1,
    ) -> None:
        self.files = files
        self.run = run or uuid4().hex
        self.keep_last = keep_last
        self.keep_every = keep_every
        self._config = config
        self._world_size = world_size

    def save(
        self, checkpoint: Mapping[str, object], *, step: int, epoch: int, reason: str, pointers: Sequence[str]
    ) -> str:
        """Save a state tree, then move the pointers to it, then remove what need not stay.

        Raises:
            CheckpointError: It could not be saved; earlier checkpoints are untouched.
        """
        request = SaveRequest(step, epoch, attempt_of(checkpoint), reason, tuple(pointers))
        return self.finish(self.begin(step), snapshot(checkpoint), request)

    def begin(self, step: int) -> str:
        """Choose the directory of a new checkpoint, and remove what saves of this run left when they were killed.

        Raises:
            CheckpointError: The backend failed.
        """
        try:
            found = survey(self.files)
        except FileError as error:
            raise CheckpointError(f"the checkpoint could not be written: {error.message}", where=error.where) from error
        remove_torn(self.files, found, self.run)
        return _free_name(f"step-{step:08d}", found)

    def finish(self, directory: str, frozen: Snapshot, request: SaveRequest, shards: Sequence[FileEntry] = ()) -> str:
        """Save a snapshot in a directory that `begin` chose, beside the shards that ranks have written there.

        Raises:
            CheckpointError: It could not be saved; earlier checkpoints are untouched.
        """
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            sha256="",
            run=self.run,
            attempt=request.attempt,
            step=request.step,
            epoch=request.epoch,
            reason=request.reason,
            created=datetime.now(UTC).isoformat(),
            world_size=self._world_size,
            files=(),
            config=self._config,
            versions=_versions(),
            pointers=request.pointers,
        )
        persist(frozen, self.files, directory, manifest, shards)
        try:
            for pointer in request.pointers:
                self.files.write(pointer, directory.encode())
        except FileError as error:
            raise CheckpointError(f"the checkpoint is saved, but {error.message}", where=error.where) from error
        try:
            self._retain(directory)
        except FileError as error:  # nothing is lost: the next save looks at all of them again
            warnings.warn(f"checkpoints that need not stay are still there: {error}", stacklevel=2)
        return f"{self.files.uri}/{directory}"

    def claim(self, directory: str) -> None:
        """Say whose directory it is before shards are written there, so that a killed save can be cleared away.

        Raises:
            CheckpointError: The backend failed.
        """
        try:
            self.files.write(f"{directory}/{OWNER}", self.run.encode())
        except FileError as error:
            raise CheckpointError(f"the checkpoint could not be written: {error.message}", where=error.where) from error

    def _retain(self, newest: str) -> None:
        if self.keep_last is None:
            return
        ours = self._of_run(self.run)
        # Of several states of one step (before and after its validation) only the newest counts.
        newest_of_step: dict[int, str] = {}
        first_of_many: dict[int, str] = {}
        for directory, manifest in ours:
            newest_of_step.pop(manifest.step, None)
            newest_of_step[manifest.step] = directory
        for step, directory in sorted(newest_of_step.items()):
            if self.keep_every is not None and step >= self.keep_every:
                first_of_many.setdefault(step // self.keep_every, directory)
        last = list(newest_of_step.values())[-self.keep_last :]
        kept = {*last, newest, *self._mended_pointers(ours).values(), *first_of_many.values()}
        below = survey(self.files).directories
        for directory, _ in ours:
            if directory not in kept:
                remove(self.files, directory, below[directory])

    def _mended_pointers(self, ours: Sequence[tuple[str, Manifest]]) -> dict[str, str]:
        """Return the pointers; damaged ones lead again to the newest checkpoint that was saved for them."""
        found = self.pointers()
        saved_for = {name: directory for directory, manifest in ours for name in manifest.pointers}
        for name in saved_for.keys() - found.keys():
            if self._exists(name):  # one that is missing was removed on purpose
                self.files.write(name, saved_for[name].encode())
                found[name] = saved_for[name]
                warnings.warn(
                    f"the pointer '{name}' at {self.files.uri} was damaged; it leads to '{found[name]}' again",
                    stacklevel=2,
                )
        return found

    def _of_run(self, run: str) -> list[tuple[str, Manifest]]:
        """Return the whole checkpoints of a run, the newest last; clocks may go backwards, attempts and steps do not."""
        found = [
            (directory, manifest)
            for directory, manifest in self.manifests()
            if manifest.run == run and DIRECTORY.fullmatch(directory)  # a copy by another name is somebody's
        ]
        return sorted(found, key=lambda each: (each[1].attempt, each[1].step, each[1].created, each[0]))

    def candidates(self) -> Candidates:
        """Return the checkpoints that a run can go on from: what ``latest`` leads to, then earlier ones of that run.

        Without a pointer that leads to one, they are those of the only run that has saved here, the newest first.

        Raises:
            CheckpointError: There is none, or nothing says whose would be the right one.
        """
        problem = None
        try:
            latest = self.resolve()
        except CheckpointError as error:
            latest, problem, broken = None, f"{error.where}: {error.message}", error
        try:
            target = latest or self._pointer("latest")
            run = None if target is None else self._run_of(target)
            if run is None:
                runs = sorted({each.run for name, each in self.manifests() if DIRECTORY.fullmatch(name)})
                if len(runs) > 1:
                    raise CheckpointError(
                        f"'latest' leads to no whole checkpoint, and there are those of {len(runs)} runs",
                        where=self.files.uri,
                        mend=f"name the one to go on from: {', '.join(self._known('latest'))}",
                    )
                if not runs and latest is None:
                    raise broken
                run = runs[0] if runs else None
            names = [] if run is None else [directory for directory, _ in reversed(self._of_run(run))]
        except FileError as error:
            raise UnsuitableError(f"the checkpoints are unreadable: {error.message}", where=error.where) from error
        if latest is None:
            return Candidates(names, problem)
        earlier = names[names.index(latest) + 1 :] if latest in names else names
        return Candidates([latest, *earlier], None)

    def _run_of(self, directory: str) -> str | None:
        """Return whose a checkpoint is, also where it is damaged; None where nothing says so."""
        with suppress(CheckpointError):
            return self._manifest(directory).run
        with suppress(FileMissingError):
            return self.files.read(f"{directory}/{OWNER}", 0, _POINTER_BYTES).decode(errors="replace")
        return None

    def manifests(self) -> Iterator[tuple[str, Manifest]]:
        """Yield (directory, manifest) of every whole checkpoint; what cannot be decoded is none."""
        for directory in survey(self.files).whole:
            with suppress(CheckpointError):
                yield directory, self._manifest(directory)

    def pointers(self) -> dict[str, str]:
        """Return the pointers, and the directory that each leads to."""
        found = survey(self.files)
        targets = {path: self._pointer(path) for path in found.files}
        return {path: target for path, target in targets.items() if target in found.whole}

    def _pointer(self, path: str) -> str | None:
        """Return what a pointer says, None where there is no file that could be one."""
        try:
            if self.files.stat(path).size > _POINTER_BYTES:
                return None
            content = self.files.read(path, 0, _POINTER_BYTES)
        except FileMissingError:
            return None
        return content.decode() if re.fullmatch(rb"[\w.-]*\w", content) else None

    def _exists(self, path: str) -> bool:
        try:
            self.files.stat(path)
        except FileMissingError:
            return False
        return True

    def _manifest(self, directory: str) -> Manifest:
        path = f"{directory}/{MANIFEST}"
        where = f"{self.files.uri}/{path}"
        try:
            content = self.files.read(path)
        except FileMissingError:
            raise CheckpointError(
                "there is no whole checkpoint here (no manifest)", where=f"{self.files.uri}/{directory}"
            ) from None
        except FileError as error:
            raise UnsuitableError(f"the manifest is unreadable: {error.message}", where=where) from error
        return decode_manifest(content, where)

    def resolve(self, name: str = "latest") -> str:
        """Return the directory that a pointer or a directory's name stands for.

        Raises:
            CheckpointError: There is neither; the message names what there is.
        """
        try:
            if self._exists(f"{name}/{MANIFEST}"):
                return name
            target = self._pointer(name)
            if target is not None and self._exists(f"{target}/{MANIFEST}"):
                return target
            is_file = target is None and self._exists(name)
        except FileError as error:
            raise CheckpointError(
                f"'{name}' cannot be looked up: {error.message}", where=error.where, mend=error.mend
            ) from error
        why = ": it is a file of another kind" if is_file else ""
        why = f": it leads to '{target}', which has no manifest" if target else why
        known = [] if is_file else self._known(name)
        usual = "name a directory with a manifest.json, or a pointer to one such as …/checkpoints/latest"
        mend = did_you_mean(name, known) or (f"there are {', '.join(known)}" if known else usual)
        raise CheckpointError(f"there is no checkpoint '{name}'{why}", where=self.files.uri, mend=mend)

    def _known(self, name: str) -> list[str]:
        """Return pointers and newest checkpoints for a message, none where no run seems to have saved."""
        try:
            # A mistaken path may make any directory the root; its whole tree is not worth walking.
            if name != "latest" and not DIRECTORY.fullmatch(name) and self._pointer("latest") is None:
                return []
            found = survey(self.files, _LOOK_AROUND)
        except FileError:
            return []
        pointers = []
        for path in found.files:
            with suppress(FileError):
                if self._pointer(path) in found.whole:
                    pointers.append(path)
        return [*pointers, *sorted(found.whole, reverse=True)[:10]]

    def load(self, name: str = "latest", *, shards: bool = True) -> tuple[Manifest, dict[str, object]]:
        """Read a checkpoint and verify it against its manifest.

        Args:
            name: A pointer, or a directory's name.
            shards: Read the tensors that ranks have written in parts, too, whole; else they are missing in the tree, whose
                entry ``"shards"`` says where they belong (see `treenail.adapters.checkpoint.parts`).

        Returns:
            The manifest and the state tree, tensors on the CPU.

        Raises:
            CheckpointError: It is missing, torn or of a later format.
        """
        directory = self.resolve(name)
        try:
            return self._load(directory, shards=shards)
        except CheckpointError as error:
            if error.mend is None:
                error.mend = self._instead_of(directory)
            raise

    def _load(self, directory: str, *, shards: bool) -> tuple[Manifest, dict[str, object]]:
        manifest = self._manifest(directory)
        where = f"{self.files.uri}/{directory}"
        state = thaw(read_snapshot(self.files, directory, manifest))
        if not isinstance(state, dict):
            raise CheckpointError("the state is not a mapping", where=where)
        if shards and SHARDS in state:
            places = places_of(state.pop(SHARDS))
            for name, tensor in read_whole(self.files, directory).items():
                put(state, places[name], tensor)
        return manifest, cast("dict[str, object]", state)

    def _instead_of(self, directory: str) -> str:
        """Say which checkpoints, newest first, could be used in place of a damaged one."""
        others: list[str] = []
        with suppress(FileError):
            found = [(each.created, name, each) for name, each in self.manifests() if name != directory]
            for _, name, manifest in sorted(found, key=lambda each: each[:2], reverse=True):
                if len(others) < 3 and has_its_sizes(self.files, name, manifest):
                    others.append(name)
        if not others:
            return "this checkpoint is damaged, and there is no other here"
        return f"use another checkpoint, for example {', '.join(others)}"


def _free_name(name: str, found: Survey) -> str:
    # A state before and one after the validation have the same step; a resumed attempt may reach a step again. What
    # lies in a directory of the name, checkpoint or not, is not ours to write over.
    numbers = [int(each[len(name) + 1 :] or 1) for each in found.directories if re.fullmatch(rf"{name}(\.\d+)?", each)]
    return f"{name}.{max(numbers) + 1}" if numbers else name


def _versions() -> dict[str, str]:
    try:
        treenail = version("treenail")
    except PackageNotFoundError:  # embedded as a source tree
        treenail = "unknown"
    return {"treenail": treenail, "torch": str(torch.__version__), "python": platform.python_version()}
