"""The file of a state's tensors: hashed while it is written, read and verified in blocks by several threads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import torch
from torch import Tensor

from treenail.adapters.checkpoint.contents import Content, Source, join_digests, write_content
from treenail.adapters.checkpoint.headers import file_size, read_entries
from treenail.contracts import FileEntry
from treenail.contracts.checkpoint import BLOCK_BYTES
from treenail.kernel import CheckpointError, FileBackend

_READERS: Final = min(4, os.cpu_count() or 1)
_REMOTE_READERS: Final = 8  # they wait for a server more than for a core


def write_state(files: FileBackend, directory: str, name: str, tensors: Mapping[str, Tensor]) -> FileEntry:
    """Write tensors as a file of safetensors, durably; nothing is copied but a chunk at a time.

    Args:
        files: Where to.
        directory: In it.
        name: Of the file, and the path of the entry.
        tensors: On the CPU, contiguous; nobody changes them meanwhile.

    Raises:
        FileError: The backend failed.
    """
    return write_content(files, directory, name, Content.of(tensors, {"format": "pt"}))


def read_state(files: FileBackend, path: str, entry: FileEntry) -> dict[str, Tensor]:
    """Read and verify the tensors that `write_state` wrote, each into memory of its own.

    Args:
        files: Where from.
        path: In it.
        entry: What the manifest says of the file.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    where = f"{files.uri}/{path}"
    size = file_size(files, path)
    if size != entry.size:
        raise CheckpointError(f"the file has {size} bytes, its manifest says {entry.size}", where=where)
    stored, _ = read_entries(files, path)
    ordered = sorted(stored, key=lambda name: (stored[name].start, stored[name].size))
    position = begin = stored[ordered[0]].start if ordered else size
    for name in ordered:
        if stored[name].start != position:
            raise CheckpointError(f"the file's header is torn: '{name}' does not follow the tensor before", where=where)
        position += stored[name].size
    tensors = {name: torch.empty(each.shape, dtype=each.dtype) for name, each in stored.items()}
    content = Content(bytearray(begin), [tensors[name] for name in ordered])
    if content.size != size:
        raise CheckpointError(f"the file's tensors end {size - content.size} bytes before it does", where=where)

    def fill(start: int) -> bytes:
        source.read(start, list(content.span(start, BLOCK_BYTES)))
        return content.block_digest(start)

    threads = _READERS if files.capabilities.local else _REMOTE_READERS
    with Source(files, path) as source, ThreadPoolExecutor(threads, "treenail-read") as pool:
        found = join_digests(pool.map(fill, content.blocks))
    if found != entry.sha256:
        raise CheckpointError("the file's checksum is not that of its manifest", where=where)
    return tensors
