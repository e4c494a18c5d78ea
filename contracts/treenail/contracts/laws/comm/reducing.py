"""The laws of `all_reduce`."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Final, NamedTuple

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from treenail.contracts.laws._support import examples, refused
from treenail.contracts.laws.comm._tensors import (
    COMPLEX,
    DTYPES,
    FLOATS,
    SIZES,
    Described,
    bits,
    even,
)
from treenail.contracts.laws.comm._world import Rank, WorldLaws
from treenail.kernel import CommunicationError

COMBINE: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "sum": torch.add,
    "mean": torch.add,
    "product": torch.mul,
    "min": torch.minimum,
    "max": torch.maximum,
    "band": torch.bitwise_and,
    "bor": torch.bitwise_or,
    "bxor": torch.bitwise_xor,
}
BITWISE: Final = "band", "bor", "bxor"
ORDERING: Final = "min", "max"
INEXACT: Final = FLOATS + COMPLEX


def defined(op: str, dtype: torch.dtype) -> bool:
    """Return whether there is such an operation on such numbers."""
    if op == "mean":
        return dtype in INEXACT
    if op in BITWISE:
        return dtype not in INEXACT
    return op not in ORDERING or dtype not in COMPLEX


PAIRS: Final = [(op, dtype) for op in COMBINE for dtype in DTYPES]
DEFINED: Final = [(op, dtype) for op, dtype in PAIRS if defined(op, dtype)]
UNDEFINED: Final = [(op, dtype) for op, dtype in PAIRS if not defined(op, dtype)]


class Reduction(NamedTuple):
    """An operation, some dtypes, and a tensor per rank that is made in each of them."""

    op: str
    dtypes: list[torch.dtype]
    tensors: list[Described]

    def of(self, dtype: torch.dtype) -> list[Described]:
        """Return the tensors in one of the dtypes."""
        return [tensor._replace(dtype=dtype) for tensor in self.tensors]


@st.composite
def reductions(draw: st.DrawFn, pairs: list[tuple[str, torch.dtype]]) -> Reduction:
    """Draw an operation, and tensors of dtypes that go with it."""
    op = draw(st.sampled_from(sorted({op for op, _ in pairs})))
    known = [dtype for each, dtype in pairs if each == op]
    dtypes = draw(st.lists(st.sampled_from(known), unique=True, min_size=1, max_size=4))
    return Reduction(op, dtypes, draw(even((dtypes[0],), special=op in ORDERING)))


def _reduces(rank: Rank, case: Reduction) -> None:
    for dtype in case.dtypes:
        tensors = case.of(dtype)
        found = rank.communicator.all_reduce(rank.make(tensors[rank.number]), case.op)
        parts = [tensor.detach() for tensor in rank.make_all(tensors)]
        kind, due = (found.dtype, found.shape, found.device), (parts[0].dtype, parts[0].shape, parts[0].device)
        assert kind == due, f"all_reduce to the {case.op} of {due} gave {kind}"
        assert not found.requires_grad, "a result of all_reduce requires a gradient"
        assert_reduced(found, parts, case.op)


def assert_reduced(found: Tensor, parts: list[Tensor], op: str) -> None:
    """Fail unless a reduction is what mathematics says, of floating-point numbers within their rounding."""
    dtype, what = found.dtype, f"all_reduce to the {op} of {len(parts)} tensors of {found.dtype}"
    if dtype not in INEXACT or op in ORDERING:
        expected = reduce(COMBINE[op], parts)
        same = torch.equal(found, expected) or torch.allclose(found, expected, rtol=0, atol=0, equal_nan=True)
        assert same, f"{what} gave {found}, must give {expected}"
        return
    wide = torch.complex128 if dtype.is_complex else torch.float64
    exact = [part.to(wide) for part in parts]
    expected = reduce(COMBINE[op], exact) / (len(parts) if op == "mean" else 1)
    scale = reduce(COMBINE[op], [part.abs() for part in exact])  # of a product its size, of a sum more than that
    rounding = len(parts) * torch.finfo(dtype).eps
    off = (found.to(wide) - expected).abs() - rounding * scale - 2 * torch.finfo(dtype).smallest_normal
    assert not off.numel() or off.max() <= 0, f"{what} gave {found}, must give {expected.to(dtype)}"


def _reduces_to_bits(rank: Rank, case: Reduction) -> Tensor:
    given = [rank.make(case.of(dtype)[rank.number]) for dtype in case.dtypes]
    return torch.cat([bits(rank.communicator.all_reduce(tensor, case.op)) for tensor in given])


def _is_refused(rank: Rank, case: Reduction) -> None:
    for dtype in case.dtypes:
        tensor = rank.make(case.of(dtype)[rank.number])
        with refused(f"all_reduce to the {case.op} of {dtype}", CommunicationError) as refusal:
            rank.communicator.all_reduce(tensor, case.op)
        assert case.op in refusal.text, f"a refusal does not name the operation '{case.op}': {refusal.text}"


class ReducingLaws(WorldLaws):
    """What `all_reduce` does."""

    @given(size=SIZES, case=reductions(DEFINED))
    @examples(100)
    def test_all_reduce_is_the_mathematical_reduction(self, size: int, case: Reduction) -> None:
        """Each operation gives what it says of all ranks' tensors, in their dtype and shape; a min or max keeps a NaN.

        Integers are exact; sums, means and products of other numbers are right within their rounding.
        """
        self.held(self.size(size), _reduces, case)

    @given(size=SIZES, case=reductions([pair for pair in DEFINED if pair[1] in INEXACT]))
    @examples(50)
    def test_all_ranks_get_the_same_bits(self, size: int, case: Reduction) -> None:
        """A reduction is equal on all ranks to the last bit: weights that are updated by it stay equal."""
        found = self.held(self.size(size), _reduces_to_bits, case)
        different = [rank for rank, one in enumerate(found) if not torch.equal(one, found[0])]
        assert not different, f"all_reduce to the {case.op} gave ranks {different} other bits than rank 0"

    @given(size=SIZES, case=reductions([*UNDEFINED, *(("average", dtype) for dtype in DTYPES)]))
    @examples(30)
    def test_operations_that_do_not_exist_are_refused(self, size: int, case: Reduction) -> None:
        """A mean of integers, bits of floating-point numbers, an order of complex ones, and unknown names raise."""
        self.held(self.size(size), _is_refused, case)
