"""The picture of the documentation: what the index at a position tells about others, beside torch.randperm."""

# matplotlib is not installed where the types are checked.
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call,unused-ignore"

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from treenail.adapters.sampling import Permutation, permutation
from treenail.kernel import mix

SIZE = 8192
ORDERS = 500
LAGS = 200
BINS = 32
NOISE = 4  # standard deviations: what hardly one of 10,000 figures exceeds by chance

_SHADE = "#8a8a8a"


def draw(path: Path) -> None:
    """Write the picture as SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    stride = 1 << permutation._split(SIZE)
    series = [
        ("treenail", _orders(_computed)),
        ("torch.randperm", _orders(_torch)),
        ("contrast: 2 of the 4 rounds", _orders(_two_rounds)),
    ]
    # Ids that are not random and no date: the same figures give the same file. Text stays text.
    with mpl.rc_context({"svg.hashsalt": "treenail", "svg.fonttype": "none", "font.size": 9, "axes.linewidth": 0.6}):
        figure = Figure(figsize=(9.2, 7.6), layout="constrained", facecolor="white")
        axes = figure.subplots(3, 3, sharey="row", gridspec_kw={"height_ratios": [3, 3, 2]})
        for column, (name, orders) in enumerate(series):
            for row, lag in enumerate((1, stride)):
                grid = axes[row][column]
                shown = grid.imshow(
                    _pairs(orders, lag).tolist(),
                    cmap="RdBu_r",
                    vmin=-8,
                    vmax=8,
                    extent=(0, SIZE, 0, SIZE),
                    origin="lower",
                )
                grid.set_xlabel("index at position i")
                grid.set_xticks([0, SIZE // 2, SIZE])
                grid.set_yticks([0, SIZE // 2, SIZE])
                if column == 0:
                    grid.set_ylabel(f"index at position i + {lag}")
            axes[0][column].set_title(name)
            curve = axes[2][column]
            curve.axhspan(-NOISE, NOISE, color=_SHADE, alpha=0.25, linewidth=0)
            curve.plot(range(1, LAGS + 1), _correlations(orders), linewidth=0.7, color="#2f4858")
            curve.set_xlabel("positions apart")
            curve.set_ylim(-10, 40)
        axes[2][0].set_ylabel("correlation, in\nstandard deviations")
        bar = figure.colorbar(shown, ax=axes[:2, :], shrink=0.5, pad=0.01)
        bar.set_label("more pairs or fewer than expected, in standard deviations")
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    text = path.read_text(encoding="utf-8")  # matplotlib ends lines with blanks
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")


def _orders(make: Callable[[int], Tensor]) -> Tensor:
    return torch.stack([make(number) for number in range(ORDERS)])


def _computed(number: int) -> Tensor:
    return Permutation(SIZE, mix(number))(torch.arange(SIZE))


def _two_rounds(number: int) -> Tensor:
    with patch.object(permutation, "_ROUNDS", 2):
        return _computed(number)


def _torch(number: int) -> Tensor:
    return torch.randperm(SIZE, generator=torch.Generator().manual_seed(number))


def _pairs(orders: Tensor, lag: int) -> Tensor:
    """Return how many pairs `lag` apart fall into each cell, as deviations; float64[BINS (second), BINS (first)]."""
    binned = orders * BINS // SIZE
    cells = binned.roll(-lag, dims=1) * BINS + binned
    counts = torch.bincount(cells.flatten(), minlength=BINS**2).double().view(BINS, BINS)
    width = SIZE / BINS
    expected = orders.numel() * width * (width - torch.eye(BINS)) / (SIZE * (SIZE - 1))
    return (counts - expected) / expected.sqrt()


def _correlations(orders: Tensor) -> list[float]:
    """Return the correlation of indices that are 1 … LAGS positions apart, as deviations."""
    centred = (orders - (SIZE - 1) / 2).double()
    spread = centred.square().sum()
    return [
        float((centred * centred.roll(-lag, dims=1)).sum() / spread) * orders.numel() ** 0.5
        for lag in range(1, LAGS + 1)
    ]
