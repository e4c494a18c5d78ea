"""What is the same for every way of parallelising: the module below, and backward passes without communication."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, cast

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

_accumulating: ContextVar[frozenset[int]] = ContextVar("_accumulating", default=frozenset())


def bare(module: nn.Module) -> nn.Module:
    """Return the module below its wrappers, whose state has the names of the model as it was before.

    Below DistributedDataParallel, DataParallel and torch.compile, at any depth. Where a wrapper lies inside the module
    (`separate_data_parallel`), the modules around it are copied without their tensors: parameters, buffers and all
    modules below are the same objects. FSDP2 and tensor parallelism wrap nothing: their module is bare, with DTensors
    for parameters.
    """
    return _bare(module, {})


def _bare(module: nn.Module, seen: dict[nn.Module, nn.Module]) -> nn.Module:
    if module in seen:
        return seen[module]
    inner = module
    while (below := _below(inner)) is not None:
        inner = below
    children = {name: child for name, child in inner._modules.items() if child is not None}
    bared = {name: _bare(child, seen) for name, child in children.items()}
    if any(bared[name] is not child for name, child in children.items()):
        inner = copy.copy(inner)
        inner._modules = {**inner._modules, **bared}
    seen[module] = inner
    return inner


def _below(module: nn.Module) -> nn.Module | None:
    if isinstance(module, DistributedDataParallel | DataParallel):
        return cast("nn.Module", module.module)
    return module._modules.get("_orig_mod")  # torch.compile's


@contextmanager
def without_gradient_sync(module: nn.Module) -> Iterator[bool]:
    """Let backward passes add up gradients on each rank, without communication.

    For all micro-batches of an update but the last, whose backward pass then averages the sum. Forward passes belong
    inside, too. It reaches wrapped modules at any depth, may be nested, and does nothing where nothing is wrapped.

    Args:
        module: As it is called in training.

    Yields:
        Whether anything would have been communicated.
    """
    sharded: list[FSDPModule] = []
    wrapped = False
    with ExitStack() as stack:
        for part in module.modules():
            if isinstance(part, DistributedDataParallel):
                stack.enter_context(part.no_sync())
                wrapped = True
            # Named by what it can do: to import its class would take a second of every run that has none.
            elif hasattr(part, "set_requires_gradient_sync") and id(part) not in _accumulating.get():
                sharded.append(cast("FSDPModule", part))
        token = _accumulating.set(_accumulating.get() | {id(unit) for unit in sharded})
        try:
            for unit in sharded:
                unit.set_requires_gradient_sync(False, recurse=False)
            yield bool(wrapped or sharded)
        finally:
            _accumulating.reset(token)
            for unit in sharded:
                unit.set_requires_gradient_sync(True, recurse=False)
