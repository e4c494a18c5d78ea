"""A small package of a user's own components, which the corpus' configs take from `imports: [tides]`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from treenail.kernel import Engine, Hook


class Series:
    """Windows of a synthetic tide gauge. A sample is (float32[window, channels], float32[horizon]).

    Args:
        split: Each split is another stretch of the same series.
        length: Samples of the split.
        channels: Gauges.
        window: Hours that the model sees.
        horizon: Hours that it tells.
        noise: Standard deviation of the measuring errors.
    """

    def __init__(
        self,
        split: Literal["train", "val", "test"],
        length: int = 64,
        channels: int = 4,
        window: int = 16,
        horizon: int = 1,
        noise: float = 0.05,
    ) -> None:
        start = {"train": 0, "val": 10_000, "test": 20_000}[split]
        hours = torch.arange(start, start + length + window + horizon, dtype=torch.float32)
        periods = torch.linspace(12.42, 25.8, channels)
        generator = torch.Generator().manual_seed(start)
        levels = torch.sin(hours[:, None] * 2 * math.pi / periods)
        self._levels = levels + noise * torch.randn(levels.shape, generator=generator)
        self._length, self._window, self._horizon = length, window, horizon

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        stop = index + self._window
        return self._levels[index:stop], self._levels[stop : stop + self._horizon, 0]


@dataclass
class Scaling:
    """How inputs are scaled."""

    kind: Literal["standard", "range", "none"] = "standard"
    clip: tuple[float, float] | None = None
    gain: float = 1.0


class Head(nn.Module):
    """A small network from features to a forecast."""

    def __init__(
        self,
        features: int,
        hidden: Sequence[int] = (),
        outputs: int = 1,
        dropout: float | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        widths = [features, *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after, bias=bias), nn.GELU()]
            layers += [nn.Dropout(dropout)] if dropout is not None else []
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], outputs, bias=bias))

    def forward(self, features: Tensor) -> Tensor:
        """Return float[batch, outputs]."""
        found: Tensor = self.layers(features)
        return found


class Convolutions(nn.Module):
    """A stack of convolutions over time, and the mean over it."""

    def __init__(
        self,
        channels: int,
        width: int,
        kernels: tuple[int, int, int] = (5, 3, 3),
        padding: Literal["same", "valid"] = "same",
        activation: nn.Module | None = None,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.causal = causal
        widths = [channels, width, width]
        self.layers = nn.Sequential()
        for before, kernel in zip(widths, kernels, strict=True):
            self.layers.append(nn.Conv1d(before, width, kernel, padding=padding))
            self.layers.append(activation or nn.ReLU())

    def forward(self, windows: Tensor) -> Tensor:
        """Return float[batch, width] for float[batch, window, channels]."""
        found: Tensor = self.layers(windows.transpose(1, 2))
        return found[..., -1] if self.causal else found.mean(dim=2)


class Forecaster(nn.Module):
    """A trunk and a head."""

    def __init__(
        self, trunk: nn.Module, head: Head, scaling: Scaling | None = None, weights: str | None = None
    ) -> None:
        super().__init__()
        self.trunk, self.head, self.scaling, self.weights = trunk, head, scaling or Scaling(), weights

    def forward(self, windows: Tensor) -> Tensor:
        """Return float[batch, horizon]."""
        found: Tensor = self.head(self.trunk(windows * self.scaling.gain))
        return found


class Ensemble(nn.Module):
    """The weighted mean of several named heads on one trunk."""

    def __init__(
        self,
        trunk: nn.Module,
        heads: Mapping[str, Head],
        shares: Mapping[str, float] | None = None,
        auxiliary: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.trunk, self.heads, self.auxiliary = trunk, nn.ModuleDict(dict(heads)), nn.ModuleList(auxiliary)
        self.shares = dict(shares or {})

    def forward(self, windows: Tensor) -> Tensor:
        """Return float[batch, horizon]."""
        features = self.trunk(windows)
        for layer in self.auxiliary:
            features = layer(features)
        forecasts = [self.shares.get(name, 1.0) * head(features) for name, head in self.heads.items()]
        return torch.stack(forecasts).mean(dim=0)


class QuantileLoss(nn.Module):
    """The pinball loss of one quantile."""

    def __init__(self, level: float = 0.5, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        self.level, self.reduction = level, reduction

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, 0-dim."""
        error = targets - outputs
        loss = torch.maximum(self.level * error, (self.level - 1) * error)
        return loss.mean() if self.reduction == "mean" else loss.sum()


class AbsoluteError:
    """Mean absolute error."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.reset()

    def reset(self) -> None:
        """Forget everything seen."""
        self._sum, self._seen = 0.0, 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take forecasts and truths of the same shape."""
        self._sum += float((outputs - targets).abs().mean(dim=1).sum())
        self._seen += len(targets)

    def compute(self) -> dict[str, float]:
        """Return the mean since `reset`."""
        return {"mae": self.scale * self._sum / max(self._seen, 1)}


class EarlyStop(Hook):
    """Stops a training that no longer improves."""

    def __init__(self, metric: str, patience: int = 5, mode: Literal["max", "min"] = "min") -> None:
        self.metric, self.patience, self.mode = metric, patience, mode
        self._best, self._waited = math.inf, 0

    def after_val_epoch(self, engine: Engine, metrics: dict[str, float]) -> None:
        """Count validations without a new best."""
        value = metrics[self.metric] if self.mode == "min" else -metrics[self.metric]
        self._best, self._waited = (value, 0) if value < self._best else (self._best, self._waited + 1)
        if self._waited >= self.patience:
            engine.request_stop(f"no better {self.metric} for {self.patience} validations")
