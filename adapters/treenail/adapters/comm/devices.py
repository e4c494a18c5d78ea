"""Where data is, and where it must be to be communicated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from treenail.adapters.comm.torch_world import TorchCommunicator, backends_of
from treenail.kernel import Communicator

D = TypeVar("D")


def get_data_device(data: object) -> torch.device:
    """Return the device of the tensors in data.

    Args:
        data: A tensor, or any nesting of dicts, lists and tuples of tensors.

    Raises:
        TypeError: There is something else in it.
        ValueError: There is no tensor in it, or they are on several types of devices.
    """
    found: torch.device | None = None
    for device in _devices(data, ""):
        if found is not None and device.type != found.type:
            raise ValueError(f"the tensors are on devices of different types: {found} and {device}")
        found = found or device
    if found is None:
        raise ValueError(f"there is no tensor in this {type(data).__name__}, so that it is on no device")
    return found


def _devices(data: object, path: str) -> Iterator[torch.device]:
    if isinstance(data, Tensor):
        yield data.device
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from _devices(value, f"{path}[{key!r}]")
    elif isinstance(data, Sequence) and not isinstance(data, str | bytes):
        for place, value in enumerate(data):
            yield from _devices(value, f"{path}[{place}]")
    else:
        raise TypeError(f"data{path} is a {type(data).__name__}, must be a tensor, a dict or a list")


def cast_data_device(data: D, device: torch.device | str, out: object = None) -> D:
    """Return data with its tensors on a device.

    Args:
        data: A tensor, or any nesting of dicts, lists and tuples of tensors. What is on the device already stays as it is.
        device: Where to.
        out: Of the same structure as data; its tensors are filled with those of data, in place, and it is returned.

    Raises:
        TypeError: There is something else in data, or out is of another type.
        ValueError: Out has other keys, another length or tensors of other shapes.
    """
    _check_out(data, out, "")
    return _cast(data, torch.device(device), out)  # type: ignore[return-value]  # the same structure


def _check_out(data: object, out: object, path: str) -> None:
    if out is None:
        return
    if isinstance(data, Tensor):
        if not isinstance(out, Tensor):
            raise TypeError(f"out{path} is a {type(out).__name__}, data{path} a tensor")
        if out.shape != data.shape:
            raise ValueError(f"out{path} has the shape {list(out.shape)}, data{path} {list(data.shape)}")
        return
    if type(data) is not type(out):
        raise TypeError(f"out{path} is a {type(out).__name__}, data{path} a {type(data).__name__}")
    if isinstance(data, Mapping) and isinstance(out, Mapping):
        if data.keys() != out.keys():
            raise ValueError(f"out{path} has the keys {sorted(map(str, out))}, data{path} {sorted(map(str, data))}")
        for key in data:
            _check_out(data[key], out[key], f"{path}[{key!r}]")
    elif isinstance(data, Sequence) and isinstance(out, Sequence):
        if len(data) != len(out):
            raise ValueError(f"out{path} has {len(out)} items, data{path} {len(data)}")
        for place, (value, target) in enumerate(zip(data, out, strict=True)):
            _check_out(value, target, f"{path}[{place}]")


def _cast(data: object, device: torch.device, out: object) -> object:
    if isinstance(data, Tensor):
        moved = data if _is_on(data, device) else data.to(device)
        if isinstance(out, Tensor):
            with torch.no_grad():
                return out.copy_(moved)
        return moved
    if isinstance(data, Mapping):
        targets = out if isinstance(out, Mapping) else {}
        cast = {key: _cast(value, device, targets.get(key)) for key, value in data.items()}
        return cast if out is None else out
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        outs = list(out) if isinstance(out, Sequence) else [None] * len(data)
        items = [_cast(value, device, target) for value, target in zip(data, outs, strict=True)]
        if out is not None:
            return out
        if isinstance(data, tuple):
            return data._make(items) if hasattr(data, "_make") else tuple(items)
        return items
    raise TypeError(f"a {type(data).__name__} is on no device; data must be a tensor, a dict or a list")


def _is_on(tensor: Tensor, device: torch.device) -> bool:
    return tensor.device.type == device.type and device.index in {None, tensor.device.index}


def get_comm_device(communicator: Communicator) -> torch.device:
    """Return the device whose tensors these ranks communicate as they are.

    Args:
        communicator: The ranks.

    Returns:
        The current GPU (or other accelerator) of a process group that has a backend for such and none for the CPU; else the
        CPU.
    """
    if not isinstance(communicator, TorchCommunicator):
        return torch.device("cpu")
    kinds = list(backends_of(communicator.process_group))
    if "cpu" in kinds or not kinds:
        return torch.device("cpu")
    return torch.device(kinds[0], getattr(torch, kinds[0]).current_device())
