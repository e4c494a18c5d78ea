"""Values of a log and their counts, with statistics over windows of them."""

from __future__ import annotations

import warnings
from array import array
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from functools import reduce
from inspect import signature
from math import isfinite, isnan, nan
from numbers import Integral, Real
from operator import add
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from msgspec import Meta

from treenail.adapters.logging.compat.errors import ConflictError, KindError, UnknownNameError
from treenail.adapters.logging.compat.windows import Entries, Extremes, Mean, Number, Numbers, Windows
from treenail.kernel import StateError, require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    Array = NDArray[np.float64 | np.int64]

Statistic = TypeVar("Statistic", bound=Callable[..., object])

_SHORT: Final = 32
"""Windows of up to so many entries are looked at as a whole, which is faster than to follow them."""
_BUILT_IN: Final = ("mean", "max", "min", "current")
# By name. Like other defaults it belongs to the context: what is registered at import is there for all that the main thread
# does, a new thread begins without, and no test or second run in the process inherits what another one registered.
_REGISTERED: ContextVar[Mapping[str, Callable[..., object]]] = ContextVar(
    "statistics", default=MappingProxyType[str, Callable[..., object]]({})
)


class HistoryBuffer:
    """The last values of a log, and for each what it counts in a mean; mmengine's class of this name.

    An update costs O(1), and so does a statistic for each update since it was asked for last, whatever the window: sums are
    exact, extremes come from monotone queues. Up to eight sizes of windows are followed at a time; a further one costs a
    pass over its window. Sixteen bytes are held for each of up to 1.5 times `max_length` entries, and besides the queues of the
    windows that are followed.

    Args:
        log_history: Values to begin with.
        count_history: Their counts, as many.
        max_length: How many entries are kept; the oldest go first.

    Raises:
        ConflictError: There are not as many counts as values; also an AssertionError.
        ValueError: max_length is less than 1, or a count is negative or not finite.
        KindError: A value or a count is no number; also a TypeError.

    References:
        https://mmengine.readthedocs.io/en/latest/advanced_tutorials/logging.html
    """

    def __init__(
        self,
        log_history: Iterable[float] = (),
        count_history: Iterable[float] = (),
        max_length: Annotated[int, Meta(ge=1)] = 1_000_000,
    ) -> None:
        if max_length < 1:
            raise ValueError(f"max_length is {max_length}, must be at least 1")
        values, counts = list(log_history), list(count_history)
        if len(values) != len(counts):
            raise ConflictError(f"there are {len(values)} values, but {len(counts)} counts")
        if len(values) > max_length:
            warnings.warn(
                f"The length of history buffer({len(values)}) exceeds the max_length({max_length}), the first few elements "
                "will be ignored.",
                UserWarning,
                stacklevel=2,
            )
        self._hold(Entries(max_length))
        for value, count in zip(values[-max_length:], counts[-max_length:], strict=True):
            self.update(value, count)

    def _hold(self, entries: Entries) -> None:
        self._entries = entries
        self._means = Windows(Mean)
        self._extremes = Windows(Extremes)

    def __len__(self) -> int:
        return self._entries.last - self._entries.first

    @property
    def max_length(self) -> int:
        """How many entries are kept."""
        return self._entries.max_length

    @property
    def updates(self) -> int:
        """How many entries there were since the buffer was made, or a state was loaded, those that went included."""
        return self._entries.last

    def update(self, log_val: float, count: float = 1) -> None:
        """Add a value.

        Args:
            log_val: The value; an integer stays one as long as all are.
            count: What it counts in a mean: the samples of a batch, for instance.

        Raises:
            KindError: One of them is no number; also a TypeError.
            ValueError: count is negative or not finite.
        """
        value, weight = _number("log_val", log_val), _number("count", count)
        if not isfinite(weight) or weight < 0:
            raise ValueError(f"count is {count}, must be finite and not negative")
        if self._entries.append(value, weight):
            self._means.clear()
            self._extremes.clear()

    @property
    def data(self) -> tuple[Array, Array]:
        """Copies of the values and of the counts, each float64[n] or, where all are integers, int64[n]."""
        return self._log_history, self._count_history

    @property
    def _log_history(self) -> Array:
        return _array(self._entries.counting()[0])

    @property
    def _count_history(self) -> Array:
        return _array(self._entries.counting()[1])

    def current(self) -> float:
        """Return the latest value.

        Raises:
            ValueError: There is none.
        """
        self._checked(None)
        return self._entries.values[-1]

    def mean(self, window_size: Annotated[int, Meta(ge=1)] | None = None) -> float:
        """Return the sum of the last values by the sum of their counts; NaN where all counts are 0.

        The sum of a window of more than 32 entries is exact, and then rounded; that of a smaller one is added up in order.

        Args:
            window_size: How many; all when None, or where there are fewer.

        Raises:
            ValueError: There is no value, or window_size is less than 1.
            KindError: window_size is no integer; also a TypeError.
        """
        size = self._checked(window_size)
        if (short := min(size, len(self))) > _SHORT:
            return self._means.last(self._entries, size).value()
        count = reduce(add, self._entries.counts[-short:])  # not sum(), whose rounding is another since Python 3.12
        return reduce(add, self._entries.values[-short:]) / count if count else nan

    def max(self, window_size: Annotated[int, Meta(ge=1)] | None = None) -> float:
        """Return the greatest of the last values, NaN if one of them is; the argument and errors are those of `mean`."""
        size = self._checked(window_size)
        if (short := min(size, len(self))) > _SHORT:
            return self._extremes.last(self._entries, size).greatest()
        values = self._entries.values[-short:]
        return nan if any(map(isnan, values)) else max(values)

    def min(self, window_size: Annotated[int, Meta(ge=1)] | None = None) -> float:
        """Return the least of the last values, NaN if one of them is; the argument and errors are those of `mean`."""
        size = self._checked(window_size)
        if (short := min(size, len(self))) > _SHORT:
            return self._extremes.last(self._entries, size).least()
        values = self._entries.values[-short:]
        return nan if any(map(isnan, values)) else min(values)

    def _checked(self, window_size: object) -> int:
        if not len(self):
            raise ValueError("the history is empty; update() it before asking for statistics")
        if window_size is None:
            return self.max_length
        if type(window_size) is not int and not isinstance(
            window_size, Integral
        ):  # the former is found out much faster
            raise KindError(f"window_size is {window_size!r}, must be an integer or None")
        if window_size < 1:
            raise ValueError(f"window_size is {window_size}, must be at least 1")
        return min(int(window_size), self.max_length)

    @classmethod
    def register_statistics(cls, method: Statistic) -> Statistic:
        """Let `statistics` find a function by its name; to be used as a decorator.

        It is known in the current context (`contextvars`): where the program that registers it runs, but not in threads
        that it starts. The function finds the values in ``_log_history`` and their counts in ``_count_history``, as arrays.

        Args:
            method: Takes the buffer first.

        Raises:
            ConflictError: The name is taken; also an AssertionError.
        """
        name = method.__name__
        registered = _REGISTERED.get()
        if name in registered or name in _BUILT_IN:
            raise ConflictError(f"a statistic named '{name}' is already registered", mend="choose another name")
        _REGISTERED.set(MappingProxyType({**registered, name: method}))
        return method

    # Any: what a statistic takes and returns is known to the one who names it
    def statistics(self, method_name: str, *arg: Any, **kwargs: Any) -> Any:
        """Return a statistic by its name: mean, max, min, current, or one that is registered.

        Args:
            method_name: Its name.
            *arg: What it takes.
            **kwargs: What it takes by name.

        Raises:
            UnknownNameError: There is none of that name; also a KeyError.
            TypeError: It takes other arguments.
        """
        return _statistic(method_name)(self, *arg, **kwargs)

    @classmethod
    def check_statistics(cls, method_name: str, *arg: Any, **kwargs: Any) -> None:
        """Check that `statistics` can be asked for something.

        Args:
            method_name: The statistic's name.
            *arg: What it would be given.
            **kwargs: What it would be given by name.

        Raises:
            UnknownNameError: There is none of that name; also a KeyError.
            KindError: It takes other arguments; also a TypeError.
        """
        asked = signature(_statistic(method_name))
        try:
            asked.bind(None, *arg, **kwargs)
        except TypeError as error:
            takes = ", ".join(list(asked.parameters)[1:]) or "nothing"
            raise KindError(f"the statistic '{method_name}': {error}", mend=f"it takes {takes}") from None

    def state_dict(self) -> dict[str, object]:
        """Return values and counts as tensors [n], float64 or int64, and max_length."""
        values, counts = self._entries.counting()
        return {"log_history": _tensor(values), "count_history": _tensor(counts), "max_length": self.max_length}

    def load_state_dict(self, state_dict: Mapping[str, object]) -> None:
        """Take the history that `state_dict` returned.

        Raises:
            StateError: The state has another form.
        """
        values, counts = (_numbers(name, state_dict.get(name)) for name in ("log_history", "count_history"))
        limit = state_dict.get("max_length")
        if len(values) != len(counts) or not isinstance(limit, int) or limit < max(len(values), 1):
            raise StateError(f"{len(values)} values and {len(counts)} counts are no history of at most {limit}")
        self._hold(Entries(limit, values, counts))

    def __getstate__(self) -> tuple[int, Numbers, Numbers]:
        return (self.max_length, *self._entries.counting())

    def __setstate__(self, state: tuple[int, Numbers, Numbers]) -> None:
        self._hold(Entries(*state))


def _statistic(name: str) -> Callable[..., Any]:
    if name in _BUILT_IN:
        found: Callable[..., Any] = getattr(HistoryBuffer, name)
        return found
    registered = _REGISTERED.get()
    if name not in registered:
        raise UnknownNameError(
            f"no statistic is called '{name}'",
            mend=f"there are {', '.join([*_BUILT_IN, *registered])}; register_statistics adds others",
        )
    return registered[name]


def _array(numbers: Numbers) -> Array:
    numpy = require("numpy", extra="train", purpose="a history as arrays")
    found: Array = numpy.array(numbers, dtype=numbers.typecode)
    return found


def _tensor(numbers: Numbers) -> Tensor:
    import torch

    dtype = torch.int64 if numbers.typecode == "q" else torch.float64
    return torch.frombuffer(numbers, dtype=dtype) if numbers else torch.empty(0, dtype=dtype)


def _numbers(name: str, state: object) -> Numbers:
    import torch

    if not isinstance(state, torch.Tensor) or state.ndim != 1 or state.dtype not in (torch.int64, torch.float64):
        raise StateError("expected a tensor [n] of float64 or int64", where=name)
    return array("q" if state.dtype == torch.int64 else "d", state.tolist())


def _number(name: str, given: object) -> Number:
    if type(given) is float or type(given) is int:  # nearly always, and much faster to find out
        return given
    if isinstance(given, Integral):
        return int(given)
    if isinstance(given, Real):
        return float(given)
    raise KindError(
        f"{name} is a {type(given).__qualname__}, must be a number", mend="take .item() of an array or tensor"
    )


__all__ = ["HistoryBuffer"]
