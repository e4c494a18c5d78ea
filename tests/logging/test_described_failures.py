"""What is said of an exception: in one line with its place, and whole for a log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from treenail.adapters.logging import describe_error, failure_facts, place_of
from treenail.kernel import ConfigError, did_you_mean


def caught(error: BaseException) -> BaseException:
    """Return an exception that was raised here."""
    with pytest.raises(type(error)) as failed:
        raise error
    return failed.value


def test_the_place_is_in_ones_own_code_and_not_in_the_library_that_it_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    line = test_the_place_is_in_ones_own_code_and_not_in_the_library_that_it_calls.__code__.co_firstlineno
    for call in (
        lambda: json.loads("{"),
        lambda: torch.nn.Linear(2, 2)(torch.ones(1, 3)),
        lambda: did_you_mean("x", 3),  # type: ignore[arg-type]  # the mistake
    ):
        with pytest.raises((ValueError, RuntimeError, TypeError)) as failed:
            call()
        place = place_of(failed.value)
        assert place is not None
        name, _, rest = place.partition(":")
        assert name == Path(__file__).name  # from the current directory
        assert int(rest.partition(" ")[0]) > line
        assert rest.endswith(" in <lambda>")
    monkeypatch.chdir(tmp_path)
    assert str(place_of(caught(ValueError()))).startswith(f"{__file__}:")
    assert place_of(ValueError("not raised")) is None


def test_an_error_is_one_line() -> None:
    assert describe_error(caught(KeyError("missing"))) == "KeyError: 'missing'"
    assert describe_error(KeyboardInterrupt()) == "KeyboardInterrupt"
    frames = 'Original Traceback (most recent call last):\n  File "a"\nValueError: the sample'
    worker = f"Caught ValueError in DataLoader worker process 0.\n{frames}"
    assert describe_error(RuntimeError(worker)) == (
        "RuntimeError: Caught ValueError in DataLoader worker process 0. ValueError: the sample"
    )
    ours = ConfigError("there is no loop", where="loop", mend="write one")
    assert describe_error(caught(ours)) == "loop: there is no loop; write one"  # it says what is to be known


def test_a_log_has_notes_and_the_tracebacks_of_causes() -> None:
    cause = caught(OSError("the disk is full"))
    error = ConfigError("it cannot be kept")
    error.__cause__ = cause
    error.add_note("after 3 steps")
    facts = failure_facts(caught(error))
    assert (facts["kind"], facts["error"], facts["notes"]) == ("ConfigError", "it cannot be kept", ["after 3 steps"])
    assert str(facts["traceback"]).index("OSError: the disk is full") < str(facts["traceback"]).index("it cannot be")
    assert failure_facts(ValueError()).keys() == {"kind", "error", "traceback"}
    assert str(failure_facts(cause)["raised_at"]).endswith(" in caught")
