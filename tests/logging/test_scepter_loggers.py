"""SCEPTER's loggers and times, as its documentation shows them."""

from __future__ import annotations

import logging
import re
from contextvars import copy_context
from pathlib import Path

import pytest

from treenail.adapters.comm import run_threads
from treenail.adapters.logging.compat import as_time, get_logger, init_logger, time_since
from treenail.kernel import Communicator

TIME = r"\d\d/\d\d \d\d:\d\d:\d\d"


def test_each_line_begins_with_the_name_and_comes_once(capsys: pytest.CaptureFixture[str]) -> None:
    def check() -> None:
        std_logger = get_logger(name="scepter")
        assert init_logger(std_logger, log_file="", dist_launcher="pytorch") is std_logger
        assert get_logger() is std_logger
        assert init_logger(get_logger()) is std_logger
        std_logger.info("epoch %d", 3)
        std_logger.debug("hidden")

    copy_context().run(check)
    assert re.fullmatch(rf"scepter - {TIME} - INFO - epoch 3\n", capsys.readouterr().out)
    assert not logging.getLogger("scepter").handlers


def test_a_file_is_added_to_and_gives_way_to_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def check() -> None:
        logger = get_logger("run")
        for place in ("run.log", "run.log", tmp_path / "later" / "run.log"):
            init_logger(logger, log_file=place)
            logger.info("to %s", place)
        init_logger(logger)
        logger.info("to nothing")

    copy_context().run(check)
    assert [line.partition(" - INFO - ")[2] for line in (tmp_path / "run.log").read_text().splitlines()] == [
        "to run.log",
        "to run.log",
    ]
    assert (tmp_path / "later" / "run.log").read_text().count("\n") == 1
    assert capsys.readouterr().out.count("\n") == 4
    with pytest.raises(ValueError, match=r"s3://bucket/run\.log; a log grows line by line"):
        init_logger(get_logger("other"), log_file="s3://bucket/run.log")


def test_rank_0_writes_the_file_and_the_others_speak_of_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def on_rank(ranks: Communicator) -> None:
        logger = init_logger(get_logger("run"), tmp_path / "run.log")
        logger.info("told by %d", ranks.rank)
        logger.error("failed on %d", ranks.rank)
        for handler in logger.handlers:
            handler.close()

    run_threads(2, on_rank)
    assert [line.rpartition(" - ")[2] for line in (tmp_path / "run.log").read_text().splitlines()] == [
        "told by 0",
        "failed on 0",
    ]
    said = [line.rpartition(" - ")[2] for line in capsys.readouterr().out.splitlines()]
    assert sorted(said) == ["failed on 0", "failed on 1", "told by 0"]


def test_loggers_of_others_get_a_file_too(tmp_path: Path) -> None:
    logger = logging.Logger("theirs", logging.WARNING)  # noqa: LOG001  # the test shall leave no trace
    init_logger(logger, tmp_path / "theirs.log").info("told")
    assert (tmp_path / "theirs.log").read_text().startswith("theirs - ")
    init_logger(logger)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (90061, "1days 1hours 1mins 1secs"),
        (0, "0secs"),
        (59.9, "59secs"),
        (3600, "1hours 0secs"),
        (-5, "-5secs"),
        (-65, "-1mins 5secs"),
        (-0.5, "0secs"),
    ],
)
def test_times_are_written_in_days_hours_minutes_and_seconds(seconds: float, text: str) -> None:
    assert as_time(seconds) == text


def test_what_is_left_follows_from_what_is_done() -> None:
    assert time_since(100, 0.5) == "1mins 40secs 50.00%(1mins 40secs)"
    assert time_since(100, 1) == "1mins 40secs 100.00%(0secs)"
    assert time_since(3, 0) == "3secs 0.00%(unknown)"
    for since, percent in ((-1, 0.5), (1, 50), (1, -0.1)):
        with pytest.raises(ValueError, match="from 0 to 1"):
            time_since(since, percent)
    with pytest.raises(ValueError, match="no time"):
        as_time(float("inf"))
