"""Statistics of windows that move along a history: exact, and in O(1) for each entry that comes or goes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from math import inf, isfinite, isnan, nan
from typing import Final, Generic, TypeAlias, TypeVar

Number = int | float
Numbers: TypeAlias = "array[int] | array[float]"
"""Of type code q while all are integers, then d."""

_SMALLEST_EXPONENT: Final = 1074
"""Every finite float64 is a whole multiple of 2**-1074 (IEEE 754, binary64)."""
_UNIT: Final = 1 << _SMALLEST_EXPONENT
_KEPT: Final = 8
"""Windows of a history that are followed at a time; another one takes the place of that which was not asked for longest."""


class Entries:
    """Values and counts by their number since the first one ever; at least the last `max_length` are kept.

    Args:
        max_length: How many count.
        values: Those to begin with, at most `max_length`.
        counts: Theirs, as many.
    """

    def __init__(self, max_length: int, values: Numbers | None = None, counts: Numbers | None = None) -> None:
        self.max_length = max_length
        self.values: Numbers = array("q") if values is None else values
        self.counts: Numbers = array("q") if counts is None else counts
        self._removed = 0

    @property
    def last(self) -> int:
        """How many entries there ever were."""
        return self._removed + len(self.values)

    @property
    def first(self) -> int:
        """The number of the first entry that counts."""
        return max(self.last - self.max_length, 0)

    @property
    def kept(self) -> int:
        """The number of the first entry that is still known."""
        return self._removed

    def counting(self) -> tuple[Numbers, Numbers]:
        """Return copies of the values and counts that count."""
        begin = self.first - self._removed
        return self.values[begin:], self.counts[begin:]

    def append(self, value: Number, count: Number) -> bool:
        """Add an entry; return whether earlier ones changed, from integers to floats."""
        values, counts = _appended(self.values, value), _appended(self.counts, count)
        changed = values is not self.values or counts is not self.counts
        self.values, self.counts = values, counts
        if len(values) > self.max_length + self.max_length // 2:  # seldom, since it moves all the others
            surplus = len(values) - self.max_length
            del self.values[:surplus], self.counts[:surplus]
            self._removed += surplus
        return changed

    def between(self, start: int, stop: int) -> Iterator[tuple[int, Number, Number]]:
        """Yield number, value and count of the entries start … stop-1."""
        begin, end = start - self._removed, stop - self._removed
        return zip(range(start, stop), self.values[begin:end], self.counts[begin:end], strict=True)


def _appended(numbers: Numbers, number: Number) -> Numbers:
    if numbers.typecode == "q":
        if isinstance(number, int) and -(2**63) <= number < 2**63:
            numbers.append(number)
            return numbers
        numbers = array("d", numbers)
    numbers.append(float(number))  # type: ignore[arg-type]  # mypy does not see that code d means floats
    return numbers


class Window(ABC):
    """What is known of the entries first … last-1."""

    def __init__(self) -> None:
        self.first = self.last = 0
        self._clear()

    def move(self, entries: Entries, first: int, last: int) -> None:
        """Become the window first … last-1, by what comes and goes where that is less than the whole."""
        if (first, last) == (self.first, self.last):
            return
        if not (max(self.first, entries.kept) == self.first <= first < self.last <= last):
            self._clear()
            self.first = self.last = first
        for number, value, count in entries.between(self.first, first):
            self._drop(number, value, count)
        for number, value, count in entries.between(self.last, last):
            self._push(number, value, count)
        self.first, self.last = first, last

    @abstractmethod
    def _clear(self) -> None: ...

    @abstractmethod
    def _push(self, number: int, value: Number, count: Number) -> None: ...

    @abstractmethod
    def _drop(self, number: int, value: Number, count: Number) -> None: ...


class Mean(Window):
    """The sum of the values by that of the counts.

    Both sums are exact, that of floats as a multiple of the smallest one: however long entries come and go, nothing is left
    of those that went.
    """

    def _clear(self) -> None:
        self._total = 0
        self._count: int | Fraction = 0
        self._not_finite: dict[str, int] = {}

    def _push(self, number: int, value: Number, count: Number) -> None:
        self._count += count if isinstance(count, int) else Fraction(count)
        if isfinite(value):
            self._total += _scaled(value)
        else:
            self._not_finite[str(value)] = self._not_finite.get(str(value), 0) + 1

    def _drop(self, number: int, value: Number, count: Number) -> None:
        self._count -= count if isinstance(count, int) else Fraction(count)
        if isfinite(value):
            self._total -= _scaled(value)
        elif self._not_finite[str(value)] > 1:
            self._not_finite[str(value)] -= 1
        else:
            del self._not_finite[str(value)]

    def value(self) -> float:
        """Return the mean: the rounded sum by that of the counts; NaN where the counts are all 0."""
        if self._not_finite:  # infinities of both signs cancel out
            return float(next(iter(self._not_finite))) if len(self._not_finite) == 1 else nan
        if not self._count:
            return nan
        try:
            return self._total / _UNIT / float(self._count)
        except OverflowError:  # of the sum, which floats would have had as infinite, too
            return inf if self._total > 0 else -inf


def _scaled(number: Number) -> int:
    numerator, denominator = number.as_integer_ratio()
    return numerator << (_SMALLEST_EXPONENT + 1 - denominator.bit_length())


class Extremes(Window):
    """The least and the greatest value, by two monotone queues; NaN if one is among the values.

    A queue holds the entries that nothing after them outdoes: the first is the extreme, and each entry joins and leaves once.
    """

    def _clear(self) -> None:
        self._least: deque[tuple[int, Number]] = deque()
        self._greatest: deque[tuple[int, Number]] = deque()
        self._nans = 0

    def _push(self, number: int, value: Number, count: Number) -> None:
        if isnan(value):
            self._nans += 1
            return
        while self._least and self._least[-1][1] >= value:
            self._least.pop()
        while self._greatest and self._greatest[-1][1] <= value:
            self._greatest.pop()
        self._least.append((number, value))
        self._greatest.append((number, value))

    def _drop(self, number: int, value: Number, count: Number) -> None:
        if isnan(value):
            self._nans -= 1
        for queue in (self._least, self._greatest):
            if queue and queue[0][0] == number:
                queue.popleft()

    def least(self) -> Number:
        """Return the least value."""
        return nan if self._nans else self._least[0][1]

    def greatest(self) -> Number:
        """Return the greatest value."""
        return nan if self._nans else self._greatest[0][1]


W = TypeVar("W", bound=Window)


class Windows(Generic[W]):
    """The windows of one kind that somebody asks for, by size.

    Args:
        kind: Makes an empty window.
    """

    def __init__(self, kind: Callable[[], W]) -> None:
        self._kind = kind
        self._by_size: dict[int, W] = {}

    def clear(self) -> None:
        """Forget all of them."""
        self._by_size.clear()

    def last(self, entries: Entries, size: int) -> W:
        """Return the window of the last entries, or of all where there are fewer.

        Args:
            entries: The history.
            size: How many, at least 1.
        """
        first, end = max(entries.last - size, entries.first), entries.last
        found = self._by_size.pop(size, None)
        if found is None:
            # A window that grows, such as that of an epoch, has a new size each time, but always the same beginning.
            grown = next((each for each, window in self._by_size.items() if window.first == first), None)
            found = self._kind() if grown is None else self._by_size.pop(grown)
        found.move(entries, first, end)
        self._by_size[size] = found
        if len(self._by_size) > _KEPT:
            del self._by_size[next(iter(self._by_size))]
        return found
