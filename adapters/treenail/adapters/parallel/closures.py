"""Which optimizers evaluate the loss again."""

from __future__ import annotations

import inspect

from torch.optim import Optimizer


def needs_closure(optimizer: Optimizer) -> bool:
    """Tell whether an optimizer evaluates the loss several times in a step, as LBFGS does.

    Args:
        optimizer: Any of torch's.
    """
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty
