"""Functions that gather and break one law each; a comment names the real bug that a mutant repeats."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any  # what is gathered is of any type

import torch
from torch import Tensor

from treenail.adapters.comm import gather_object
from treenail.adapters.comm.samples import gather_samples
from treenail.adapters.comm.structures import all_gather_data, gather_data
from treenail.contracts.laws import GatherFunctions
from treenail.kernel import CommunicationError, Communicator

RIGHT = GatherFunctions(gather_data, all_gather_data, gather_samples, gather_object)


def _changed(value: Any, kind: type, change: Any) -> Any:
    """Return a nested value with each part of a type changed; containers are new ones."""
    if isinstance(value, kind) and type(value) is kind:
        return change(value)
    if isinstance(value, dict):
        return {key: _changed(each, kind, change) for key, each in value.items()}
    if type(value) is tuple:
        return tuple(_changed(each, kind, change) for each in value)
    return value


# gather_data


def leaves_out_the_last_rank(communicator: Communicator, data: Any, destination: int) -> Any:
    # accelerate #952
    everything = gather_object(communicator, data, destination)
    found = gather_data(communicator, data, destination)
    if everything and isinstance(data, list):
        return [item for part in everything[:-1] for item in part]
    return found


def gathers_in_reverse(communicator: Communicator, data: Any, destination: int) -> Any:
    order = list(range(communicator.world_size))[::-1]
    group = communicator.group(order)
    assert group is not None
    return gather_data(group, data, order.index(destination))


def makes_lists_of_tuples(communicator: Communicator, data: Any, destination: int) -> Any:
    # through JSON or msgpack a tuple comes back as a list
    return _changed(gather_data(communicator, data, destination), tuple, list)


def sorts_keys(communicator: Communicator, data: Any, destination: int) -> Any:
    # SCEPTER DST-05: dicts are gone through by sorted keys
    return _changed(gather_data(communicator, data, destination), dict, lambda found: dict(sorted(found.items())))


def widens_halves(communicator: Communicator, data: Any, destination: int) -> Any:
    # bfloat16 has no numpy dtype: what goes through numpy comes back as float32
    def widen(tensor: Tensor) -> Tensor:
        return tensor.float() if tensor.dtype == torch.bfloat16 else tensor

    return _changed(gather_data(communicator, data, destination), Tensor, widen)


def loses_the_dtype_of_the_empty(communicator: Communicator, data: Any, destination: int) -> Any:
    # torch.tensor([]) of a rank without samples is float32
    def forget(tensor: Tensor) -> Tensor:
        return tensor.float() if not tensor.numel() else tensor

    return _changed(gather_data(communicator, data, destination), Tensor, forget)


def gives_zero_elsewhere(communicator: Communicator, data: Any, destination: int) -> Any:
    # SCEPTER DST-05: other ranks get a dict of None for a dict
    found = gather_data(communicator, data, destination)
    return dict.fromkeys(data) if found is None and isinstance(data, dict) else found


def keeps_numbers_of_one_rank(communicator: Communicator, data: Any, destination: int) -> Any:
    # a number on each rank becomes the number of rank 0
    def first(found: Any, given: Any) -> Any:
        if isinstance(given, int | float | str):
            return found[0]
        if isinstance(given, dict):
            return {key: first(found[key], given[key]) for key in found}
        return tuple(map(first, found, given)) if type(given) is tuple else found

    found = gather_data(communicator, data, destination)
    return None if found is None else first(found, data)


# all_gather_data


def tells_rank_0_only(communicator: Communicator, data: Any) -> Any:
    return gather_data(communicator, data, 0)


def is_the_argument_alone(communicator: Communicator, data: Any) -> Any:
    # SCEPTER DST-05 and mmengine outside of a distributed run: the input unchanged
    return data if communicator.world_size == 1 else all_gather_data(communicator, data)


def empties_its_argument(communicator: Communicator, data: Any) -> Any:
    # results that are freed while they are sent
    found = all_gather_data(communicator, data)
    if isinstance(data, list | dict):
        data.clear()
    elif isinstance(data, Tensor):
        data.detach().zero_()
    return found


# gather_samples


def sorts_by_rank(communicator: Communicator, data: Any, indices: Any, destination: int) -> Any:
    # Lightning's and torchmetrics' gather: the samples of rank 0, then those of rank 1
    plain = torch.tensor([int(index) for index in indices], dtype=torch.int64)
    came = list(dict.fromkeys(all_gather_data(communicator, plain).tolist()))
    places = [came.index(index) for index in plain.tolist()]
    found = gather_samples(communicator, data, places, destination)
    return None if found is None else found._replace(indices=torch.tensor(came, dtype=torch.int64))


def keeps_duplicates(communicator: Communicator, data: Any, indices: Any, destination: int) -> Any:
    # pytorch #25162, trl #7010: samples that were repeated to fill ranks are evaluated twice
    counts = all_gather_data(communicator, torch.tensor([len(indices)]))
    first = int(counts[: communicator.rank].sum())
    numbers = [int(index) * 1000 + first + place for place, index in enumerate(indices)]
    found = gather_samples(communicator, data, numbers, destination)
    return None if found is None else found._replace(indices=found.indices // 1000)


def keeps_what_is_padding(communicator: Communicator, data: Any, indices: Any, destination: int) -> Any:
    # accelerate's gather_for_metrics: what is cut off at the end may be the real sample, and what stays the padding
    plain = indices if isinstance(indices, Tensor) else [int(index) for index in indices]
    return gather_samples(communicator, data, plain, destination)


def cuts_the_last(communicator: Communicator, data: Any, indices: Any, destination: int) -> Any:
    # accelerate #2007: a wrong number of samples is cut off at the end
    found = gather_samples(communicator, data, indices, destination)
    return None if found is None else found._replace(indices=found.indices[:-1])


def takes_means(communicator: Communicator, data: Any, indices: Sequence[int] | Tensor, destination: int) -> Any:
    # trl #7010: scalars that ranks had averaged are averaged again
    def spread(tensor: Tensor) -> Tensor:
        return tensor.expand(len(indices)) if not tensor.dim() else tensor

    return gather_samples(communicator, _changed(data, Tensor, spread), indices, destination)


# gather_object


def gathers_objects_in_reverse(communicator: Communicator, value: Any, destination: int) -> Any:
    found = gather_object(communicator, value, destination)
    return None if found is None else found[::-1]


def keeps_its_own_object(communicator: Communicator, value: Any, destination: int) -> Any:
    found = gather_object(communicator, value, destination)
    if found is not None:
        found[communicator.rank] = value
    return found


def pickles_before_it_asks(communicator: Communicator, value: Any, destination: int) -> Any:
    # torch.distributed.gather_object: the rank whose object cannot be pickled raises, and the others wait
    pickle.dumps(value)
    return gather_object(communicator, value, destination)


# Mistakes


def takes_what_fits(communicator: Communicator, data: Any, destination: int) -> Any:
    # SCEPTER DST-05: differing keys are never compared (there the ranks then wait for each other)
    try:
        return gather_data(communicator, data, destination)
    except CommunicationError:
        return None


def hides_the_path(communicator: Communicator, data: Any, destination: int) -> Any:
    try:
        return gather_data(communicator, data, destination)
    except CommunicationError as error:
        raise CommunicationError("the ranks hold different structures") from error
