"""What log lines for people say besides the values: how far the run is, and what is left."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from tests.hooks.small_runs import listening, training
from treenail.adapters.hooks import LoggerHook
from treenail.adapters.logging import terminal_logger
from treenail.kernel import Engine, Hook


class Clock(Hook):
    """Says how long steps took, as the timer does; steps of the first record half as long as the others."""

    priority = 10

    def before_train(self, engine: Engine) -> None:
        engine.meters.gauges["time"] = lambda: 1.0 if engine.step < 2 else 2.0


def test_lines_of_the_training_say_of_how_many_steps_and_how_long_the_rest_takes() -> None:
    said = listening()
    run = training(Clock(), LoggerHook(interval=2, least_seconds=0, terminal=said.terminal), epochs=2)
    run.run()
    lines = said.text.splitlines()
    etas = {2: 6 * 1.0, 4: 4 * 1.5, 6: 2 * 5 / 3, 8: 0.0}  # at the mean of all steps so far
    assert len(lines) == 4
    for line, (step, left) in zip(lines, etas.items(), strict=True):
        assert f" train step={step} of=8 epoch=" in re.sub(r"\s+", " ", line)
        assert f" eta={timedelta(seconds=round(left))} " in line


def test_the_pace_is_that_of_this_attempt() -> None:
    said = listening()
    run = training(Clock(), LoggerHook(interval=2, least_seconds=0, terminal=said.terminal), epochs=2)
    run.run()
    later = listening()
    again = training(Clock(), LoggerHook(interval=2, least_seconds=0, terminal=later.terminal), epochs=4)
    again.engine.run(again.loop, resume=run.engine.state_dict())
    assert f" train step=10 of=16 epoch=2 eta={timedelta(seconds=6 * 2)} " in later.text


def test_nothing_is_said_of_what_nobody_knows() -> None:
    said = listening()
    training(LoggerHook(interval=2, least_seconds=0, terminal=said.terminal)).run()
    assert "of=4" in said.text
    assert "eta" not in said.text  # there is no timer


def test_lines_below_a_level_are_not_said(capsys: pytest.CaptureFixture[str]) -> None:
    training(LoggerHook(least_seconds=0, log_level="WARNING")).run()
    assert capsys.readouterr().err == ""
    terminal = terminal_logger(level="WARNING")
    terminal.info("lost")
    terminal.warning("kept")
    assert "lost" not in (said := capsys.readouterr().err)
    assert "kept" in said
    terminal_logger(level="DEBUG").debug("all")
    assert "all" in capsys.readouterr().err
    with pytest.raises(ValueError, match="log_level is 'LOUD', must be one of DEBUG, INFO"):
        LoggerHook(log_level="LOUD")  # type: ignore[arg-type]  # the mistake
