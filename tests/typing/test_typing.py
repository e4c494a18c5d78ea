"""What mypy --strict says about programs as users write them, and what the run-time checks catch where it is blind.

``right/`` holds programs that mypy accepts and that run. ``wrong/`` holds programs with one mistake each: the wrong line
ends with ``# E: text``, which mypy's messages on that line contain ("text ... text": in this order). ``at_attach/`` holds
programs that mypy accepts and that are refused when they run; their first line is ``# raises: ErrorClass: text``.
"""

import os
import re
import runpy
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from treenail import kernel

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RIGHT, WRONG, AT_ATTACH = (sorted((HERE / name).glob("*.py")) for name in ("right", "wrong", "at_attach"))
MESSAGE = re.compile(r"(?P<path>.+?):(?P<line>\d+): (?P<severity>error|note): (?P<text>.*)")
EXPECTED_ERROR = re.compile(r"  # E: (?P<text>.+)")
EXPECTED_EXCEPTION = re.compile(r"# raises: (?P<name>\w+): (?P<text>.+)")


class Messages(NamedTuple):
    """What mypy says about a line: whether there is an error, and the text of everything."""

    error: bool
    text: str


Report = dict[int, Messages]


@pytest.fixture(scope="module")
def mypy_reports() -> Mapping[Path, Report]:
    """Run mypy once over all programs; where it has checked the project before, the same cache makes that take seconds."""
    cache = ROOT / ".mypy_cache"
    cache.mkdir(exist_ok=True)
    paths = [str(path.relative_to(ROOT)) for path in (*RIGHT, *WRONG, *AT_ATTACH)]
    options = ["--strict", "--no-pretty", "--no-color-output", "--no-error-summary"]
    command = [sys.executable, "-m", "mypy", *options, f"--cache-dir={cache}", *paths]
    with (cache / "typing.lock").open("w") as lock:
        if os.name == "posix":  # the workers of pytest-xdist share the cache, one after the other
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 1, (
        f"mypy should find the mistakes of wrong/ and nothing worse:\n{done.stdout}{done.stderr}"
    )
    reports: defaultdict[Path, Report] = defaultdict(dict)
    for line in done.stdout.splitlines():
        found = MESSAGE.fullmatch(line)
        assert found, f"mypy wrote a line of another form: {line}"
        report, number = reports[ROOT / found["path"]], int(found["line"])
        before = report.get(number, Messages(error=False, text=""))
        report[number] = Messages(before.error or found["severity"] == "error", f"{before.text}{found['text']}\n")
    return dict(reports)


def marks(program: Path) -> dict[int, str]:
    lines = program.read_text(encoding="utf-8").splitlines()
    return {number: found["text"] for number, line in enumerate(lines, 1) if (found := EXPECTED_ERROR.search(line))}


def name(program: Path) -> str:
    return program.stem


def test_there_are_enough_programs() -> None:
    assert len(RIGHT) >= 8
    assert len(WRONG) >= 32
    assert len(AT_ATTACH) >= 6


@pytest.mark.parametrize("program", [*RIGHT, *AT_ATTACH], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_mypy_accepts(program: Path, mypy_reports: Mapping[Path, Report]) -> None:
    assert mypy_reports.get(program, {}) == {}


@pytest.mark.parametrize("program", WRONG, ids=name)
def test_mypy_refuses(program: Path, mypy_reports: Mapping[Path, Report]) -> None:
    expected = marks(program)
    report = mypy_reports.get(program, {})
    assert len(expected) == 1, "a wrong program has one mistake, marked with '# E: text'"
    assert [number for number, messages in report.items() if messages.error] == list(expected)
    for number, text in expected.items():
        pattern = ".*".join(re.escape(part) for part in text.split(" ... "))
        assert re.search(pattern, report[number].text, re.DOTALL), f"not said: {text}\nmypy: {report[number].text}"


@pytest.mark.parametrize("program", RIGHT, ids=name)
def test_runs(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(program), run_name="__main__")


@pytest.mark.parametrize("program", AT_ATTACH, ids=name)
def test_is_refused_when_it_runs(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = program.read_text(encoding="utf-8").partition("\n")[0]
    expected = EXPECTED_EXCEPTION.fullmatch(first)
    assert expected, f"the first line is '# raises: ErrorClass: text', not: {first}"
    with pytest.raises(vars(kernel)[expected["name"]], match=re.escape(expected["text"])) as caught:
        runpy.run_path(str(program), run_name="__main__")
    assert type(caught.value).__name__ == expected["name"]
