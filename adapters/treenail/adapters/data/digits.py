"""The handwritten digits that scikit-learn ships: 1,797 real 8x8 images (UCI ML, E. Alpaydin and C. Kaynak, 1998)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from treenail.kernel import mix, require

_SHARES = {"train": (0.0, 0.7), "val": (0.7, 0.8), "test": (0.8, 1.0)}


class Digits:
    """One split of the handwritten digits.

    A sample is (image, digit): float32[1, 8, 8] in [0, 1], and int64[] in 0 … 9.

    Args:
        split: 70 % of the images are for training, 10 % for validation, 20 % for the test; which, is the same in every
            process and for every seed.

    Attributes:
        labels: The digit of each sample; int64[n].

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """

    def __init__(self, split: Literal["train", "val", "test"]) -> None:
        digits = require("sklearn.datasets", extra="examples", purpose="the digits dataset").load_digits()
        generator = torch.Generator().manual_seed(mix("digits"))
        order = torch.randperm(len(digits.target), generator=generator)
        start, stop = (round(share * len(order)) for share in _SHARES[split])
        chosen = order[start:stop]
        self._images = torch.from_numpy(digits.images)[chosen].to(torch.float32).div(16).unsqueeze(1)
        self.labels = torch.from_numpy(digits.target)[chosen].to(torch.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._images[index], self.labels[index]
