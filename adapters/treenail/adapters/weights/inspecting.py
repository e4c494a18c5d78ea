"""What is in a checkpoint, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from treenail.adapters.weights.sources import KIND_NAMES, Source

_TOLD = {
    "mmengine": ("epoch", "iter", "seed", "experiment_name", "time", "mmengine_version"),
    "lightning": ("epoch", "global_step", "pytorch-lightning_version"),
}

_BEST = ("monitor", "best_model_score", "best_model_path")
"""What Lightning's ModelCheckpoint says of the best; others have other names."""


_LONG = 200
"""Characters of a text that are shown."""


class Part(NamedTuple):
    """A part of a checkpoint.

    Args:
        name: Its name.
        tensors: How many tensors are in it; shared ones count once.
        elements: Numbers in them.
        size: Their bytes.
    """

    name: str
    tensors: int
    elements: int
    size: int


def facts(source: Source) -> list[tuple[str, str]]:
    """Return what a checkpoint says of itself, as (name, value): its kind, position, best metrics, versions."""
    told = [("kind", KIND_NAMES[source.kind])]
    if (manifest := source.manifest) is not None:
        told += [("step", str(manifest.step)), ("epoch", str(manifest.epoch)), ("attempt", str(manifest.attempt))]
        told += [("saved because", manifest.reason), ("saved at", manifest.created), ("run", manifest.run)]
        told += [("ranks", str(manifest.world_size))]
        told += [("versions", ", ".join(f"{name} {number}" for name, number in manifest.versions.items()))]
    tree = source.tree
    meta = tree.get("meta") if source.kind == "mmengine" else tree
    if isinstance(meta, dict):
        told += [(name, str(meta[name])) for name in _TOLD.get(source.kind, ()) if meta.get(name) is not None]
    told += [(name, value) for name, value in _numbers(_of_interest(source), ())]
    if source.opaque:
        told.append(("not read", ", ".join(source.opaque)))
    return told


def _of_interest(source: Source) -> Mapping[str, object]:
    """Return what may hold the best metrics and the like."""
    tree = source.tree
    if source.kind == "treenail":
        return {"hooks": tree.get("hooks")}
    if source.kind == "lightning":
        callbacks = tree.get("callbacks")
        return {
            str(name).partition("{")[0]: {key: each[key] for key in _BEST if each.get(key) is not None}
            for name, each in (callbacks.items() if isinstance(callbacks, dict) else ())
            if isinstance(each, dict)
        }
    if source.kind == "torch":
        return {name: value for name, value in tree.items() if isinstance(value, int | float | str)}
    hub = tree.get("message_hub")
    info = hub.get("runtime_info") if source.kind == "mmengine" and isinstance(hub, dict) else None
    return {name: value for name, value in info.items() if "best" in name} if isinstance(info, dict) else {}


def _numbers(value: object, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _numbers(each, (*path, str(name)))
    elif isinstance(value, Tensor) and value.numel() == 1 and not value.is_meta:
        yield ".".join(path), f"{value.item():g}"
    elif isinstance(value, float):
        yield ".".join(path), f"{value:g}"
    elif isinstance(value, int | str) and value != "":
        text = str(value)
        yield ".".join(path), text if len(text) <= _LONG else f"{text[:_LONG]} … ({len(text):,} characters)"


def parts(source: Source) -> list[Part]:
    """Return the parts of a checkpoint that hold tensors, with their sizes."""
    tree = source.tree
    whole = all(isinstance(value, Tensor) for value in tree.values())
    named: Mapping[str, object] = {"(all)": tree} if whole else tree
    found = []
    for name, value in named.items():
        distinct = {_identity(each): each for _, each in tensors(value)}
        if distinct:
            counts = [(each.numel(), each.numel() * each.element_size()) for each in distinct.values()]
            found.append(Part(name, len(counts), sum(count for count, _ in counts), sum(size for _, size in counts)))
    return found


def _identity(tensor: Tensor) -> tuple[object, ...]:
    """Return what a tensor has in common with those that share its memory."""
    if tensor.layout is not torch.strided or tensor.is_meta or not tensor.numel():
        return (id(tensor),)
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def tensors(value: object, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in a tree with their paths, parts after slashes."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from tensors(each, f"{path}/{name}" if path else str(name))
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from tensors(each, f"{path}/{index}" if path else str(index))
