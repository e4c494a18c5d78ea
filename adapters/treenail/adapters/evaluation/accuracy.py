"""Classification accuracy."""

from __future__ import annotations

from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from treenail.adapters.evaluation.labels import labels, refuse_empty, refuse_strays
from treenail.kernel import TrainingError


class Accuracy:
    """Share of samples whose target is among the `top_k` classes with the highest scores.

    The result's name is ``accuracy``, or ``accuracy_top5`` for top_k=5. Of equal scores that of the lower class comes first;
    scores with a NaN hit nothing.

    Args:
        top_k: How many classes count; several numbers are measured at once.
        ignore_index: Target of what does not count.

    Raises:
        ValueError: A number is less than 1, or given twice, or there is none.
    """

    def __init__(
        self,
        top_k: Annotated[int, Meta(ge=1)] | tuple[Annotated[int, Meta(ge=1)], ...] = 1,
        ignore_index: int | None = None,
    ) -> None:
        numbers = (top_k,) if isinstance(top_k, int) else tuple(top_k)
        if not numbers or min(numbers) < 1 or len(set(numbers)) < len(numbers):
            raise ValueError(f"top_k is {top_k}, must be at least 1, and several numbers must differ")
        self.top_k = top_k
        self.ignore_index = ignore_index
        self._numbers = numbers
        self.reset()

    @property
    def result_names(self) -> tuple[str, ...]:
        """The names of the results."""
        return tuple("accuracy" if k == 1 else f"accuracy_top{k}" for k in self._numbers)

    def reset(self) -> None:
        """Forget everything seen."""
        self._counts = torch.zeros(len(self._numbers) + 2, dtype=torch.int64)  # hits of each k, samples, strays
        self._classes = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take scores float[batch, …, classes] and targets int64[batch, …].

        Raises:
            TrainingError: The shapes do not fit.
        """
        if not outputs.is_floating_point() or not outputs.ndim or outputs.shape[-1] < max(self._numbers):
            raise TrainingError(
                f"accuracy of outputs {list(outputs.shape)} and targets {list(targets.shape)}",
                mend=f"it takes scores [batch, …, classes >= {max(self._numbers)}] and class numbers [batch, …]",
            )
        scores, right, counts, classes = labels("accuracy", outputs, targets, self.ignore_index)
        right = right.unsqueeze(1)
        own = scores.gather(1, right.clamp(max=classes - 1))
        numbers = torch.arange(classes, device=scores.device)
        # Not torch.topk: which of equal scores it takes is not said, and may depend on how the data were split.
        ahead = ((scores > own) | ((scores == own) & (numbers < right))).sum(dim=1)
        ahead = torch.where(scores.amax(dim=1).isnan(), classes, ahead)
        kept = counts.bool()
        hits = [(kept & (ahead < k)).sum() for k in self._numbers]
        strays = (kept & (right.squeeze(1) == classes)).sum()
        self._counts = self._counts.to(scores.device) + torch.stack([*hits, counts.sum(), strays])
        self._classes = classes

    def compute(self) -> dict[str, float]:
        """Return the shares of hits since `reset`.

        Raises:
            TrainingError: Nothing was seen, or a target is no class.
        """
        *hits, count, strays = self._counts.tolist()
        refuse_strays("accuracy", strays, self._classes)
        refuse_empty("accuracy", count)
        return {name: hit / count for name, hit in zip(self.result_names, hits, strict=True)}
