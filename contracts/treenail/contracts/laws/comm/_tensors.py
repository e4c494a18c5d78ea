"""Tensors that every rank can make from a few numbers, so that each one knows what all others hold."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

import torch
from hypothesis import strategies as st
from torch import Tensor

Layout: TypeAlias = Literal["contiguous", "transposed", "strided", "offset", "expanded", "conjugated", "parameter"]

INTEGERS: Final = torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64
FLOATS: Final = torch.float16, torch.bfloat16, torch.float32, torch.float64
COMPLEX: Final = (torch.complex64,)
DTYPES: Final = torch.bool, *INTEGERS, *FLOATS, *COMPLEX

LAYOUTS: Final[tuple[Layout, ...]] = (
    "contiguous",
    "transposed",
    "strided",
    "offset",
    "expanded",
    "conjugated",
    "parameter",
)
# Every integer below it survives the product of five ranks.
_BOUNDS: Final = {torch.uint8: 3, torch.int8: 2, torch.int16: 7, torch.int32: 70, torch.int64: 1000}
_SPECIAL: Final = (float("nan"), float("inf"), -0.0)
_LARGEST: Final = 70_000  # elements: no communicator takes so many for a small message


class Described(NamedTuple):
    """A tensor, described.

    Args:
        dtype: Of the tensor.
        shape: Of the tensor.
        seed: What its values are drawn from.
        layout: How it lies in memory, where its dtype and shape allow that: not every tensor is contiguous, starts where
            its storage starts, or has been conjugated; some are parameters.
        special: Whether it may hold a NaN, an infinity and a negative zero.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    seed: int
    layout: Layout = "contiguous"
    special: bool = False

    def make(self, device: str = "cpu") -> Tensor:
        """Return the tensor: equal values each time."""
        if self.layout == "expanded" and self.shape:
            return self._values(self.shape[1:]).to(device).expand(self.shape)
        return laid_out(self._values(self.shape).to(device), self.layout)

    def of_length(self, length: int) -> Described:
        """Return the description with another first dimension, where there is one."""
        return self._replace(shape=(length, *self.shape[1:])) if self.shape else self

    def _values(self, shape: tuple[int, ...]) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        if self.dtype == torch.bool:
            return torch.randint(0, 2, shape, generator=generator).to(torch.bool)
        if bound := _BOUNDS.get(self.dtype):
            return torch.randint(-bound if self.dtype.is_signed else 0, bound + 1, shape, generator=generator).to(
                self.dtype
            )
        drawn = torch.complex128 if self.dtype.is_complex else torch.float64
        values = torch.randn(shape, generator=generator, dtype=drawn).to(self.dtype)
        if self.special and values.numel() > len(_SPECIAL):
            values.reshape(-1)[: len(_SPECIAL)] = torch.tensor(_SPECIAL, dtype=torch.float64).to(self.dtype)
        return values


def laid_out(values: Tensor, layout: Layout) -> Tensor:
    """Return equal values that lie in memory in another way."""
    if layout == "transposed":
        backwards = tuple(reversed(range(values.ndim)))
        return values.permute(backwards).contiguous().permute(backwards)
    if layout == "strided" and values.ndim:
        return torch.stack([values, torch.zeros_like(values)], dim=-1)[..., 0]
    if layout == "offset":
        return torch.cat([values.new_zeros(3), values.reshape(-1)])[3:].view(values.shape)
    if layout == "conjugated" and values.is_complex():
        return values.conj().resolve_conj().conj()
    if layout == "parameter" and (values.is_floating_point() or values.is_complex()):
        return values.requires_grad_()
    return values


def bits(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor's values in order: uint8[number of bytes]."""
    values = tensor.detach().resolve_conj().resolve_neg().cpu()
    return values.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)


def assert_same(found: object, expected: Tensor, what: str) -> None:
    """Fail unless a result is what it should be, bit for bit, of the same dtype, shape and device, without a gradient."""
    assert isinstance(found, Tensor), f"{what} gave {found!r}, not a tensor"
    kind = str(found.dtype), tuple(found.shape), str(found.device)
    due = str(expected.dtype), tuple(expected.shape), str(expected.device)
    assert kind == due, f"{what} gave {' '.join(map(str, kind))}, must be {' '.join(map(str, due))}"
    assert torch.equal(bits(found), bits(expected)), f"{what} gave other values: {found}, must be {expected.detach()}"
    assert not found.requires_grad, f"{what} gave a tensor that requires a gradient"


def assert_all_same(found: object, expected: list[Tensor], what: str) -> None:
    """Fail unless a result is a list of tensors that are what they should be."""
    assert isinstance(found, list), f"{what} gave a {type(found).__name__}, not a list"
    assert len(found) == len(expected), f"{what} gave {len(found)} tensors, must give {len(expected)}"
    for number, (one, due) in enumerate(zip(found, expected, strict=True)):
        assert_same(one, due, f"{what}: tensor {number}")


SEEDS: Final = st.integers(0, 2**31 - 1)
SIZES: Final = st.integers(1, 5)
RANKS: Final = st.integers(0, 4)
SMALL_SHAPES: Final = st.lists(st.integers(0, 4), max_size=3).map(tuple)
SOME_SHAPES: Final = SMALL_SHAPES | st.sampled_from(((300, 7), (0,), ()))
SHAPES: Final = SMALL_SHAPES | st.sampled_from(((_LARGEST,), (300, 7), (0,), ()))
LENGTHS: Final = st.lists(st.integers(0, 4) | st.sampled_from((0, 20_000)), min_size=5, max_size=5)


def described(
    dtypes: tuple[torch.dtype, ...] = DTYPES,
    shapes: st.SearchStrategy[tuple[int, ...]] = SHAPES,
    *,
    special: bool = False,
) -> st.SearchStrategy[Described]:
    """Draw a tensor."""
    return st.builds(
        Described, st.sampled_from(dtypes), shapes, SEEDS, st.sampled_from(LAYOUTS), st.just(value=special)
    )


@st.composite
def uneven(draw: st.DrawFn) -> list[Described]:
    """Draw a tensor per rank, for five ranks, with first dimensions of their own, laid out in their own ways."""
    return [
        one.of_length(length)
        for one, length in zip(draw(even(shapes=SOME_SHAPES, special=True)), draw(LENGTHS), strict=True)
    ]


@st.composite
def even(
    draw: st.DrawFn,
    dtypes: tuple[torch.dtype, ...] = DTYPES,
    shapes: st.SearchStrategy[tuple[int, ...]] = SHAPES,
    *,
    special: bool = False,
) -> list[Described]:
    """Draw a tensor per rank, for five ranks, of one shape and dtype, laid out in their own ways."""
    first, seed = draw(described(dtypes, shapes, special=special)), draw(SEEDS)
    layouts = draw(st.lists(st.sampled_from(LAYOUTS), min_size=5, max_size=5))
    return [first._replace(seed=seed + rank, layout=layout) for rank, layout in enumerate(layouts)]
