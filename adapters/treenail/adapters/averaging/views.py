"""Modules that have a model's structure and other tensors."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from types import FunctionType, MethodType

import torch
from torch import Tensor, nn

from treenail.adapters.averaging.passes import is_spread
from treenail.adapters.averaging.tensors import ModelTensors, sharded_units, tensors_of
from treenail.kernel import TrainingError


def copy_of(
    model: nn.Module, tensors: ModelTensors, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
) -> nn.Module:
    """Copy a model's structure: modules and attributes, with other parameters and buffers, which are not copied.

    Hooks are the same objects in both, but for methods of the model's modules, which become those of the copy's.

    Args:
        model: The model; it stays as it is.
        tensors: Those of the model.
        weights: What the copy has for its parameters, by all their names.
        buffers: What the copy has for its buffers, by all their names.

    Raises:
        TrainingError: torch or Python cannot copy something of the model, such as a function that has a part of it.
    """
    if sharded_units(model):
        raise TrainingError(
            "torch cannot copy a model that FSDP2 has sharded",
            mend="give view() a second module that was built and sharded as the model was",
        )
    if functions := list(_bound_functions(model)):
        raise TrainingError(
            f"'{functions[0]}' is a function that has modules or weights of the model, and no copy of it would have others: "
            "the averages would not be evaluated",
            mend="make it a method, or give view() a second module built as the model was",
        )
    memo: dict[int, object] = {
        id(parameter): nn.Parameter(weights[name], requires_grad=False)
        for name, parameter in tensors.parameters.items()
    }
    memo |= {id(buffer): buffers[name] for name, buffer in tensors.buffers.items()}
    memo |= {id(shared): shared for shared in _hooked(model)}
    memo |= {id(computed): computed.detach().clone() for computed in _computed(model)}
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # whatever objects a model has for attributes may raise
        raise TrainingError(
            f"{type(model).__name__} cannot be copied to evaluate its averages: {type(error).__name__}: {error}",
            mend="keep what cannot be copied outside of the model, or give view() a second module built as the model was",
        ) from error


def _hooked(model: nn.Module) -> Iterator[object]:
    """Yield what listens to a model from outside: it may be anything, and is no part of the model."""
    modules = set(model.modules())
    for module in modules:
        for hooks in (
            module._forward_pre_hooks,
            module._forward_hooks,
            module._backward_pre_hooks,
            module._backward_hooks,
        ):
            for hook in hooks.values():
                listener = getattr(hook, "__self__", hook)  # of a method
                if not isinstance(listener, nn.Module) or listener not in modules:
                    yield listener


def _bound_functions(model: nn.Module) -> Iterator[str]:
    """Yield names of attributes that are functions with a part of the model in them: Python copies no functions."""
    tensors = (*model.parameters(), *model.buffers())
    parts = {id(part) for part in (*model.modules(), *tensors)}
    inherited = vars(nn.Module()).keys()  # modules, tensors and hooks
    for path, module in model.named_modules():
        state = {} if hasattr(module, "__deepcopy__") else module.__getstate__()  # what is copied; some copy themselves
        for name, value in state.items() if isinstance(state, dict) else ():
            if name not in inherited and _is_bound(value, parts, in_function=False, seen=set()):
                yield f"{path}.{name}" if path else name


def _is_bound(value: object, parts: set[int], *, in_function: bool, seen: set[tuple[int, bool]]) -> bool:
    """Tell whether a function is, or is in, a value that has a part of the model."""
    if id(value) in parts:
        return in_function
    if (id(value), in_function) in seen:
        return False
    seen.add((id(value), in_function))
    inner: Iterable[object] = ()
    if isinstance(value, FunctionType):
        inner = (*_closure(value), *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        in_function = True
    elif isinstance(value, MethodType):
        inner = (value.__self__, value.__func__)
    elif isinstance(value, partial):
        inner = (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    return any(_is_bound(each, parts, in_function=in_function, seen=seen) for each in inner)


def _closure(function: FunctionType) -> Iterator[object]:
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # the variable has no value yet
            yield cell.cell_contents


def _computed(model: nn.Module) -> Iterator[Tensor]:
    """Yield tensors that modules remember of what they computed, with its graph; torch does not copy those."""
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                yield value


@torch.no_grad()
def fill(
    into: nn.Module, tensors: ModelTensors, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
) -> nn.Module:
    """Copy tensors into a second module, and return it.

    Args:
        into: Changed in place.
        tensors: Those of the model, which `into` must not have.
        weights: What it gets for its parameters, by all their names.
        buffers: What it gets for its buffers, by all their names.

    Raises:
        TrainingError: It has other parameters or buffers than those given, or the model's.
    """
    own = tensors_of(into)
    held: dict[str, Tensor] = {**own.parameters, **own.buffers}
    given = {**weights, **buffers}
    models = {id(tensor) for tensor in (*tensors.parameters.values(), *tensors.buffers.values())}
    if shared := [name for name, tensor in held.items() if id(tensor) in models]:
        raise TrainingError(
            f"the module for the averages has '{shared[0]}' in common with the model, whose training it would change",
            mend="build a second module",
        )
    if wrong := held.keys() ^ given.keys() or {name for name in held if not _alike(held[name], given[name])}:
        raise TrainingError(
            f"the module for the averages is not built as the model is: '{min(wrong)}' is not the same in both",
            mend="build and parallelise it as the model",
        )
    for name, tensor in given.items():
        held[name].copy_(tensor)
    return into


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and is_spread(one) == is_spread(other)
