"""A random order of any length without a table of it: the index at a position is computed.

Orders of up to `EXACT` indices are sorted by hashes, which makes every order equally likely. Longer ones go through a
Feistel network over Z_a x {0,1}^m with a·2^m just above the length, whose round functions are tables of random numbers,
one for each half or, where a half is long, for each of its digits. Positions that come out beyond the length go through it
again ("cycle walking"), so that the order is exact for every length.

Sources: M. Luby and C. Rackoff, "How to construct pseudorandom permutations from pseudorandom functions" (1988), for the
network; J. Black and P. Rogaway, "Ciphers with arbitrary finite domains" (2002), for halves that are not of equal size and
for cycle walking; M. Pătraşcu and M. Thorup, "The power of simple tabulation hashing" (2011), for the tables; G. Steele,
D. Lea and C. Flood, "Fast splittable pseudorandom number generators" (2014), for the numbers in them.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

EXACT = 4096  # up to so many indices, every order is equally likely: 8 bytes each, 32 KiB at most
LIMIT = 2**60  # halves of a position are added as int32
_ROUNDS = 4  # each changes both halves
_DIGIT = 12  # bits that a table takes at once: 16 KiB of int32, which stay in the first-level cache
_CHUNK = 32768  # positions computed at once: few enough for the cache, enough to make up for the calls

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64

_Cut = tuple[Tensor | None, Tensor | None]  # how far a half is shifted, and its mask, to get a digit


def hashed(key: int | Tensor, counters: Tensor) -> Tensor:
    """Hash counters to 64 random bits each; different counters never give the same (SplitMix64).

    Args:
        key: Which of 2**63 hash functions, from `treenail.kernel.mix`; or one for each counter, int64[…].
        counters: int64[…]

    Returns:
        int64[…], uniform over all 64 bits.
    """
    bits = (counters * _GOLDEN).add_(key + _GOLDEN)
    upper = torch.empty_like(bits)
    bits.bitwise_xor_(_shifted(bits, 30, upper)).mul_(_MIX_1)
    bits.bitwise_xor_(_shifted(bits, 27, upper)).mul_(_MIX_2)
    return bits.bitwise_xor_(_shifted(bits, 31, upper))


def _shifted(bits: Tensor, shift: int, out: Tensor) -> Tensor:
    """Shift to the right, zeros coming in: torch's own shift brings copies of the sign."""
    return torch.bitwise_right_shift(bits, shift, out=out).bitwise_and_((1 << (64 - shift)) - 1)


def uniform(key: int, counters: Tensor) -> Tensor:
    """Return a uniform number in [0, 1) for each counter; float64[…] of int64[…], 53 bits each."""
    return (hashed(key, counters) >> 11).bitwise_and_(2**53 - 1).double().mul_(2.0**-53)


def fingerprint(values: Tensor) -> int:
    """Return a number that tells vectors of 8-byte numbers apart, for states: int64[n] or float64[n] → 0 … 2**63-1."""
    bits = values.contiguous().view(torch.int64)
    places = hashed(0, torch.arange(len(bits), device="cpu"))
    return int(hashed(len(bits), bits ^ places).sum()) & (2**63 - 1)


def shuffled(keys: Tensor, sizes: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    """Return the indices at places of many short orders at once, each as `Permutation` has it.

    Args:
        keys: The key of each order; int64[r].
        sizes: Number of indices of each, up to `EXACT`; int64[r].
        rows: The orders that are asked; int64[n], 0 … r-1.
        places: And the places in them; int64[n].

    Returns:
        int64[n]
    """
    ends = sizes.cumsum(0)
    row_of = torch.arange(len(sizes), device="cpu").repeat_interleave(sizes)
    within = torch.arange(len(row_of), device="cpu") - (ends - sizes)[row_of]
    order = hashed(keys[row_of], within).argsort()
    order = order[row_of[order].argsort(stable=True)]  # by rows, and within each by hash
    return within[order[(ends - sizes)[rows] + places]]


class Permutation:
    """A random bijection of 0 … size-1 that a key decides, computed in blocks of positions.

    It holds under 300 KB whatever the size, and the same key gives the same order on every platform.

    Args:
        size: Number of indices, up to 2**60.
        key: From `treenail.kernel.mix`.

    Raises:
        ValueError: size is negative or too large.
    """

    def __init__(self, size: int, key: int) -> None:
        if not 0 <= size <= LIMIT:
            raise ValueError(f"size is {size}, must be 0 … 2**60")
        self.size = size
        self._small = hashed(key, torch.arange(size, device="cpu")).argsort() if size <= EXACT else None
        if self._small is not None:
            return
        self._low_bits = _split(size)
        # An even number, so that orders are odd permutations as often as even ones.
        self._high_size = 2 * -(-size >> (self._low_bits + 1))
        self._exact = self._high_size << self._low_bits == size
        low_digits, high_digits = _digits(self._low_bits), _digits((self._high_size - 1).bit_length())
        low_length, high_length = (_ROUNDS * sum(2**width for _, width in each) for each in (low_digits, high_digits))
        bits = hashed(key, torch.arange(max(low_length, high_length), device="cpu"))
        # The upper bits of a hash serve one table, the lower ones another.
        to_low = (bits[:high_length] >> 64 - self._low_bits).int().bitwise_and_((1 << self._low_bits) - 1)
        # Below high_size, less high_size: added to a high half, it stays negative unless the sum wraps around.
        to_high = bits[:low_length].bitwise_and_(2**31 - 1).mul_(self._high_size)
        to_high = to_high.bitwise_right_shift_(31).add_(-self._high_size).int()
        self._rounds = list(zip(_tables(low_digits, to_high), _tables(high_digits, to_low), strict=True))
        self._low_cuts, self._high_cuts = _cuts(low_digits), _cuts(high_digits)
        self._wrap, self._sign = _operand(self._high_size), _operand(31)

    def __call__(self, positions: Tensor) -> Tensor:
        """Return the index at each position.

        Args:
            positions: int64[n], each 0 … size-1.

        Returns:
            int64[n]
        """
        if self._small is not None:
            return self._small[positions]
        indices = torch.empty_like(positions)
        for start in range(0, len(positions), _CHUNK):
            self._network(positions[start : start + _CHUNK], indices[start : start + _CHUNK])
        if not self._exact:
            outside = (indices >= self.size).nonzero().squeeze(1)
            while len(outside):
                walked = torch.empty_like(outside)
                self._network(indices[outside], walked)
                indices[outside] = walked
                outside = outside[walked >= self.size]
        return indices

    def _network(self, positions: Tensor, result: Tensor) -> None:
        """Write what the network makes of positions to result."""
        high = (positions >> self._low_bits).int()
        low = positions.int().bitwise_and_((1 << self._low_bits) - 1)
        drawn, digit = torch.empty_like(high), torch.empty_like(high)
        for to_high, to_low in self._rounds:
            for cut, table in zip(self._low_cuts, to_high, strict=True):
                torch.index_select(table, 0, _digit(low, cut, digit), out=drawn)
                high.add_(drawn)
                torch.bitwise_right_shift(high, self._sign, out=drawn)  # all ones where it is negative
                high.add_(drawn.bitwise_and_(self._wrap))
            for cut, table in zip(self._high_cuts, to_low, strict=True):
                torch.index_select(table, 0, _digit(high, cut, digit), out=drawn)
                low.bitwise_xor_(drawn)
        result.copy_(high).bitwise_left_shift_(self._low_bits).bitwise_or_(low)


def _split(size: int) -> int:
    """Return how many bits the low half takes: about half, and such that few positions lie beyond the size."""
    bits = (size - 1).bit_length()
    return min(range(bits // 2 - 1, bits // 2 + 1), key=lambda low: (-size % (2 << low), -low))


def _digits(bits: int) -> list[tuple[int, int]]:
    """Return (shift, width) of the digits that a half of so many bits is looked up by."""
    count = -(-bits // _DIGIT)
    width = -(-bits // count)
    return [(shift, min(width, bits - shift)) for shift in range(0, bits, width)]


def _tables(digits: list[tuple[int, int]], numbers: Tensor) -> list[list[Tensor]]:
    """Return the tables of the digits, round by round."""
    sizes = [2**width for _, width in digits] * _ROUNDS
    tables = [numbers[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]
    return [tables[start : start + len(digits)] for start in range(0, len(tables), len(digits))]


def _operand(number: int) -> Tensor:
    """Return an int32 without dimensions; with a Python int, torch takes three times as long for a short block."""
    return torch.tensor(number, dtype=torch.int32, device="cpu")


def _cuts(digits: list[tuple[int, int]]) -> list[_Cut]:
    """Return shift and mask of each digit, None where nothing needs to be cut off."""
    last = digits[-1][0]
    return [
        (_operand(shift) if shift > 0 else None, _operand(2**width - 1) if shift < last else None)
        for shift, width in digits
    ]


def _digit(half: Tensor, cut: _Cut, out: Tensor) -> Tensor:
    """Return a digit of each number of a half: the half itself, or what was written to `out`."""
    shift, mask = cut
    if shift is not None:
        half = torch.bitwise_right_shift(half, shift, out=out)
    return half if mask is None else torch.bitwise_and(half, mask, out=out)
