"""The tensors of a checkpoint in one file of safetensors, whole, for whoever knows nothing of ranks and state trees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from torch import Tensor

from treenail.adapters.checkpoint.parts import SHARDS, Path, places_of
from treenail.adapters.checkpoint.shard_files import Deferred, deferred, write_tensors
from treenail.adapters.checkpoint.sharded import stored_tensors
from treenail.adapters.checkpoint.store import CheckpointStore
from treenail.adapters.checkpoint.tensors import pack
from treenail.contracts import FileEntry
from treenail.kernel import CheckpointError, FileBackend, did_you_mean


def consolidate(files: FileBackend, directory: str, destination: FileBackend, path: str) -> FileEntry:
    """Write the tensors in the shards of a checkpoint into one file, with one of them in memory at a time.

    A complex tensor is written with real and imaginary part as last dimension, and its name in the header's
    ``complex``.

    Args:
        files: Where from.
        directory: Path of the checkpoint's directory.
        destination: Where to.
        path: Of the file.

    Raises:
        CheckpointError: A shard is missing, torn or damaged, or the destination failed.
    """
    return _write(stored_tensors(files, directory), destination, path)


def consolidate_checkpoint(
    store: CheckpointStore, name: str, destination: FileBackend, path: str, part: str | None = None
) -> FileEntry:
    """Write all tensors of a checkpoint into one file, those in its shards, if it has some, one at a time.

    Args:
        store: Where it is.
        name: A pointer, or a directory's name.
        destination: Where to.
        path: Of the file.
        part: Only the tensors of this part of the run, by their names in its own state: of ``"model"`` ``0.weight``, which
            is ``model/0.weight`` among all. A complex tensor is written as by `consolidate`.

    Raises:
        CheckpointError: It is missing, torn or damaged, has no such part, or the destination failed.
    """
    directory = store.resolve(name)
    _, state = store.load(directory, shards=False)
    recorded = state.pop(SHARDS, None)
    tensors = {place: deferred(tensor) for place, tensor in _tensors(state, ())}
    if recorded is not None:
        stored, places = stored_tensors(store.files, directory), places_of(recorded)
        if missing := sorted(places.keys() ^ stored.keys()):
            raise CheckpointError(
                f"shards and state disagree about '{missing[0]}'", where=f"{store.files.uri}/{directory}"
            )
        tensors |= {places[each]: tensor for each, tensor in stored.items()}
    if part is not None:
        parts = [str(place[0]) for place in tensors]
        tensors = {place[1:]: tensor for place, tensor in tensors.items() if place[0] == part}
        if not tensors:
            known = list(dict.fromkeys(parts))
            mend = did_you_mean(part, known) or f"there are tensors of {', '.join(known) or 'nothing'}"
            raise CheckpointError(f"the checkpoint has no tensors of '{part}'", where=store.files.uri, mend=mend)
    named = {"/".join(map(str, place)): tensor for place, tensor in tensors.items()}
    if len(named) < len(tensors):
        raise CheckpointError("two tensors of the state have names that differ by slashes only", where=directory)
    return _write(named, destination, path)


def _tensors(value: object, path: Path) -> Iterator[tuple[Path, Tensor]]:
    """Yield the tensors of a state tree with their places."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _tensors(item, (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _tensors(item, (*path, index))


def _write(tensors: Mapping[str, Deferred], destination: FileBackend, path: str) -> FileEntry:
    metadata = {"format": "pt"}
    if complex_names := sorted(name for name, tensor in tensors.items() if tensor.dtype.is_complex):
        metadata["complex"] = ",".join(complex_names)
    above, _, name = path.rpartition("/")
    return write_tensors(destination, above, name, metadata, {key: _real(each) for key, each in tensors.items()})


def _real(tensor: Deferred) -> Deferred:
    """Return a tensor as it is stored: contiguous, and of real numbers."""
    tail = (2,) if tensor.dtype.is_complex else ()
    dtype = tensor.dtype.to_real() if tail else tensor.dtype
    return Deferred(dtype, tensor.shape + tail, partial(_packed, tensor))


def _packed(tensor: Deferred) -> Tensor:
    return pack(tensor.read())[0]
