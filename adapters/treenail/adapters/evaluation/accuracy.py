"""Classification accuracy."""

from __future__ import annotations

from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from treenail.kernel import TrainingError


class Accuracy:
    """Share of samples whose target is among the `top_k` classes with the highest scores.

    The result's name is ``accuracy``, or ``accuracy_top5`` for top_k=5.

    Args:
        top_k: How many classes count.
    """

    def __init__(self, top_k: Annotated[int, Meta(ge=1)] = 1) -> None:
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}, must be at least 1")
        self.top_k = top_k
        self.reset()

    def reset(self) -> None:
        """Forget everything seen."""
        self._hits: list[Tensor] = []
        self._seen = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take scores float[batch, classes] and targets int64[batch].

        Raises:
            TrainingError: The shapes do not fit.
        """
        if outputs.ndim != 2 or targets.shape != outputs.shape[:1] or outputs.shape[1] < self.top_k:
            raise TrainingError(
                f"accuracy of outputs {list(outputs.shape)} and targets {list(targets.shape)}",
                mend=f"it takes scores [batch, classes >= {self.top_k}] and class numbers [batch]",
            )
        best = outputs.topk(self.top_k, dim=1).indices
        self._hits.append((best == targets.unsqueeze(1)).any(dim=1).sum())
        self._seen += len(targets)

    def compute(self) -> dict[str, float]:
        """Return the share of hits since `reset`.

        Raises:
            TrainingError: Nothing was seen.
        """
        if not self._seen:
            raise TrainingError("accuracy of no samples")
        name = "accuracy" if self.top_k == 1 else f"accuracy_top{self.top_k}"
        return {name: int(torch.stack(self._hits).sum()) / self._seen}
