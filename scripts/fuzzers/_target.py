"""What a fuzzing target is, and what all targets that read documents share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from treenail.adapters.documents import Document, Map, Seq
from treenail.kernel import TreenailError


class Target(NamedTuple):
    """What a module of a campaign has under the name ``TARGET``.

    Args:
        run: Takes an input; raises whatever is a finding.
        seeds: Inputs to begin with.
        dictionary: Pieces of the syntax, to mutate with.
    """

    run: Callable[[bytes], None]
    seeds: Iterable[bytes]
    dictionary: tuple[str, ...]


def as_text(data: bytes) -> str:
    """Return bytes as text in which what is not UTF-8 became lone surrogates: those are to be refused as well."""
    return data.decode("utf-8", "surrogateescape")


class Outcome(NamedTuple):
    """What parsing a text comes to.

    Args:
        error: Type and message, where it is refused.
        data: What was read, with places.
    """

    error: tuple[type[TreenailError], str] | None
    data: object


def outcome(parse: Callable[[str, str], Document], text: str) -> Outcome:
    """Return what parsing a text comes to: its data with places, or the error of ours.

    Raises:
        AssertionError: A part has no place, a text cannot be written as UTF-8, or an error has no place.
        Exception: Whatever else is raised is a finding as well.
    """
    try:
        document = parse(text, "input")
    except TreenailError as error:
        if not str(error).startswith("input"):
            raise AssertionError("an error without a place") from error
        return Outcome((type(error), str(error)), None)
    return Outcome(None, (described(document.data), document.mark))


def described(value: object) -> object:
    """Return a value with types and places, comparable (NaN equals itself).

    Raises:
        AssertionError: A part has no place, or a text cannot be written as UTF-8.
    """
    if isinstance(value, Map):
        assert value.keys() == value.marks.keys(), value
        return "map", [(key, described(inner), value.marks[key]) for key, inner in value.items()]
    if isinstance(value, Seq):
        assert len(value) == len(value.marks), value
        return "seq", [described(inner) for inner in value], value.marks
    if isinstance(value, str):
        value.encode("utf-8")
    return type(value), repr(value)
