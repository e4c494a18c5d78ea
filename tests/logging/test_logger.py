"""The logger: lines and files of the seed, and nothing that reaches it from outside or leaks out of it."""

from __future__ import annotations

import io
import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from typing import TypeVar

import pytest

from treenail.adapters.comm import run_threads
from treenail.adapters.logging.compat import ConflictError, MMLogger, UnknownLoggerError, print_log
from treenail.kernel import Communicator, FileError

T = TypeVar("T")
TIME = r"\d\d/\d\d \d\d:\d\d:\d\d"


def alone(function: Callable[[], T]) -> T:
    """Call a function in a context of its own, where there are no loggers yet."""
    return copy_context().run(function)


@pytest.fixture
def made() -> Iterator[list[MMLogger]]:
    """Loggers whose files are closed in the end."""
    loggers: list[MMLogger] = []
    yield loggers
    for logger in loggers:
        logger.close()


def test_a_line_has_time_name_and_level(capsys: pytest.CaptureFixture[str]) -> None:
    MMLogger("of a test").info("this is a %s", "test")
    assert re.fullmatch(rf"{TIME} - mmengine - INFO - this is a test\n", capsys.readouterr().out)
    MMLogger("of a test", logger_name="Logger").warning("mind")
    assert re.fullmatch(rf"{TIME} - Logger - WARNING - mind\n", capsys.readouterr().out)


def test_an_error_says_where_it_was_logged(capsys: pytest.CaptureFixture[str]) -> None:
    logger = MMLogger("of a test")
    logger.error("division by zero")
    line = sys._getframe().f_lineno - 1
    place = f"{re.escape(__file__)} - test_an_error_says_where_it_was_logged - {line}"
    assert re.fullmatch(rf"{TIME} - mmengine - ERROR - {place} - division by zero\n", capsys.readouterr().out)
    # mmengine 0.10.7 has no format for CRITICAL, and takes that of the record before: this would say INFO.
    logger.info("all is well")
    logger.critical("it sinks")
    assert re.search(
        rf"{TIME} - mmengine - CRITICAL - {re.escape(__file__)} - .* - it sinks\n", capsys.readouterr().out
    )


def test_an_exception_shows_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        int("one")
    except ValueError:
        MMLogger("of a test").exception("it failed")
    out = capsys.readouterr().out
    assert out.splitlines()[0].endswith("- it failed")
    assert "Traceback" in out
    assert out.endswith("ValueError: invalid literal for int() with base 10: 'one'\n")


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_levels_are_coloured_on_terminals_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made: list[MMLogger]
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", Screen())
    logger = MMLogger("of a test", log_file=tmp_path / "run.log")
    made.append(logger)
    logger.error("bad")
    assert isinstance(sys.stdout, Screen)
    assert " - \033[31mERROR\033[0m - " in sys.stdout.getvalue()  # red
    assert "\033" not in (tmp_path / "run" / "run.log").read_text()
    monkeypatch.setenv("NO_COLOR", "1")
    logger.error("worse")
    assert sys.stdout.getvalue().count("\033[31m") == 1


def test_the_file_lies_in_a_directory_of_its_name(tmp_path: Path, made: list[MMLogger]) -> None:
    logger = MMLogger("of a test", log_file=tmp_path / "tmp.log")
    made.append(logger)
    logger.info("this is a test")
    assert logger.log_file == tmp_path / "tmp" / "tmp.log"
    assert re.fullmatch(rf"{TIME} - mmengine - INFO - this is a test\n", (tmp_path / "tmp" / "tmp.log").read_text())
    assert [str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*.log")] == ["tmp/tmp.log"]


def test_a_file_is_begun_anew_or_added_to(tmp_path: Path, made: list[MMLogger]) -> None:
    for mode, lines in (("w", 1), ("a", 2), ("w", 1)):
        logger = MMLogger("of a test", log_file=tmp_path / "tmp.log", file_mode=mode)  # type: ignore[arg-type]  # of both
        made.append(logger)
        logger.info("once more")
        assert len((tmp_path / "tmp" / "tmp.log").read_text().splitlines()) == lines


def test_a_full_file_gives_way_to_a_new_one(tmp_path: Path, made: list[MMLogger]) -> None:
    logger = MMLogger("of a test", log_file=tmp_path / "tmp.log", max_bytes=120, keep=2)
    made.append(logger)
    for number in range(20):
        logger.info("number %02d", number)
    files = [tmp_path / "tmp" / name for name in ("tmp.log.2", "tmp.log.1", "tmp.log")]
    assert sorted((tmp_path / "tmp").iterdir()) == sorted(files)
    assert all(each.stat().st_size <= 120 for each in files)
    kept = [line[-2:] for each in files for line in each.read_text().splitlines()]
    assert kept == [f"{number:02d}" for number in range(20 - len(kept), 20)]
    assert len(kept) >= 5


@pytest.mark.parametrize(
    ("distributed", "level", "files"),
    [
        (False, "INFO", ["tmp.log"]),
        (True, "INFO", ["tmp.log", "tmp_rank1.log", "tmp_rank2.log"]),
        (False, "DEBUG", ["tmp.log", "tmp_rank1.log", "tmp_rank2.log"]),
    ],
)
def test_rank_0_writes_a_file_and_the_others_where_they_shall(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], distributed: bool, level: str, files: list[str]
) -> None:
    def on_rank(ranks: Communicator) -> None:
        logger = MMLogger("of a test", log_file=tmp_path / "tmp.log", distributed=distributed, log_level=level)
        logger.info("told by %d", ranks.rank)
        logger.error("failed on %d", ranks.rank)
        logger.close()

    run_threads(3, on_rank)
    assert sorted(each.name for each in (tmp_path / "tmp").iterdir()) == files
    for name in files:
        rank = int(name.removeprefix("tmp_rank").removesuffix(".log")) if "rank" in name else 0
        lines = (tmp_path / "tmp" / name).read_text().splitlines()
        assert [line.rpartition(" - ")[2] for line in lines] == [f"told by {rank}", f"failed on {rank}"]
    shown = [line.rpartition(" - ")[2] for line in capsys.readouterr().out.splitlines()]
    assert sorted(shown) == ["failed on 0", "failed on 1", "failed on 2", "told by 0"]


def test_a_warning_is_shown_once_by_its_whole_text(capsys: pytest.CaptureFixture[str]) -> None:
    logger = MMLogger("of a test")
    for number in (1, 2, 1, 2, 1):
        logger.warning("mind %d", number)  # mmengine 0.10.7 looks at "mind %d" alone, and drops the second
        logger.info("told %d", number)
    shown = [line.rpartition(" - ")[2] for line in capsys.readouterr().out.splitlines()]
    assert [each for each in shown if each.startswith("mind")] == ["mind 1", "mind 2"]
    assert len(shown) == 7


def test_a_level_that_is_set_later_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], made: list[MMLogger]
) -> None:
    logger = MMLogger("of a test", log_level="WARNING", log_file=tmp_path / "tmp.log")
    made.append(logger)
    logger.info("not yet")
    logger.setLevel("DEBUG")  # in mmengine 0.10.7 the handlers keep the first level
    logger.debug("now")
    logger.setLevel(logging.ERROR)
    logger.warning("no more")
    assert capsys.readouterr().out.endswith(" - DEBUG - now\n")
    assert (tmp_path / "tmp" / "tmp.log").read_text().count("\n") == 1
    with pytest.raises(ValueError, match="LOUD"):
        MMLogger("of a test", log_level="LOUD")


def test_other_settings_do_not_reach_it_and_it_leaves_theirs_alone(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers), list(logging.getLogger("mmengine").handlers))
    logger = MMLogger("of a test")
    assert logger is not logging.getLogger("mmengine")
    logging.disable(logging.CRITICAL)
    logging.getLogger("mmengine").setLevel(logging.CRITICAL)
    try:
        logger.info("still told")
    finally:
        logging.disable(logging.NOTSET)
        logging.getLogger("mmengine").setLevel(logging.NOTSET)
    assert capsys.readouterr().out.endswith("- still told\n")
    assert not caplog.records  # it does not go on to the root's handlers
    assert (root.level, list(root.handlers), list(logging.getLogger("mmengine").handlers)) == before


def test_without_a_handler_nothing_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    logger = MMLogger("of a test")
    logger.close()
    logger.close()
    logger.error("lost")
    assert capfd.readouterr() == ("", "")


def test_instances_have_names_of_their_own() -> None:
    def check() -> None:
        logger = MMLogger.get_instance("MMLogger", logger_name="Logger")
        assert (logger.name, logger.instance_name) == ("Logger", "MMLogger")
        assert MMLogger.get_instance("MMLogger") is logger
        assert MMLogger.get_current_instance() is logger
        with pytest.raises(ConflictError, match="'MMLogger' is there already and takes no log_level any more"):
            MMLogger.get_instance("MMLogger", log_level="DEBUG")

    def first() -> None:
        assert MMLogger.get_current_instance().instance_name == "mmengine"
        assert MMLogger.check_instance_created("mmengine")

    alone(check)
    alone(first)
    assert not MMLogger.check_instance_created("MMLogger")


def test_print_log_prints_or_logs(capsys: pytest.CaptureFixture[str]) -> None:
    def check() -> None:
        print_log("plain")
        assert capsys.readouterr().out == "plain\n"
        print_log("nothing", logger="silent", level=logging.ERROR)
        assert capsys.readouterr().out == ""
        MMLogger.get_instance("one", logger_name="One")
        MMLogger.get_instance("two", logger_name="Two")
        print_log("told", logger="one")
        print_log("told", logger="current", level=logging.WARNING)
        print_log("hidden", logger="current", level=logging.DEBUG)
        first, second = capsys.readouterr().out.splitlines()
        assert first.endswith(" - One - INFO - told")
        assert second.endswith(" - Two - WARNING - told")
        print_log("here", logger="two", level=logging.ERROR)
        assert f"{__file__} - check - " in capsys.readouterr().out  # where print_log was called
        with pytest.raises(ValueError, match="no logger is called 'three' in this context") as caught:
            print_log("told", logger="three")
        assert isinstance(caught.value, UnknownLoggerError)
        with pytest.raises(TypeError, match="logger is a int"):
            print_log("told", logger=3)  # type: ignore[arg-type]  # the mistake

    alone(check)


def test_print_log_takes_any_logger(caplog: pytest.LogCaptureFixture) -> None:
    print_log("told", logging.getLogger("of a test"), logging.WARNING)
    assert [(each.name, each.levelname, each.getMessage()) for each in caplog.records] == [
        ("of a test", "WARNING", "told")
    ]


def test_threads_write_whole_lines(tmp_path: Path, made: list[MMLogger], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    logger = MMLogger("of a test", log_file=tmp_path / "tmp.log", max_bytes=5000, keep=100)
    made.append(logger)

    def tell(name: str) -> None:
        for number in range(100):
            logger.info("%s %d", name * 30, number)

    threads = [threading.Thread(target=tell, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [line for each in (tmp_path / "tmp").iterdir() for line in each.read_text().splitlines()]
    assert len(lines) == 400
    assert all(
        re.fullmatch(rf"{TIME} - mmengine - INFO - (a{{30}}|b{{30}}|c{{30}}|d{{30}}) \d+", line) for line in lines
    )


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "tmp").write_text("no directory")
    with pytest.raises(FileError, match=r"tmp\.log: cannot write the log: "):
        MMLogger("of a test", log_file=tmp_path / "tmp.log")


def test_nothing_of_it_warns(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logger = MMLogger("of a test", log_file=tmp_path / "tmp.log")
        logger.info("told")
        logger.close()
