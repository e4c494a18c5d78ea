"""What the arguments of schedules may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

Begin = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
EpochLength = Annotated[int, Meta(ge=1)]
Factor = Annotated[float, Meta(ge=0)]
LastStep = Annotated[int, Meta(ge=-1)]
Length = Annotated[float, Meta(gt=0)]
Reduction = Annotated[float, Meta(ge=0, lt=1)]
UnitFactor = Annotated[float, Meta(ge=0, le=1)]


def check_arguments(described: Callable[..., object], given: Mapping[str, object]) -> None:
    """Refuse what annotated bounds and choices exclude; configs are checked by them, calls are not.

    Args:
        described: A dataclass, or the constructor of another class.
        given: What each argument is; more than the arguments is left alone.

    Raises:
        ValueError: An argument is out of its range, or none of its choices.
    """
    for name, hint in _bounds(described).items():
        if name in given:
            value = _plain(given[name])
            try:
                msgspec.convert(value, hint)
            except msgspec.ValidationError as error:
                choices = ", ".join(map(str, get_args(hint))) if get_origin(hint) is Literal else None
                wanted = f"there are {choices}" if choices else str(error).replace("Expected", "expected")
                raise ValueError(f"{name} is {value!r}: {wanted}") from None


@lru_cache(maxsize=256)  # each use resolves all annotations anew
def _bounds(described: Callable[..., object]) -> dict[str, object]:
    hints = get_type_hints(described, include_extras=True)
    return {name: hint for name, hint in hints.items() if _is_bounded(hint)}


def _is_bounded(hint: object) -> bool:
    return get_origin(hint) in (Annotated, Literal) or any(map(_is_bounded, get_args(hint)))


def _plain(value: object) -> object:
    """Return numbers of NumPy and torch as Python's."""
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    item: Callable[[], object] | None = getattr(value, "item", None)
    return value if item is None else item()
