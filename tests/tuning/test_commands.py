"""The commands that find a learning rate and a batch size."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from treenail.adapters.cli.main import main
from treenail.adapters.cli.tuning import size_in_bytes
from treenail.kernel import ConfigError

CONFIG = str(Path(__file__).parents[2] / "configs" / "digits.yaml")


def numbers(out: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} +([0-9.e+-]+)$", out, re.MULTILINE)
    assert found is not None, out
    return float(found[1])


def test_find_lr_draws_and_suggests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    arguments = ["find-lr", CONFIG, "--lowest=1e-6", "--highest=10", "--steps=60", "--out=lr.png", "device=cpu"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert 1e-4 < numbers(out, "steepest descent") < 1
    assert 1e-4 < numbers(out, "minimum / 10") < 1
    assert "batch size        64; " in out
    assert "smoothed loss" in out
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["lr.png"], "nothing else is left"


def test_a_sweep_that_is_none_is_a_mistake_of_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["find-lr", CONFIG, "--lowest=1", "--highest=0.1"]) == 2
    assert "make no sweep" in capsys.readouterr().err
    assert main(["find-lr", CONFIG, "--highest=inf"]) == 2
    assert "--highest < inf" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "message"), [("lr.txt", "no suffix of an image"), ("none/lr.png", "no such directory")]
)
@pytest.mark.parametrize("command", ["find-lr", "plot-schedule"])
def test_what_cannot_be_drawn_is_said_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, out: str, message: str
) -> None:
    missing = tmp_path / "missing.yaml"
    assert main([command, str(missing), "--out", str(tmp_path / out)]) == 1
    assert message in capsys.readouterr().err


def test_find_batch_size_tries_in_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["find-batch-size", CONFIG, "--memory-limit=64GiB", "--most=2", "device=cpu"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "       2  fits",
        "largest batch  2 (power of two: 2), of one process",
    ]
    assert main(["find-batch-size", CONFIG, "--memory-limit=1MB", "--most=1", "device=cpu"]) == 2
    assert "not even a batch of one sample fits" in capsys.readouterr().err
    assert main(["find-batch-size", CONFIG, "--memory-limit=1MB", "--most=0", "device=cpu"]) == 2
    assert "a batch has at least one sample" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_cpu_needs_a_limit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["find-batch-size", CONFIG, "device=cpu"]) == 2
    assert "give a memory limit" in capsys.readouterr().err


def test_amounts_of_memory_are_read_as_people_write_them() -> None:
    assert size_in_bytes("8GiB") == 8 * 2**30
    assert size_in_bytes("500 MB") == 500 * 10**6
    assert size_in_bytes("1.5Ki") == 1536
    assert size_in_bytes("1e9") == 10**9
    for wrong in ("", "many", "8 TB", "-1GB", "0", "1.2.3"):
        with pytest.raises(ConfigError, match="no amount of memory"):
            size_in_bytes(wrong)
