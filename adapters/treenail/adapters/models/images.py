"""Images of a batch: of unlike sizes in one tensor, channels in another order, normalised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from treenail.kernel import TrainingError


def stack_batch(
    tensor_list: list[Tensor] | tuple[Tensor, ...], pad_size_divisor: int = 1, pad_value: float = 0
) -> Tensor:
    """Stack tensors of unlike sizes, padded at their ends (images: right and bottom).

    Args:
        tensor_list: [channels, …] each, of as many dimensions and channels.
        pad_size_divisor: All sizes but the channels are padded to a multiple of it; 0 is as 1.
        pad_value: What is padded with.

    Returns:
        [as many, channels, …].

    Raises:
        ValueError: There is no tensor, or they are unlike in their dimensions or channels.
    """
    if not isinstance(tensor_list, list | tuple):
        raise ValueError(f"a list of tensors is stacked, not a {type(tensor_list).__name__}")
    if not tensor_list:
        raise ValueError("there is no tensor to stack")
    if pad_size_divisor < 0:
        raise ValueError(f"pad_size_divisor is {pad_size_divisor}, must be at least 0")
    sizes = padded_size(tensor_list, pad_size_divisor or 1)
    if all(tensor.shape[1:] == sizes for tensor in tensor_list):
        return torch.stack(tensor_list)
    return torch.stack([_padded(tensor, sizes, pad_value) for tensor in tensor_list])


def padded_size(tensors: Sequence[Tensor], divisor: int) -> tuple[int, ...]:
    """Return the sizes behind the channels that hold every tensor, as multiples of a divisor.

    Raises:
        ValueError: They are unlike in their dimensions or channels, or have no dimension.
    """
    first = tensors[0].shape
    for index, tensor in enumerate(tensors):
        if not tensor.ndim or tensor.ndim != len(first) or tensor.shape[0] != first[0]:
            raise ValueError(
                f"tensor {index} has the shape {list(tensor.shape)}, tensor 0 {list(first)}: give all of them as many "
                "dimensions, and channels in the first of them"
            )
    return tuple(
        -(-max(sizes) // divisor) * divisor for sizes in zip(*(each.shape[1:] for each in tensors), strict=True)
    )


def _padded(tensor: Tensor, sizes: tuple[int, ...], value: float) -> Tensor:
    missing = [wanted - there for wanted, there in zip(sizes, tensor.shape[1:], strict=True)]
    if not any(missing):
        return tensor
    return functional.pad(tensor, [amount for size in reversed(missing) for amount in (0, size)], value=value)


def image_batch(
    images: Tensor | Sequence[Tensor],
    mean: Tensor | None,
    std: Tensor | None,
    *,
    divisor: int = 1,
    pad_value: float = 0,
    flip: bool = False,
) -> Tensor:
    """Turn images to one float32 batch: channels flipped, normalised, padded; what is padded is not normalised.

    Args:
        images: [batch, channels, height, width], or [channels, height, width] of each image; of any dtype.
        mean: float32[1 or channels, 1, 1]; None leaves the values.
        std: float32[1 or channels, 1, 1].
        divisor: Height and width become multiples of it.
        pad_value: What is padded with.
        flip: Whether the channels, three of them, change between RGB and BGR.

    Returns:
        float32[batch, channels, height, width].

    Raises:
        TrainingError: There is no image, or images have other shapes than these.
    """
    if isinstance(images, Tensor):
        if images.ndim != 4:
            raise _shape("a batch of images", images, "[batch, channels, height, width]")
        _check_channels(images, images.shape[1], mean, std, flip=flip)
        return _padded_all(_normalised(_flipped(images, 1, flip=flip), mean, std), divisor, pad_value)
    if not images:
        raise TrainingError("a batch has no image", mend="let the dataset, or its collation, leave it out")
    for index, image in enumerate(images):
        if image.ndim != 3:
            raise _shape(f"image {index} of a batch", image, "[channels, height, width]")
        _check_channels(image, image.shape[0], mean, std, flip=flip)
    if all(image.shape == images[0].shape and image.dtype == images[0].dtype for image in images):
        stacked = torch.stack(list(images))
        return _padded_all(_normalised(_flipped(stacked, 1, flip=flip), mean, std), divisor, pad_value)
    try:
        height, width = padded_size(images, divisor)
    except ValueError as error:
        raise TrainingError(str(error)) from None
    batch = images[0].new_empty((len(images), images[0].shape[0], height, width), dtype=torch.float32)
    for index, image in enumerate(images):
        rows, columns = image.shape[1:]
        values = batch[index, :, :rows, :columns].copy_(_flipped(image, 0, flip=flip))
        if mean is not None and std is not None:
            values.sub_(mean).div_(std)
        batch[index, :, rows:] = pad_value
        batch[index, :, :rows, columns:] = pad_value
    return batch


def _flipped(images: Tensor, channels: int, *, flip: bool) -> Tensor:
    return images.flip(channels) if flip else images


def _normalised(images: Tensor, mean: Tensor | None, std: Tensor | None) -> Tensor:
    if mean is None or std is None:
        return images.float()
    if images.dtype == torch.float32:
        return torch.sub(images, mean).div_(std)
    return images.float().sub_(mean).div_(std)  # a copy, which may change


def _padded_all(images: Tensor, divisor: int, value: float) -> Tensor:
    height, width = images.shape[2:]
    bottom, right = -height % divisor, -width % divisor
    return functional.pad(images, (0, right, 0, bottom), value=value) if bottom or right else images


def _check_channels(images: Tensor, channels: int, mean: Tensor | None, std: Tensor | None, *, flip: bool) -> None:
    wanted = 3 if flip else max(1 if each is None else len(each) for each in (mean, std))
    if wanted not in (1, channels):
        why = "RGB and BGR have three channels" if flip else f"mean and std have {wanted} values"
        raise TrainingError(
            f"{why}, and an image has {channels} (its shape is {list(images.shape)})",
            mend="put the channels in front of height and width, and give as many of them",
        )


def _shape(what: str, images: Tensor, wanted: str) -> TrainingError:
    return TrainingError(f"{what} has the shape {list(images.shape)}, must be {wanted}", mend="is a dimension missing?")
