"""Training steps that leave no trace."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from treenail.adapters.optim import OptimWrapper, OptimWrapperDict
from treenail.adapters.seeding import shielded_rng
from treenail.kernel import Stateful


@contextmanager
def left_unchanged(parts: Mapping[str, Stateful]) -> Iterator[None]:
    """Give every part of a run its state back afterwards, and the process its random generators, bit for bit.

    Of modules that is: parameters, gradients, buffers (those that no checkpoint has, too) and modes; of optimizers the states
    and the settings of the groups; of anything else what its `state_dict` says, and of an `OptimWrapper` all that it counts.
    Parameters and buffers stay the same tensors.

    Args:
        parts: By name, as an engine has them: modules, optimizers, batches, updaters …
    """
    with shielded_rng(devices=True):
        modules = {name: _Module(part) for name, part in parts.items() if isinstance(part, nn.Module)}
        optimizers = [_Optimizer(part) for part in parts.values() if isinstance(part, Optimizer)]
        others = [
            (part, copy.deepcopy(part.state_dict()))
            for part in parts.values()
            if not isinstance(part, nn.Module | Optimizer)
        ]
        # What a wrapper counts belongs to a process, not to its state.
        counters = [(each, each.steps, copy.copy(each._counts)) for part in parts.values() for each in _wrappers(part)]
        try:
            yield
        finally:
            for part, state in others:
                part.load_state_dict(state)
            for wrapper, steps, counts in counters:
                wrapper.steps, wrapper._counts = steps, counts
            for module in modules.values():
                module.restore()
            for optimizer in optimizers:
                optimizer.restore()


def _wrappers(part: Stateful) -> Iterable[OptimWrapper]:
    if isinstance(part, OptimWrapper):
        return [part]
    return part.values() if isinstance(part, OptimWrapperDict) else []


class _Module:
    def __init__(self, module: nn.Module) -> None:
        self._modes = [(each, each.training) for each in module.modules()]
        self._tensors = [(each, each.detach().clone()) for each in [*module.parameters(), *module.buffers()]]
        self._gradients = [(each, _copy(each.grad)) for each in module.parameters()]

    @torch.no_grad()
    def restore(self) -> None:
        for module, training in self._modes:
            module.training = training
        for tensor, before in self._tensors:
            tensor.copy_(before)
        for parameter, gradient in self._gradients:
            parameter.grad = gradient  # type: ignore[assignment]  # a tensor's copy is a tensor


class _Optimizer:
    # Not its state_dict: load_state_dict would convert the states of parameters in lower precision.
    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._states = {
            parameter: {name: _copy(value) for name, value in state.items()}
            for parameter, state in optimizer.state.items()
        }
        self._groups = [
            {name: _copy(value) for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]

    def restore(self) -> None:
        self._optimizer.state.clear()
        self._optimizer.state.update(self._states)
        for group, before in zip(self._optimizer.param_groups, self._groups, strict=True):
            for name in group.keys() - before.keys() - {"params"}:
                del group[name]
            for name, value in before.items():
                now = group.get(name)
                if isinstance(now, Tensor) and isinstance(value, Tensor):
                    now.copy_(value)  # compiled steps hold on to the tensor
                else:
                    group[name] = value


def _copy(value: object) -> object:
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
