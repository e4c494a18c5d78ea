"""Weights for inference, by themselves: one file of safetensors whose name has the beginning of its digest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from treenail.adapters.averaging import read_averages
from treenail.adapters.checkpoint.contents import Content
from treenail.adapters.checkpoint.ranks import on_first
from treenail.adapters.checkpoint.spread import RankCheckpointer
from treenail.adapters.checkpoint.store import CheckpointStore
from treenail.adapters.checkpoint.tensors import pack
from treenail.kernel import CheckpointError, FileError

PUBLISHED: Final = "published"
_DIGITS: Final = 8  # as torch.hub looks for them in names


def publish(checkpointer: RankCheckpointer, name: str) -> str:
    """Write the model's weights of a checkpoint beside the checkpoints; all ranks call it together.

    Averages of the weights take their place where the checkpoint has some. The name is as `torch.hub` verifies it:
    ``published/step-00000200-0a1b2c3d.safetensors``. A complex tensor has real and imaginary part as last dimension.

    Args:
        checkpointer: Of the run; a save under way is waited for.
        name: A pointer, or a directory's name.

    Returns:
        Where the file lies.

    Raises:
        CheckpointError: There is no such checkpoint, it has no model, or the file cannot be written; on every rank.
    """
    checkpointer.flush()
    return on_first(checkpointer.communicator, lambda: _publish(checkpointer.store, name))


def _publish(store: CheckpointStore, name: str) -> str:
    directory = store.resolve(name)
    _, state = store.load(directory)
    weights = state.get("model")
    if not isinstance(weights, dict):
        raise CheckpointError("the checkpoint has no model to publish", where=f"{store.files.uri}/{directory}")
    if isinstance(averages := state.get("averages"), dict):
        weights = _averaged(weights, averages)
    tensors = {str(key): pack(value)[0] for key, value in weights.items() if isinstance(value, Tensor)}
    content = Content.of(tensors, {"format": "pt"})
    path = f"{PUBLISHED}/{directory}-{content.sha256()[:_DIGITS]}.safetensors"
    try:
        store.files.write(path, content.chunks())
    except FileError as error:
        raise CheckpointError(f"the weights could not be published: {error.message}", where=error.where) from error
    return f"{store.files.uri}/{path}"


def _averaged(weights: Mapping[str, object], averages: Mapping[str, object]) -> dict[str, object]:
    """Return a model's state with averages in the place of what was averaged, also where it has two names."""
    saved = read_averages(averages)
    if saved.averaged == 0:
        return dict(weights)
    found = {name: tensor for name, tensor in (saved.weights | saved.buffers).items() if name in weights}
    in_place_of = {id(weights[name]): tensor for name, tensor in found.items()}
    return {
        name: in_place_of[id(value)].to(value.dtype)
        if isinstance(value, Tensor) and id(value) in in_place_of
        else value
        for name, value in weights.items()
    }
