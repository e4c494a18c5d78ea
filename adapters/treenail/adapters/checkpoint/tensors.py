"""A tensor at rest: contiguous on the CPU, with what it takes to bring it back as it lay in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn

from treenail.kernel import CheckpointError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

# What safetensors both writes and reads; a dtype that it only writes (float8_e8m0fnu) would be lost.
_HELD = frozenset(
    {
        torch.bool,
        *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
        *(torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    }
)


def is_spread(value: object) -> TypeGuard[DTensor]:
    """Tell whether a value is a DTensor, without importing its class, which takes a second."""
    return isinstance(value, Tensor) and hasattr(value, "to_local")


def check_tensor(tensor: Tensor, path: str) -> None:
    """Refuse a tensor that cannot come back as it is.

    Raises:
        CheckpointError: Its class, layout, device or dtype cannot be saved; the message names the path.
    """
    if type(tensor) not in (Tensor, nn.Parameter):
        kind = type(tensor)
        raise CheckpointError(
            f"a tensor of the class {kind.__module__}.{kind.__qualname__} cannot be saved",
            where=path,
            mend="let state_dict() return plain tensors",
        )
    if tensor.layout is not torch.strided:
        raise CheckpointError(f"a tensor of layout {tensor.layout} cannot be saved", where=path, mend="make it dense")
    if tensor.device.type == "meta":
        raise CheckpointError("a tensor on the device 'meta' has no content to save", where=path, mend="fill it first")
    if tensor.dtype not in _HELD and not tensor.is_complex():
        raise CheckpointError(
            f"a tensor of dtype {tensor.dtype} cannot be saved",
            where=path,
            mend="let state_dict() return another dtype, for example its bytes by view(torch.uint8)",
        )


def pack(tensor: Tensor) -> tuple[Tensor, dict[str, object]]:
    """Copy a checked tensor.

    The copy has the elements in the order of their indices, so that any reader of safetensors understands it.

    Returns:
        The contiguous copy on the CPU, and its form: ``complex`` if the last dimension of the copy holds real and
        imaginary part, ``strides`` (in elements) if the tensor fills its memory in another order, such as
        channels_last. Kernels that walk over memory (fused optimizers) need a state to lie as its parameter does. Of a
        view into a larger memory (a column) only the elements are kept.
    """
    copied = tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format).resolve_conj().resolve_neg()
    form: dict[str, object] = {}
    if tensor.numel() and tensor.stride() != copied.stride() and _is_dense(tensor.shape, tensor.stride()):
        form["strides"] = list(tensor.stride())
    if copied.is_complex():  # safetensors does not hold every complex dtype
        form["complex"] = True
        copied = torch.view_as_real(copied)
    return copied, form


def unpack(tensor: Tensor, form: dict[str, object]) -> Tensor:
    """Rebuild the tensor that `pack` copied.

    Raises:
        ValueError: The form is not one that `pack` gives, or not this tensor's.
        RuntimeError: The same, said by torch.
    """
    if unknown := form.keys() - {"strides", "complex"}:
        raise ValueError(f"unknown form {', '.join(sorted(unknown))} of a tensor")
    if form.get("complex"):
        tensor = torch.view_as_complex(tensor)
    strides = form.get("strides")
    if strides is None:
        return tensor
    if (
        not isinstance(strides, list)
        or len(strides) != tensor.dim()
        or not all(isinstance(stride, int) and stride >= 0 for stride in strides)
        or not _is_dense(tensor.shape, strides)  # others could ask for any amount of memory
    ):
        raise ValueError(f"strides {strides} do not fit a tensor of shape {tuple(tensor.shape)}")
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype).copy_(tensor)


def _is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Tell whether the elements fill a block of memory without gaps, each in a place of its own."""
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(strides, shape, strict=True) if size != 1):
        if stride != expected:
            return False
        expected *= size
    return True
