"""The operations of `all_reduce`: how two tensors become one, and for which dtypes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from treenail.adapters.comm.envelope import form_of
from treenail.kernel import CommunicationError, did_you_mean


class _Operation(NamedTuple):
    combine: Callable[[Tensor, Tensor], Tensor]
    takes: Callable[[torch.dtype], bool]
    taken: str


def _numbers(dtype: torch.dtype) -> bool:
    return dtype not in {torch.uint16, torch.uint32, torch.uint64}  # torch itself does not compute with them


def _inexact(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex


def _ordered(dtype: torch.dtype) -> bool:
    return not dtype.is_complex and _numbers(dtype)


def _bits(dtype: torch.dtype) -> bool:
    return not _inexact(dtype) and _numbers(dtype)


_OPERATIONS = {
    "sum": _Operation(torch.add, _numbers, "numbers and booleans"),
    "mean": _Operation(torch.add, _inexact, "floating-point and complex numbers"),
    "product": _Operation(torch.mul, _numbers, "numbers and booleans"),
    "min": _Operation(torch.minimum, _ordered, "real numbers and booleans"),
    "max": _Operation(torch.maximum, _ordered, "real numbers and booleans"),
    "band": _Operation(torch.bitwise_and, _bits, "integers and booleans"),
    "bor": _Operation(torch.bitwise_or, _bits, "integers and booleans"),
    "bxor": _Operation(torch.bitwise_xor, _bits, "integers and booleans"),
}


def check_reducible(tensor: Tensor, op: str) -> Tensor:
    """Check that a tensor has an operation; return it.

    Raises:
        CommunicationError: There is no such operation, or not for its dtype.
    """
    operation = _OPERATIONS.get(op) if isinstance(op, str) else None
    if operation is None:
        known = f"known are {', '.join(_OPERATIONS)}"
        raise CommunicationError(f"there is no operation {op!r}", mend=did_you_mean(str(op), _OPERATIONS) or known)
    form_of(tensor)
    if not operation.takes(tensor.dtype):
        raise CommunicationError(
            f"there is no {op} of {tensor.dtype}", mend=f"it takes {operation.taken}; convert the tensor first"
        )
    return tensor


def combine(parts: Sequence[Tensor], op: str) -> Tensor:
    """Return the parts of all ranks combined in their order; a mean is not divided yet."""
    return reduce(_OPERATIONS[op].combine, parts)


def reduced(parts: Sequence[Tensor], op: str) -> Tensor:
    """Return the reduction of all ranks' tensors in the order of ranks: the same bit for bit wherever it is done."""
    result = parts[0].clone() if len(parts) == 1 else combine(parts, op)
    return result.div_(len(parts)) if op == "mean" else result
