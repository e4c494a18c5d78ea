"""Losses that say what they were summed over."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from torch import Tensor
from torch.nn import functional

from treenail.contracts import LossSum


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
