"""Losses that say what they were summed over, and what a loss must be."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from torch import Tensor
from torch.nn import functional

from treenail.adapters.optim.batches import describe
from treenail.contracts import LossSum
from treenail.kernel import TrainingError


def check_loss(loss: object) -> None:
    """Check that a loss is one real number, or a sum of such with what it was summed over.

    Args:
        loss: What it should be: float[], or a `LossSum`. The sign of a weight on a GPU is not looked at, which would wait.

    Raises:
        TrainingError: It is something else.
    """
    total, weight = loss if isinstance(loss, LossSum) else (loss, 1.0)
    if not isinstance(total, Tensor):
        raise TrainingError(f"the loss is a {describe(total)}", mend="let it be a 0-dim tensor, or a LossSum")
    if total.ndim or total.is_complex():
        raise TrainingError(
            f"the loss is a tensor of shape {list(total.shape)} and dtype={total.dtype}",
            mend="a loss must be one real number",
        )
    if isinstance(weight, Tensor) and (weight.ndim or weight.is_complex()):
        found = f"a tensor of shape {list(weight.shape)} and dtype={weight.dtype}"
    elif not hasattr(weight, "__float__"):
        found = f"a {describe(weight)}"
    elif (not isinstance(weight, Tensor) or weight.is_cpu) and float(weight) < 0:
        found = str(float(weight))
    else:
        return
    raise TrainingError(
        f"the weight of the loss is {found}",
        mend="let it be how much the loss was summed over: samples, tokens …, at least 0",
    )


class TokenCrossEntropy:
    """Cross entropy summed over all tokens that count, with their number.

    The mean of `torch.nn.functional.cross_entropy` is over the tokens of one micro-batch of one rank, so that tokens of
    short sequences would weigh more; here all tokens of an update weigh alike.

    Args:
        ignore_index: Target of tokens that do not count.
        label_smoothing: Share of the target that is spread over all classes.
    """

    def __init__(self, ignore_index: int = -100, label_smoothing: Annotated[float, Meta(ge=0, le=1)] = 0.0) -> None:
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def __call__(self, outputs: Tensor, targets: Tensor) -> LossSum:
        """Sum the loss.

        Args:
            outputs: float[batch, …, classes]: scores, the classes last.
            targets: int64[batch, …]: numbers of classes.
        """
        total = functional.cross_entropy(
            outputs.flatten(end_dim=-2),
            targets.flatten(),
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return LossSum(total, (targets != self.ignore_index).sum())
