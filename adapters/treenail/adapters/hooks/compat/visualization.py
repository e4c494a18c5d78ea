"""Shows what a model predicts in a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Final

import torch
from msgspec import Meta
from torch import Tensor

from treenail.adapters.hooks.compat.base import Hook
from treenail.adapters.hooks.compat.runner import Runner
from treenail.kernel import TrainingError, require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LEAST: Final = 128
"""Pixels of a picture's shorter side: smaller ones are enlarged, so that they can be seen and captioned."""
_CAPTION: Final = 14
"""Pixels of a caption's height."""


class NaiveVisualizationHook(Hook):
    """Draws the samples of a test with what they are and what the model takes them for, into the run's curves.

    A picture has the input, and beside it what of truth and prediction is a picture, too: an image, a map of labels, or scores
    of each pixel, shown by their best class. Anything else is written below it; of a vector of scores, the best class. The
    pictures are called ``test/BATCH_SAMPLE``; of many ranks, rank 0 draws its own samples.

    Args:
        interval: Batches of which one is drawn.
        draw_gt: Whether to show what samples are.
        draw_pred: Whether to show what the model takes them for.

    Raises:
        ValueError: The interval is below 1.
        TrainingError: (in the test) A batch's inputs are no pictures, float[batch, 1 or 3, height, width] or a list of
            float[1 or 3, height, width].
        MissingDependencyError: (in the test) Pillow is not installed.
    """

    def __init__(self, interval: Annotated[int, Meta(ge=1)] = 1, draw_gt: bool = True, draw_pred: bool = True) -> None:
        if interval < 1:
            raise ValueError(f"interval is {interval}, must be at least 1")
        self.interval = interval
        self.draw_gt = draw_gt
        self.draw_pred = draw_pred

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Draw the batch if it is its turn."""
        if not self.every_n_inner_iters(batch_idx, self.interval) or runner.rank > 0:
            return
        inputs, targets = _pair(data_batch)
        told = [("truth", targets)] if self.draw_gt else []
        told += [("prediction", outputs)] if self.draw_pred else []
        for index, picture in enumerate(inputs):
            values = {name: value[index] for name, value in told if isinstance(value, Tensor | Sequence)}
            runner.visualizer.add_image(f"test/{batch_idx:05d}_{index:03d}", _drawn(picture, values), runner.iter)


def _pair(batch: object) -> tuple[list[Tensor], object]:
    """Return a batch's pictures, and what they are."""
    if isinstance(batch, Mapping) and "inputs" in batch:
        parts: object = [batch["inputs"], batch.get("data_samples")]
    else:
        parts = list(batch.values()) if isinstance(batch, Mapping) else batch
    inputs = parts[0] if isinstance(parts, list | tuple) and parts else parts
    pictures = (
        list(inputs) if isinstance(inputs, list | tuple) or (isinstance(inputs, Tensor) and inputs.ndim == 4) else []
    )
    if not pictures or not all(_is_picture(each) for each in pictures):
        kind = f"{inputs.dtype}{list(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise TrainingError(
            f"the inputs of a test batch are {kind}, no pictures that could be drawn",
            mend="inputs are the first part of a batch, or called so: float[batch, 1 or 3, height, width], or a list of "
            "float[1 or 3, height, width] of any sizes; or leave the hook out",
        )
    return pictures, parts[1] if isinstance(parts, list | tuple) and len(parts) > 1 else None


def _is_picture(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == 3 and value.shape[0] in (1, 3)


def _drawn(picture: Tensor, told: Mapping[str, object]) -> NDArray[np.uint8]:
    """Return a picture with what is told of it, uint8[height, width, 3]."""
    image = require("PIL.Image", extra="train", purpose="drawing predictions")
    draw = require("PIL.ImageDraw", extra="train", purpose="drawing predictions")
    numpy = require("numpy", extra="train", purpose="drawing predictions")
    panels, captions = [], []
    for name, value in [("input", picture), *told.items()]:
        panel = _picture(value) if isinstance(value, Tensor) else None
        if panel is not None and panel.shape[:2] == picture.shape[-2:]:
            panels.append(panel)
        else:
            captions.append(f"{name}: {_text(value)}")
    height, width = picture.shape[-2:]
    factor = max(1, -(-_LEAST // min(height, width)))
    row = torch.cat([each.repeat_interleave(factor, 0).repeat_interleave(factor, 1) for each in panels], 1)
    canvas = image.new("RGB", (row.shape[1], row.shape[0] + _CAPTION * len(captions)))
    canvas.paste(image.fromarray(row.numpy()))
    for line, caption in enumerate(captions):
        draw.Draw(canvas).text((2, row.shape[0] + _CAPTION * line), caption, fill="white")
    found: NDArray[np.uint8] = numpy.asarray(canvas)
    return found


def _picture(value: Tensor) -> Tensor | None:
    """Return uint8[height, width, 3] of an image, a map of labels, or scores of pixels; None of anything else."""
    value = value.detach().cpu()
    if value.ndim == 3 and value.shape[0] not in (1, 3) and value.is_floating_point():
        value = value.argmax(0)
    if value.ndim == 2:
        value = value[None]
    if value.ndim != 3 or value.shape[0] not in (1, 3):
        return None
    value = value.float()
    low, high = value.aminmax()
    if low < 0 or high > 1:  # normalised inputs, or labels
        value = (value - low) / (high - low).clamp(min=1e-12)
    return value.mul(255).round().byte().permute(1, 2, 0).expand(-1, -1, 3).contiguous()


def _text(value: object) -> str:
    if isinstance(value, Tensor) and value.ndim == 1 and len(value) > 1 and value.is_floating_point():
        return str(int(value.argmax()))  # scores of classes
    if isinstance(value, Tensor) and value.numel() == 1:
        return f"{value.item():.6g}"
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:60]} …"
