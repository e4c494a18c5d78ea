"""A `BaseModel` on many ranks: its own train_step, and gradients that are averaged over the ranks."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from treenail.adapters.models.model import BaseModel, TakesLoss, around
from treenail.kernel import TrainingError


class _TrainedThrough(DistributedDataParallel):
    """DistributedDataParallel around a `BaseModel`, whose steps are the model's."""

    module: BaseModel
    was_called: bool

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:  # Any: those of the model
        self.was_called = True
        return super().forward(*inputs, **kwargs)  # type: ignore[no-untyped-call]  # torch leaves it unannotated

    def train_step(self, data: Any, optim_wrapper: TakesLoss) -> dict[str, Tensor]:  # Any: as the model says
        self.was_called = False
        token = around.set(self)
        try:
            logs = self.module.train_step(data, optim_wrapper)
        finally:
            around.reset(token)
        if not self.was_called:
            raise TrainingError(
                f"train_step of {type(self.module).__name__} never called the model itself, so that no gradient came from "
                "other ranks",
                mend="call self(…, mode=…) in it, or use parallel: {type: separate_data_parallel}",
            )
        return logs


def trained_through(called: nn.Module) -> nn.Module:
    """Let a model that torch's DistributedDataParallel wraps be trained by its own ``train_step``.

    Where the step calls the model, the call goes through the wrapper, which averages the gradients; a ``train_step`` that a
    subclass overrides works as it does without ranks, as long as it calls the model itself and not only parts of it.

    Args:
        called: What is called in training. Anything but a wrapped `BaseModel` comes back as it is.
    """
    if isinstance(called, DistributedDataParallel) and isinstance(called.module, BaseModel):
        called.__class__ = _TrainedThrough  # as `torch.distributed.fsdp.fully_shard` does it
    return called
