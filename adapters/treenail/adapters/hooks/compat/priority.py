"""Priorities of hooks by mmengine's names."""

from __future__ import annotations

from enum import IntEnum

from treenail.kernel import did_you_mean


class Priority(IntEnum):
    """mmengine's names of priorities; the smaller one runs first, and a hook's is NORMAL unless it says otherwise.

    References:
        https://mmengine.readthedocs.io/en/latest/tutorials/hook.html
    """

    HIGHEST = 0
    VERY_HIGH = 10
    HIGH = 30
    ABOVE_NORMAL = 40
    NORMAL = 50
    BELOW_NORMAL = 60
    LOW = 70
    VERY_LOW = 90
    LOWEST = 100


def get_priority(priority: int | str | Priority) -> int:
    """Return a priority as a number.

    Args:
        priority: A number from 0 to 100, or a name in letters of any case.

    Raises:
        ValueError: The number is out of range, or there is no such name.
        TypeError: It is neither.
    """
    if isinstance(priority, str):
        names = Priority.__members__
        if priority.upper() not in names:
            mend = did_you_mean(priority.upper(), names) or f"there are {', '.join(names)}"
            raise ValueError(f"there is no priority '{priority}'; {mend}")
        return int(names[priority.upper()])
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise TypeError(f"a priority is a number or a name, not a {type(priority).__name__}")
    if not 0 <= priority <= 100:
        raise ValueError(f"the priority is {priority}, must be from 0 to 100")
    return int(priority)
