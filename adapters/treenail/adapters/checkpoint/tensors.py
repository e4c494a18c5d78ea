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


class Buffers:
    """Memory of snapshots, allocated once and used again: the system's first touch of a page costs several copies.

    One snapshot at a time lives in it. Copies from CUDA devices go to pinned memory and are under way until `wait`; what the
    training does next on the device comes after them, so that no copy sees it.

    Args:
        borrow: Make no copy of what lies on the CPU as it is to be written; the training waits until that is done.
    """

    def __init__(self, *, borrow: bool = False) -> None:
        self._borrows = borrow
        self._free: dict[tuple[torch.Size, torch.dtype, bool], list[Tensor]] = {}
        self._used: list[Tensor] = []
        self._events: dict[torch.device, torch.cuda.Event] = {}

    def begin(self) -> None:
        """Take the memory of the last snapshot for the next one; what that did not need is given back."""
        self._free = {}
        for each in self._used:
            self._free.setdefault((each.shape, each.dtype, each.is_pinned()), []).append(each)
        self._used = []

    def copy(self, tensor: Tensor) -> Tensor:
        """Return a contiguous copy on the CPU, or what may be borrowed; a copy from a CUDA device is whole after `wait`."""
        if self._borrows and _lies_as_written(tensor):
            return tensor
        pinned = tensor.is_cuda
        free = self._free.get((tensor.shape, tensor.dtype, pinned))
        held = free.pop() if free else torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
        self._used.append(held)
        if not pinned:
            return held.copy_(tensor)
        # Rearranged on the device: on the CPU, torch would do it before the copy has come.
        held.copy_(tensor.resolve_conj().resolve_neg().contiguous(), non_blocking=True)
        with torch.cuda.device(tensor.device):
            event = self._events.setdefault(tensor.device, torch.cuda.Event())  # type: ignore[no-untyped-call]  # torch's
            event.record()
        return held

    def wait(self) -> None:
        """Wait until all copies are whole; on any thread."""
        for event in self._events.values():
            event.synchronize()


def pack(tensor: Tensor, buffers: Buffers | None = None) -> tuple[Tensor, dict[str, object]]:
    """Copy a checked tensor.

    Args:
        tensor: Of any device.
        buffers: Where the copy lies; in memory of its own when None.

    The copy has the elements in the order of their indices, so that any reader of safetensors understands it.

    Returns:
        The contiguous copy on the CPU, and its form: ``complex`` if the last dimension of the copy holds real and
        imaginary part, ``strides`` (in elements) if the tensor fills its memory in another order, such as
        channels_last. Kernels that walk over memory (fused optimizers) need a state to lie as its parameter does. Of a
        view into a larger memory (a column) only the elements are kept.
    """
    tensor = tensor.detach()
    if buffers is None:
        copied = tensor.to("cpu", copy=True, memory_format=torch.contiguous_format).resolve_conj().resolve_neg()
    else:
        copied = buffers.copy(tensor)
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


def _lies_as_written(tensor: Tensor) -> bool:
    if tensor.device.type != "cpu" or tensor.is_conj() or tensor.is_neg():
        return False
    return tensor.stride() == torch.empty(tensor.shape, device="meta").stride()


def _is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Tell whether the elements fill a block of memory without gaps, each in a place of its own."""
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(strides, shape, strict=True) if size != 1):
        if stride != expected:
            return False
        expected *= size
    return True
