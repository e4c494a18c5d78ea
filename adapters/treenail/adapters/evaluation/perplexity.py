"""The perplexity of a language model."""

from __future__ import annotations

import torch
from torch import Tensor

from treenail.adapters.evaluation.labels import labels, refuse_empty, refuse_strays
from treenail.adapters.evaluation.widening import wide
from treenail.kernel import TrainingError

_CHUNK = 2**24  # scores that are widened at a time: 64 MB, and as much for their exponentials


class Perplexity:
    """exp of the mean negative log-likelihood over all tokens that count, and that mean, ``nll``, in nats per token.

    Tokens weigh alike, however they were split into batches (Jelinek et al. 1977).

    Args:
        ignore_index: Target of tokens that do not count.
    """

    def __init__(self, ignore_index: int = -100) -> None:
        self.ignore_index = ignore_index
        self.reset()

    @property
    def result_names(self) -> tuple[str, ...]:
        """The names of the results."""
        return "perplexity", "nll"

    def reset(self) -> None:
        """Forget everything seen."""
        self._total = torch.zeros((), dtype=torch.float64)
        self._counts = torch.zeros(2, dtype=torch.int64)  # tokens, strays
        self._classes = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take scores float[batch, …, classes] (logits), and the tokens int64[batch, …] that come next.

        Raises:
            TrainingError: Shapes or dtypes do not fit.
        """
        if not outputs.is_floating_point():
            raise TrainingError(
                f"perplexity of outputs {outputs.dtype}", mend="it takes scores, floating point numbers"
            )
        scores, tokens, counts, classes = labels("perplexity", outputs, targets, self.ignore_index)
        wanted, kept = tokens.clamp(max=classes - 1), counts.bool()
        total = self._total.to(scores.device) if scores.device.type != "mps" else self._total
        step = max(1, _CHUNK // classes)
        for begin in range(0, len(tokens), step):
            rows = slice(begin, begin + step)
            # 16 bits are too few for one token. In float32 torch's cross entropy is off in the fifth digit over a million
            # classes (2.13 on a CPU); a sum of its own, which torch adds in pairs, is not.
            chunk = scores[rows].to(torch.promote_types(scores.dtype, torch.float32))
            chunk = chunk - chunk.amax(dim=1, keepdim=True)
            losses = chunk.exp().sum(dim=1).log() - chunk.gather(1, wanted[rows].unsqueeze(1)).squeeze(1)
            total = total + wide(losses.masked_fill(~kept[rows], 0.0)).sum()
        self._total = total
        strays = (kept & (tokens == classes)).sum()
        self._counts = self._counts.to(scores.device) + torch.stack([counts.sum(), strays])
        self._classes = classes

    def compute(self) -> dict[str, float]:
        """Return ``perplexity`` and ``nll`` of everything seen since `reset`; a perplexity beyond float64 is inf.

        Raises:
            TrainingError: No token was counted, or one is no class.
        """
        count, strays = self._counts.tolist()
        refuse_strays("perplexity", strays, self._classes)
        refuse_empty("perplexity", count)
        mean = self._total / count
        return {"perplexity": float(mean.exp()), "nll": float(mean)}
