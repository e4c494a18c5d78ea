"""Statistics of batch normalisation for weights that never were trained with."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from treenail.adapters.optim import moved
from treenail.contracts import HasTestStep, TrainsItself
from treenail.kernel import TrainingError


def layers_with_statistics(model: nn.Module) -> list[_BatchNorm]:
    """Return a model's layers of batch normalisation that keep running statistics."""
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.running_mean is not None]


@torch.no_grad()
def update_bn(batches: Iterable[object], model: nn.Module, device: torch.device | str | None = None) -> None:
    """Compute the running statistics of a model's batch normalisation anew, as means over batches.

    Averages of weights need that where nothing else keeps their statistics (`buffers` is ``ignore``). Only layers of
    batch normalisation are in train mode meanwhile, all others (dropout) in eval mode: the statistics are those of
    evaluation, where `torch.optim.swa_utils.update_bn` measures with dropout. All modules get their own modes back, and layers
    their momenta; after an exception the statistics, too, are as they were.

    A model with a ``train_step`` and a ``test_step`` of its own, which alone knows what is done with a batch first, is given
    batches of any form by its ``test_step``.

    Args:
        batches: Tensors [batch, …], or tuples or lists whose first item is one.
        model: A model, or a view of averages; changed in place.
        device: Where the model is, if the batches are elsewhere.

    Raises:
        TrainingError: There is no batch, or one is something else.
    """
    layers = layers_with_statistics(model)
    if not layers:
        return
    modes = {module: module.training for module in model.modules()}
    momenta = [layer.momentum for layer in layers]
    statistics = [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers()]
    try:
        model.eval()
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a mean of all batches
            layer.train()
        _run(batches, model, device)
    except BaseException:
        for buffer, before in statistics:
            buffer.copy_(before)
        raise
    finally:
        for module, training in modes.items():
            module.training = training
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def _run(batches: Iterable[object], model: nn.Module, device: torch.device | str | None) -> None:
    done, step = False, model.test_step if isinstance(model, TrainsItself) and isinstance(model, HasTestStep) else None
    for batch in batches:
        if step is not None:
            step(batch if device is None else moved(batch, torch.device(device)))
        else:
            model(_inputs(batch, device))
        done = True
    if not done:
        raise TrainingError("there is no batch to compute statistics of", mend="is the dataset empty?")


def _inputs(batch: object, device: torch.device | str | None) -> Tensor:
    first = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not isinstance(first, Tensor):
        raise TrainingError(
            f"a batch is a {type(batch).__name__} that begins with no tensor",
            mend="give tensors, or tuples or lists whose first item is one",
        )
    return first if device is None else first.to(device)
