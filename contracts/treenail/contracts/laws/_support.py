"""What every suite of laws uses."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from hypothesis import HealthCheck, settings

F = TypeVar("F", bound=Callable[..., None])

# Every example makes a fresh adapter, so neither a shared instance nor a fixture carries anything from one to the next;
# a suite is inherited by as many classes as there are adapters; and a store may be slow.
_HARMLESS = (HealthCheck.differing_executors, HealthCheck.function_scoped_fixture, HealthCheck.too_slow)


def examples(count: int) -> settings:
    """Return Hypothesis settings for a law that looks at `count` examples, or at more where TREENAIL_LAW_EXAMPLES says so.

    Everything else is the profile's.
    """
    count = max(count, int(os.environ.get("TREENAIL_LAW_EXAMPLES", "0")))
    return settings(max_examples=count, deadline=None, report_multiple_bugs=False, suppress_health_check=_HARMLESS)


class Refusal:
    """What `refused` caught; `error` is the exception once the block ended."""

    error: Exception

    @property
    def text(self) -> str:
        """The error's message with its notes."""
        return "\n".join([str(self.error), *getattr(self.error, "__notes__", ())])


@contextmanager
def refused(what: str, *kinds: type[Exception], never: tuple[type[Exception], ...] = ()) -> Iterator[Refusal]:
    """Expect that the block raises one of `kinds`, and none of their subclasses in `never`.

    Args:
        what: What is done in the block, for the message: "advance(-1)".
        *kinds: The exceptions that are right.
        never: Subclasses of them that are wrong.

    Raises:
        AssertionError: The block raised nothing, or something else.
    """
    expected = " or ".join(kind.__name__ for kind in kinds)
    refusal = Refusal()
    try:
        yield refusal
    except kinds as error:
        if isinstance(error, never):
            raise AssertionError(f"{what} raised {type(error).__name__} ({error}), must raise {expected}") from error
        refusal.error = error
    except Exception as error:
        raise AssertionError(f"{what} raised {type(error).__name__} ({error}), must raise {expected}") from error
    else:
        raise AssertionError(f"{what} was accepted, must raise {expected}")


@contextmanager
def accepted(what: str) -> Iterator[None]:
    """Expect that the block raises nothing.

    Args:
        what: What is done in the block, for the message: "a read past the end".

    Raises:
        AssertionError: The block raised.
    """
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{what} raised {type(error).__name__} ({error}), must be accepted") from error
