"""The manifest of a checkpoint: written last, trusted alone; a directory without a valid one is no checkpoint."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

FORMAT_VERSION = 1
BLOCK_BYTES = 1 << 24
"""Size of the blocks of a large file that have digests of their own, so that it is verified by several threads."""


class FileEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the checkpoint.

    Args:
        path: Relative to the checkpoint's directory.
        size: Bytes.
        sha256: Hexadecimal digest (FIPS 180-4) of its content.
    """

    path: str
    size: Annotated[int, Meta(ge=0)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Manifest(Struct, frozen=True, kw_only=True):
    """What a checkpoint holds and where it comes from.

    Fields that a later format adds are ignored when they are unknown; a later `format_version` is refused.

    Args:
        format_version: Version of this format.
        run: Identity of the run that wrote it, kept across resumes.
        attempt: How often the run had been resumed, plus one.
        step: Training steps committed.
        epoch: Training epochs completed.
        reason: Why it was saved.
        created: RFC 3339 time in UTC.
        world_size: Processes of the run.
        files: Its files, with sizes and checksums.
        blocks: SHA-256 of each `BLOCK_BYTES` of a file, by its path; for those that are read in blocks.
        config: The run's config as plain data.
        versions: Of treenail, torch and Python.
    """

    format_version: int
    run: str
    attempt: Annotated[int, Meta(ge=1)]
    step: Annotated[int, Meta(ge=0)]
    epoch: Annotated[int, Meta(ge=0)]
    reason: str
    created: str
    world_size: Annotated[int, Meta(ge=1)]
    files: tuple[FileEntry, ...]
    blocks: dict[str, tuple[str, ...]] = {}
    config: object = None
    versions: dict[str, str] = {}
