"""Errors of the dialect: each is ours, and the builtin that code written for mmengine catches."""

from __future__ import annotations

from treenail.kernel import TreenailError


class UnknownNameError(TreenailError, KeyError):
    """No scalar, information or statistic has that name; also a KeyError."""


class ConflictError(TreenailError, AssertionError):
    """Two settings contradict each other; also an AssertionError."""


class UnknownLoggerError(TreenailError, ValueError):
    """No logger has that name; also a ValueError."""


class KindError(TreenailError, TypeError):
    """Something is of a kind that cannot stand there; also a TypeError."""
