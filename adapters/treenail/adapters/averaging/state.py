"""Saved averages: reading them, and giving them to a model that is no longer trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from treenail.adapters.averaging.batchnorm import layers_with_statistics
from treenail.adapters.averaging.passes import is_spread, local, part_of
from treenail.adapters.averaging.tensors import tensors_of
from treenail.kernel import StateError, did_you_mean


class SavedAverages(NamedTuple):
    """What the state of a `WeightAverages` holds.

    Args:
        updates: How many there were since averaging began.
        averaged: How often the averages took part of the weights; with 0 they are none yet.
        weights: By the names of the model's parameters.
        buffers: By the names of the model's buffers: averages, or the averages' own.
        measured: What `averaged` was when statistics were measured for them, where buffers are the averages' own.
    """

    updates: int
    averaged: int
    weights: dict[str, Tensor]
    buffers: dict[str, Tensor]
    measured: int | None


def read_averages(state: Mapping[str, object]) -> SavedAverages:
    """Read the state of averages.

    Raises:
        StateError: It is something else, or has lost some of its averages.
    """
    counts = [state.get(name) for name in ("updates", "averaged")]
    updates, averaged = (value if type(value) is int else -1 for value in counts)
    if not 0 <= averaged <= updates:
        raise StateError(f"updates={counts[0]!r} and averaged={counts[1]!r} are no counts of averages")
    weights, buffers, names = _tensors(state, "weights"), _tensors(state, "buffers"), state.get("names")
    if not isinstance(names, list):
        raise StateError("the state of averages has no list of 'names'", where="names")
    if wrong := (weights.keys() | buffers.keys()) ^ set(map(str, names)):
        raise StateError(
            f"'{min(wrong)}' is among the names or the tensors of the averages, and not among both",
            where="names",
            mend="this is a part of a state, give a whole one",
        )
    measured = state.get("measured", "missing")  # None where statistics are not the averages' own
    if measured is not None and (type(measured) is not int or not 0 <= measured <= averaged):
        raise StateError(f"measured={measured!r} is no count of averages", where="measured")
    return SavedAverages(updates, averaged, weights, buffers, measured)


def _tensors(state: Mapping[str, object], name: str) -> dict[str, Tensor]:
    found = state.get(name)
    if not isinstance(found, Mapping) or not all(isinstance(each, Tensor) for each in found.values()):
        raise StateError(f"the state of averages has no tensors '{name}'", where=name)
    return dict(found)


def check_fit(saved: Mapping[str, Tensor], held: Mapping[str, Tensor], where: str) -> None:
    """Check that tensors of a state are those of a model.

    Raises:
        StateError: The model lacks one, or has it in another shape, or the tensor is spread over ranks in another way.
    """
    for name, tensor in saved.items():
        target = held.get(name)
        if target is None:
            mend = did_you_mean(name, held) or "is it the state of another model?"
            raise StateError(f"the model has no '{name}'", where=where, mend=mend)
        if tensor.shape != target.shape:
            raise StateError(f"'{name}' is {list(tensor.shape)}, in the model {list(target.shape)}", where=where)
        if is_spread(tensor) and (not is_spread(target) or tensor.placements != target.placements):
            raise StateError(f"'{name}' is not spread over ranks as the model's is", where=where)


@torch.no_grad()
def load_averages(model: nn.Module, state: Mapping[str, object]) -> bool:
    """Give a model the averages of a training, to test or export it.

    Args:
        model: With the weights of the training, which it keeps where nothing was averaged.
        state: The state of a `WeightAverages`, as a checkpoint's part ``averages`` is.

    Returns:
        Whether averaging had begun; if not, the model keeps the weights of the training.

    Raises:
        StateError: It is no state of averages, or of those of another model, or batch normalisation has not been measured for
            them.
    """
    saved, tensors = read_averages(state), tensors_of(model)
    check_fit(saved.weights, tensors.parameters, "weights")
    check_fit(saved.buffers, tensors.buffers, "buffers")
    if saved.averaged == 0:
        return False
    if saved.measured not in (None, saved.averaged) and layers_with_statistics(model):
        raise StateError(
            "the statistics of batch normalisation have not been measured for these averages, which is done for validations "
            "and at the end of the training",
            mend="take a checkpoint that was saved after one, such as the last",
        )
    for name, weight in saved.weights.items():
        local(tensors.parameters[name]).copy_(part_of(weight, tensors.parameters[name]))
    for name, buffer in saved.buffers.items():
        local(tensors.buffers[name]).copy_(part_of(buffer, tensors.buffers[name]))
    return True
