"""The manifest of a checkpoint: written last, trusted alone; a directory without a valid one is no checkpoint."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

FORMAT_VERSION = 2
BLOCK_BYTES = 1 << 23
"""Size of the blocks of a large file that are hashed each for itself, so that several threads do it."""

_Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class FileEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the checkpoint.

    Args:
        path: Relative to the checkpoint's directory.
        size: Bytes.
        sha256: Hexadecimal SHA-256 (FIPS 180-4) of its content. Of one larger than `BLOCK_BYTES`, the SHA-256 of the digests
            (32 bytes each) of its blocks of that size, the last of which may be smaller.
    """

    path: str
    size: Annotated[int, Meta(ge=0)]
    sha256: _Digest


class Manifest(Struct, frozen=True, kw_only=True):
    """What a checkpoint holds and where it comes from.

    Unknown fields are ignored; another `format_version` is refused. The first two fields are the same in every format.

    Args:
        format_version: Version of this format.
        sha256: Hexadecimal SHA-256 of the manifest's own text with 64 zeros in this place; empty until it is written.
        run: Identity of the run that wrote it, kept across resumes.
        attempt: How often the run had been resumed, plus one.
        step: Training steps committed.
        epoch: Training epochs completed.
        reason: Why it was saved.
        pointers: What was led to it when it was saved: ``latest``, ``best`` …
        created: RFC 3339 time in UTC.
        world_size: Processes of the run.
        files: Its files, with sizes and checksums.
        config: The run's config as plain data.
        versions: Of treenail, torch and Python.
    """

    format_version: int
    sha256: str
    run: str
    attempt: Annotated[int, Meta(ge=1)]
    step: Annotated[int, Meta(ge=0)]
    epoch: Annotated[int, Meta(ge=0)]
    reason: str
    created: str
    world_size: Annotated[int, Meta(ge=1)]
    files: tuple[FileEntry, ...]
    config: object = None
    versions: dict[str, str] = {}
    pointers: tuple[str, ...] = ()
