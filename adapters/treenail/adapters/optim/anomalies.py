"""Finds parameters that a loss does not depend on."""

from __future__ import annotations

from torch import Tensor, nn
from torch.autograd.graph import Node


def parameters_outside(loss: Tensor, module: nn.Module) -> list[str]:
    """Return the names of trainable parameters that a loss does not depend on: they get no gradient, and DDP would wait for one.

    The autograd graph is walked from the loss, so call it before the backward pass. Reentrant checkpointing
    (``use_reentrant=True``) hides what lies behind it from this walk.

    Args:
        loss: float[], with its graph.
        module: Whose parameters are looked at. A tied parameter counts once, under its first name.

    Raises:
        ValueError: The module is sharded by FSDP2, whose graph has other tensors than its parameters.
    """
    if any(hasattr(part, "set_requires_gradient_sync") for part in module.modules()):
        raise ValueError(
            "the graph of a module that FSDP2 has sharded does not lead to its parameters; look without FSDP2"
        )
    inside = {id(loss)}  # of a loss that is a parameter itself
    waiting: list[Node | None] = [loss.grad_fn]
    seen: set[Node] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        inside.add(id(getattr(node, "variable", None)))  # what a leaf's node adds gradients to
        waiting.extend(following for following, _ in node.next_functions)
    return [
        name for name, parameter in module.named_parameters() if parameter.requires_grad and id(parameter) not in inside
    ]
