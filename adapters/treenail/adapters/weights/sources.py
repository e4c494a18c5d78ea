"""Opens files with weights: our checkpoints, safetensors, torch's files, and those of mmengine and Lightning."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Final, Literal, NamedTuple, cast

import msgspec
from torch import Tensor

from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.files import (
    Place,
    backend_at,
    current_mounts,
    file_exists,
    get_local_path,
    is_directory,
    join_path,
    redacted,
)
from treenail.adapters.weights.pickles import Opaque, read_pickled
from treenail.contracts import Manifest
from treenail.kernel import CheckpointError, FileError, did_you_mean, require

Kind = Literal["treenail", "safetensors", "torch", "mmengine", "lightning"]

KIND_NAMES: Final[Mapping[Kind, str]] = {
    "treenail": "a checkpoint of treenail",
    "safetensors": "safetensors",
    "torch": "a file of torch.save",
    "mmengine": "a checkpoint of mmengine",
    "lightning": "a checkpoint of Lightning",
}

_POINTER_BYTES = 256
_IN_DIRECTORIES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
"""What the directory of a model on a hub holds, the first that is there counts."""

_NO_WEIGHTS = {
    b"version https://git-lfs": ("this is a pointer of Git LFS, not the file itself", "run git lfs pull there"),
    b"<!DOCTYPE": ("this is a web page", "download the file itself"),
    b"<html": ("this is a web page", "download the file itself"),
    b"GGUF": ("this is a file of GGUF, which is not read", "name the .safetensors that it was made of"),
    b"\x89HDF": ("this is a file of HDF5, which is not read", "save its arrays as .safetensors"),
}
"""What files that are often taken for weights begin with."""

_USUAL_PARTS = ("state_dict", "model_state_dict", "model", "module", "net", "weights")
"""Where files of torch.save hold a model's weights besides other things."""

_NO_FILES = {
    "torchvision": "write the weights' https:// address (torchvision.models.get_weight(NAME).url says it)",
    "open-mmlab": "write the https:// address of the model zoo's page",
    "openmmlab": "write the https:// address of the model zoo's page",
    "mmcls": "write the https:// address of the model zoo's page",
}
"""Schemes that name models by tables of their own."""


_SAVE_ITS_STATE = "where that class is installed and the file is trusted, save the object's state_dict() instead"


class Source(NamedTuple):
    """A file that holds weights, and perhaps more, as it was read.

    Args:
        kind: Who wrote it.
        tree: What it holds, by name.
        where: Its place, for messages.
        opaque: Names of classes whose objects were not loaded.
        manifest: Of a checkpoint of ours.
    """

    kind: Kind
    tree: dict[str, object]
    where: str
    opaque: tuple[str, ...] = ()
    manifest: Manifest | None = None


def open_source(path: str | PathLike[str]) -> Source:
    """Read a file or directory that holds weights; no code in it is run.

    Args:
        path: A path or URI: a checkpoint's directory or a pointer to one, a .safetensors file, a file of torch.save, the
            index of several of them, a model's directory on a hub.

    Raises:
        CheckpointError: There is none, it is damaged, or of no kind that is known.
        FileError: Nothing serves the URI, or the store failed.
        MissingDependencyError: A library that it takes is not installed.
    """
    where = redacted(str(path))
    scheme, separator, _ = str(path).partition("://")
    if separator and scheme in _NO_FILES:
        raise CheckpointError(
            f"'{scheme}://' names models by a table of another project, which is not here",
            where=where,
            mend=_NO_FILES[scheme],
        )
    place = current_mounts().resolve(path)
    try:
        if is_directory(place.backend, place.path):
            return _directory(path, place, where)
        if not place.path or not file_exists(place.backend, place.path):
            raise CheckpointError(
                "there is no such file or directory", where=where, mend="name a checkpoint, …/checkpoints/best"
            )
        size = place.backend.stat(place.path).size
        head = place.backend.read(place.path, 0, min(size, _POINTER_BYTES))
    except FileError as error:
        raise CheckpointError(f"it cannot be read: {error.message}", where=where, mend=error.mend) from error
    for beginning, (what, mend) in _NO_WEIGHTS.items():
        if head.startswith(beginning):
            raise CheckpointError(what, where=where, mend=mend)
    if place.path.endswith(".json"):
        return _indexed(path, place, where)
    if head[8:9] == b"{" or place.path.endswith(".safetensors"):
        return Source("safetensors", dict(_safetensors(place, where)), where)
    if 0 < size < _POINTER_BYTES and head.isascii() and head.decode().isprintable():
        return _ours(place, where)
    with get_local_path(path) as local:
        return _pickled(local, where)


def _directory(path: str | PathLike[str], place: Place, where: str) -> Source:
    if file_exists(place.backend, place.below("manifest.json").path):
        return _ours(place, where)
    for name in _IN_DIRECTORIES:
        inner = place.below(name)
        if file_exists(inner.backend, inner.path):
            return open_source(join_path(path, name))
    for name in ("latest", "checkpoints/latest"):
        if file_exists(place.backend, place.below(name).path):
            raise CheckpointError(
                "this directory holds checkpoints, and is none", where=where, mend=f"name {where}/{name}, for instance"
            )
    if file_exists(place.backend, place.below(".metadata").path):
        raise CheckpointError(
            "this directory is a checkpoint of torch.distributed.checkpoint, which is not read",
            where=where,
            mend=f"make a file of it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch {where} weights.pt",
        )
    raise CheckpointError(
        "this directory is no checkpoint: it has no manifest.json",
        where=where,
        mend="name a checkpoint's directory, a pointer to one, or a file",
    )


def _ours(place: Place, where: str) -> Source:
    parent, _, name = place.path.rpartition("/")
    manifest, state = CheckpointStore(backend_at(place._replace(path=parent))).load(name)
    return Source("treenail", state, where, manifest=manifest)


def _safetensors(place: Place, where: str) -> dict[str, Tensor]:
    safetensors = require("safetensors.torch", extra="train", purpose="reading safetensors")
    try:
        # safetensors has no types that mypy knows here
        return cast("dict[str, Tensor]", safetensors.load(place.read()))
    except FileError as error:
        raise CheckpointError(f"it cannot be read: {error.message}", where=where, mend=error.mend) from error
    except Exception as error:  # safetensors raises several types of its own
        raise CheckpointError(
            f"this is no whole file of safetensors: {error}", where=where, mend="copy or download it again"
        ) from error


class _Index(msgspec.Struct):
    """The index of a model in several files; source: huggingface.co/docs/transformers, sharded checkpoints."""

    weight_map: dict[str, str]


def _indexed(path: str | PathLike[str], place: Place, where: str) -> Source:
    """Read the files that an index names, of safetensors or of torch.save."""
    try:
        weight_map = msgspec.json.decode(place.read(), type=_Index).weight_map
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"this is no index of a model's files: {error}",
            where=where,
            mend="it has a mapping 'weight_map' of names to files",
        ) from error
    names = dict.fromkeys(weight_map.values())
    for name in names:
        if "/" in name or name.startswith("."):
            raise CheckpointError(f"the index names '{name}', which does not lie beside it", where=where)
        if name.endswith(".json"):
            raise CheckpointError(f"the index names '{name}', which holds no weights", where=where)
    tree: dict[str, object] = {}
    kinds: list[Kind] = []
    parent, slash, _ = str(path).rstrip("/").rpartition("/")
    for name in names:
        part = open_source(f"{parent}{slash}{name}")
        kinds.append(part.kind)
        tree |= part.tree
    if missing := sorted(weight_map.keys() - tree.keys()):
        raise CheckpointError(
            f"the files lack {len(missing)} tensors of the index, such as {missing[0]}",
            where=where,
            mend="are they of one model?",
        )
    return Source(kinds[0] if kinds else "safetensors", tree, where)


def _pickled(path: Path, where: str) -> Source:
    value, opaque = read_pickled(path, where)
    if isinstance(value, Opaque):
        raise CheckpointError(
            f"the file holds an object of {value.class_name}, no weights", where=where, mend=_SAVE_ITS_STATE
        )
    if not isinstance(value, dict):
        kind = getattr(value, "class_name", f"a {type(value).__name__}")  # a class or function that is stood for
        raise CheckpointError(
            f"the file holds {kind}, no weights by name",
            where=where,
            mend="save model.state_dict(), or {'state_dict': …}",
        )
    tree = {str(name): each for name, each in value.items()}
    if hasattr(value, "_metadata"):
        tree = cast("dict[str, object]", value)  # of a state_dict, whose modules' versions are in the attribute
    return Source(_kind_of(tree), tree, where, opaque)


def _kind_of(tree: Mapping[str, object]) -> Kind:
    meta = tree.get("meta")
    if "state_dict" in tree and "pytorch-lightning_version" in tree:
        return "lightning"
    if "state_dict" in tree and isinstance(meta, dict) and ("mmengine_version" in meta or "mmcv_version" in meta):
        return "mmengine"
    return "torch"


def weights_of(source: Source, part: str | None = None) -> dict[str, object]:
    """Return a model's weights by name from what was read.

    Args:
        source: What was read.
        part: Where in it they are, parts of parts after dots; ``averages`` of a checkpoint of ours are the model with its
            averages. None: the model's, where files of this kind have them.

    Raises:
        CheckpointError: There is no such part, or it holds no tensors; or several may be meant.
    """
    if part is None:
        part = _usual_part(source)
    found: object = source.tree
    walked: list[str] = []
    for name in part.split(".") if part else ():
        if not isinstance(found, dict) or name not in found:
            known = [str(each) for each in found] if isinstance(found, dict) else []
            mend = did_you_mean(name, known) or f"there are {', '.join(known[:20]) or 'none'}"
            inside = f" in '{'.'.join(walked)}'" if walked else ""
            raise CheckpointError(f"there is no part '{name}'{inside}", where=source.where, mend=mend)
        found = found[name]
        walked.append(name)
    if source.kind == "treenail" and part == "averages":
        return _averages(source)
    if not isinstance(found, dict) or not any(isinstance(each, Tensor) for each in found.values()):
        named = f"the part '{part}'" if part else "the file"
        raise CheckpointError(
            f"{named} holds no tensors by name",
            where=source.where,
            mend=f"parts with tensors are {', '.join(parts_with_tensors(source.tree)) or 'none'}",
        )
    return cast("dict[str, object]", found)  # names that are no texts are refused where they are matched


def _usual_part(source: Source) -> str:
    if source.kind == "treenail":
        return "model"
    if source.kind in ("mmengine", "lightning"):
        return "state_dict"
    if source.kind == "safetensors":
        return ""
    found = [name for name in _USUAL_PARTS if _has_tensors(source.tree.get(name))]
    if len(found) == 1:
        return found[0]
    # Beside a part there may be tensors that are no weights: a best score, the state of a random generator.
    if not found and any(isinstance(each, Tensor) for each in source.tree.values()):
        return ""
    for name in _USUAL_PARTS:
        if not found and isinstance(held := source.tree.get(name), Opaque):
            raise CheckpointError(
                f"its part '{name}' is an object of {held.class_name}, no weights",
                where=source.where,
                mend=_SAVE_ITS_STATE,
            )
    if known := found or parts_with_tensors(source.tree):
        raise CheckpointError(
            "it is not plain which of its parts are the model's weights",
            where=source.where,
            mend=f"say part: one of {', '.join(known)}",
        )
    named = ", ".join(map(str, list(source.tree)[:20]))
    raise CheckpointError(
        "there are no tensors by name in it", where=source.where, mend=f"it holds {named}" if named else "it is empty"
    )


def _averages(source: Source) -> dict[str, object]:
    model, averages = source.tree.get("model"), source.tree.get("averages")
    held = averages if isinstance(averages, dict) else {}
    if not isinstance(model, dict) or not held.get("averaged"):
        raise CheckpointError("averaging had not begun", where=source.where, mend="leave out part: averages")
    merged = copy.copy(model)  # with the versions of its modules, which it has as an attribute
    merged.update(held["weights"])
    merged.update(held["buffers"])
    return merged


def parts_with_tensors(tree: Mapping[str, object], depth: int = 2) -> list[str]:
    """Return the parts of a tree that hold tensors by name, parts of parts after dots."""
    found: list[str] = []
    for name, value in tree.items():
        if _has_tensors(value):
            found.append(str(name))
        elif isinstance(value, dict) and depth > 1:
            found += [f"{name}.{inner}" for inner in parts_with_tensors(value, depth - 1)]
    return found


def _has_tensors(value: object) -> bool:
    return isinstance(value, dict) and any(isinstance(each, Tensor) for each in value.values())
