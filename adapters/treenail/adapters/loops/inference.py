"""What evaluation and prediction have in common: a model computes without gradients, and the training stays as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from treenail.adapters.seeding import seed_process, shielded_rng
from treenail.contracts import HasTestStep, HasValStep
from treenail.contracts.averaging import Averager
from treenail.kernel import Communicator, Engine

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]


def model_of(engine: Engine, model: nn.Module, second: nn.Module | None = None) -> nn.Module:
    """Return what is evaluated: a view of the averages where the engine holds some, else the model.

    Args:
        engine: May hold averages.
        model: The model.
        second: A second module, built as the model, that takes averages of a model that cannot be copied.
    """
    averages = engine.parts.get("averages")
    return averages.view(second) if isinstance(averages, Averager) else model


def own_step(model: nn.Module, mode: Literal["val", "test"]) -> Callable[[object], object] | None:
    """Return the step that a model has for a validation or test, if it has one."""
    if mode == "val":
        return model.val_step if isinstance(model, HasValStep) else None
    return model.test_step if isinstance(model, HasTestStep) else None


def autocast(precision: Precision, device: torch.device | None) -> AbstractContextManager[object]:
    """Return automatic mixed precision for a device (the CPU for None), in float32 nothing; it may be entered often.

    Raises:
        ValueError: There is no such precision, or none on this kind of device.
    """
    kind = "cpu" if device is None else device.type
    if precision not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"precision is {precision!r}, must be float32, bfloat16 or float16")
    if precision == "float32":
        return nullcontext()
    if not torch.amp.is_autocast_available(kind):
        raise ValueError(f"torch has no automatic mixed precision on {kind}; use precision float32")
    return torch.autocast(kind, getattr(torch, precision))


@contextmanager
def inference(model: nn.Module, loss: object, seed: int, ranks: Communicator | None) -> Iterator[None]:
    """While inside, modules are in eval mode, random numbers follow from the seed, and no gradients are kept.

    Afterwards each module has its own mode again, and the generators are where they were.

    Args:
        model: The model; on many ranks it has the buffers of rank 0 meanwhile.
        loss: A loss that may be a module.
        seed: Seed of anything random.
        ranks: The ranks; None: only this process.
    """
    used = [part for part in (model, loss) if isinstance(part, nn.Module)]
    modes = {module: module.training for part in used for module in part.modules()}
    for part in used:
        part.eval()
    try:
        with shielded_rng(devices=True), torch.no_grad(), _buffers_of_rank_0(model, ranks):
            seed_process(seed)
            yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _buffers_of_rank_0(model: nn.Module, ranks: Communicator | None) -> Iterator[None]:
    """Let every rank have the buffers of rank 0 meanwhile, whose checkpoint has them; its own are of its samples only."""
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for buffer in model.buffers() if ranks is not None else ():
        groups.setdefault((buffer.dtype, buffer.device), []).append(buffer)
    own = [(group, _packed(group)) for group in groups.values()]
    try:
        for group, before in own:
            if ranks is not None:  # one message for all buffers of a dtype
                _unpack(ranks.broadcast(before), group)
        yield
    finally:
        for group, before in own:
            _unpack(before, group)


def _packed(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _unpack(packed: Tensor, tensors: Sequence[Tensor]) -> None:
    for tensor, values in zip(tensors, packed.split_with_sizes([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(values.view(tensor.shape))
