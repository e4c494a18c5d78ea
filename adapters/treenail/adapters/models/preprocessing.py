"""What happens to a batch between loader and model: it is moved, and its images become one normalised tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Self

import torch
from msgspec import Meta
from torch import Tensor, nn

from treenail.adapters.models.images import image_batch
from treenail.kernel import TrainingError

PositiveInt = Annotated[int, Meta(ge=1)]
Deviation = Annotated[float, Meta(gt=0)]


class BaseDataPreprocessor(nn.Module):
    """Moves a batch to the device where it is itself, which is the model's that it is part of.

    A subclass overrides `forward` for more: batch augmentation, resizing, mixing of samples.

    Args:
        non_blocking: Do not wait for copies from pinned memory to a GPU; what follows on that device does.
    """

    def __init__(self, non_blocking: bool | None = False) -> None:
        super().__init__()
        self.non_blocking = bool(non_blocking)
        self._device = torch.empty(0).device  # the default one, where parameters of the model are made

    @property
    def device(self) -> torch.device:
        """Where batches are moved."""
        return self._device

    def cast_data(self, data: Any) -> Any:  # Any: a batch has whatever structure a dataset gives it
        """Return nested data on the device.

        Mappings become dicts, lists and tuples stay what they are, named ones too. Tensors, and all else that has a method
        ``to``, are moved; texts, numbers, None and everything unknown are the same objects. The data itself does not change.

        Args:
            data: What a loader gives.
        """
        if callable(move := getattr(data, "to", None)) and not isinstance(data, type):
            # Not everything that has a `to` takes further arguments.
            return move(self._device, non_blocking=True) if self.non_blocking else move(self._device)
        if isinstance(data, Mapping):
            return {key: self.cast_data(value) for key, value in data.items()}
        if isinstance(data, tuple) and hasattr(data, "_make"):
            return data._make(self.cast_data(value) for value in data)
        if isinstance(data, list | tuple):
            return type(data)(self.cast_data(value) for value in data)
        return data

    def forward(self, data: Any, training: bool = False) -> Any:  # Any: as of `cast_data`
        """Return a batch as the model takes it.

        Args:
            data: What a loader gives.
            training: Whether the model is trained with it; for subclasses that augment.
        """
        return self.cast_data(data)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Every way to move a module, itself or one around it, comes here.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        self._device = fn(torch.empty(0, device=self._device)).device
        return self


class ImgDataPreprocessor(BaseDataPreprocessor):
    """Turns images to one float32 tensor: moved, channels reordered, normalised, padded at right and bottom, stacked.

    Datasets may keep images as uint8, a quarter of what is otherwise copied to a GPU.

    Args:
        mean: Of each channel, or one for all; in the order of channels after reordering. None, with `std`, leaves values.
        std: Standard deviation likewise.
        pad_size_divisor: Height and width of a batch become multiples of it.
        pad_value: What is padded with, after normalisation.
        bgr_to_rgb: Reorder channels from BGR to RGB.
        rgb_to_bgr: Reorder channels from RGB to BGR.
        non_blocking: Do not wait for copies from pinned memory to a GPU; what follows on that device does.

    Raises:
        ValueError: Only one of `mean` and `std` is given, they have neither 1 nor 3 values, or a deviation is not positive;
            channels shall be reordered both ways; or the divisor is less than 1.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[Deviation] | None = None,
        pad_size_divisor: PositiveInt = 1,
        pad_value: float = 0,
        bgr_to_rgb: bool = False,
        rgb_to_bgr: bool = False,
        non_blocking: bool | None = False,
    ) -> None:
        super().__init__(non_blocking)
        if (mean is None) != (std is None):
            raise ValueError(f"{'std' if mean is None else 'mean'} is given alone: give mean and std, or neither")
        for name, values in (("mean", mean), ("std", std)):
            if values is not None and (len(values) not in (1, 3) or not all(map(math.isfinite, values))):
                raise ValueError(f"{name} is {list(values)}, must be 1 or 3 finite numbers")
        if std is not None and min(std) <= 0:
            raise ValueError(f"std is {list(std)}, must be positive")
        if bgr_to_rgb and rgb_to_bgr:
            raise ValueError("channels are reordered by bgr_to_rgb or by rgb_to_bgr, not by both")
        if not isinstance(pad_size_divisor, int) or pad_size_divisor < 1:
            raise ValueError(f"pad_size_divisor is {pad_size_divisor!r}, must be a whole number of at least 1")
        # No buffers: they stay float32 in a model of half precision, and nobody need average or broadcast them.
        self.mean = None if mean is None else torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1)
        self.std = None if std is None else torch.tensor(std, dtype=torch.float32).view(-1, 1, 1)
        self.pad_size_divisor = pad_size_divisor
        self.pad_value = pad_value
        self.flips_channels = bgr_to_rgb or rgb_to_bgr

    def forward(self, data: Any, training: bool = False) -> Any:  # Any: as of `cast_data`
        """Return a batch with its images normalised, padded and stacked.

        Args:
            data: A mapping with ``inputs`` (a ``data_samples`` of None is added where there is none), a tuple or list whose first
                entry is the inputs, or just a tensor of them. Inputs are [batch, channels, height, width], or a list of
                [channels, height, width], of any dtype.
            training: Does not matter here.

        Returns:
            The same, with inputs float32[batch, channels, height, width]. The data itself does not change.

        Raises:
            TrainingError: There are no inputs in it, or they have other shapes.
        """
        data = self.cast_data(data)
        if isinstance(data, Tensor):
            return self.images(data)
        if isinstance(data, Mapping) and "inputs" in data:
            return {"data_samples": None, **data, "inputs": self.images(data["inputs"])}
        if isinstance(data, tuple | list) and data:
            values = [self.images(data[0]), *data[1:]]
            return getattr(data, "_make", type(data))(values)
        has = f" with {', '.join(map(str, data)) or 'nothing'}" if isinstance(data, Mapping) else ""
        raise TrainingError(
            f"a batch is a {type(data).__name__}{has}, in which no inputs are found",
            mend="let the loader give {'inputs': …, 'data_samples': …}, or (inputs, …)",
        )

    def images(self, inputs: object) -> Tensor:
        """Return images as one batch.

        Args:
            inputs: [batch, channels, height, width], or a list of [channels, height, width]; on this device.

        Raises:
            TrainingError: They are something else.
        """
        if not isinstance(inputs, Tensor):
            if not isinstance(inputs, list | tuple):
                raise TrainingError(
                    f"the inputs are a {type(inputs).__name__}", mend="give a tensor, or a list of them"
                )
            for index, image in enumerate(inputs):
                if not isinstance(image, Tensor):
                    raise TrainingError(
                        f"image {index} of a batch is a {type(image).__name__}", mend="let the dataset give tensors"
                    )
        return image_batch(
            inputs,
            self.mean,
            self.std,
            divisor=self.pad_size_divisor,
            pad_value=self.pad_value,
            flip=self.flips_channels,
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        if self.mean is not None and self.std is not None:
            self.mean, self.std = self.mean.to(self.device), self.std.to(self.device)
        return self

    def extra_repr(self) -> str:
        """Return what it is set to."""
        listed = {name: None if each is None else each.flatten().tolist() for name, each in self._statistics().items()}
        settings = {**listed, "pad_size_divisor": self.pad_size_divisor, "pad_value": self.pad_value}
        return ", ".join(f"{name}={value}" for name, value in settings.items()) + (
            ", flips channels" if self.flips_channels else ""
        )

    def _statistics(self) -> dict[str, Tensor | None]:
        return {"mean": self.mean, "std": self.std}


class Preprocessed(nn.Module):
    """A plain model behind a preprocessor of its inputs: the same in training, evaluation and export.

    Args:
        model: Takes what the preprocessor returns.
        data_preprocessor: Takes the inputs; a `BaseDataPreprocessor` also hears whether it is trained.
    """

    def __init__(self, model: nn.Module, data_preprocessor: nn.Module) -> None:
        super().__init__()
        self.data_preprocessor = data_preprocessor
        self.model = model

    def forward(self, inputs: Any) -> Any:  # Any: those of the two modules
        """Preprocess, and call the model."""
        if isinstance(self.data_preprocessor, BaseDataPreprocessor):
            return self.model(self.data_preprocessor(inputs, self.training))
        return self.model(self.data_preprocessor(inputs))
