"""`treenail logs` and `treenail compare`: what they show of real runs, and that bad input is one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from treenail.adapters.cli import main
from treenail.adapters.cli.logs import _spark

CONFIG = str(Path(__file__).parents[2] / "configs" / "digits.yaml")
QUICK = [
    "loop.max_epochs=2",
    "vis={jsonlines: {type: jsonlines}}",
    "hooks.progress=null",
    "hooks.logger={type: logger, least_seconds: 0}",
    "device=cpu",
]


class Called(NamedTuple):
    code: int
    out: list[str]
    err: str


Command = Callable[..., Called]


@pytest.fixture
def treenail(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: str | Path) -> Called:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Called(code, out.splitlines(), err)

    return call


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of two runs: two epochs, and one epoch with another learning rate that was resumed for a second one."""
    place = tmp_path_factory.mktemp("runs")
    assert main(["train", CONFIG, *QUICK, "--work-dir", str(place / "a")]) == 0
    other = [*QUICK, "optimizer.lr=1e-4", "--work-dir", str(place / "b")]
    assert main(["train", CONFIG, *other, "loop.max_epochs=1"]) == 0
    assert main(["train", CONFIG, *other, "--resume"]) == 0
    return place


def cells(out: list[str], name: str) -> list[str]:
    """Return the cells of a row of a table, but for its name."""
    row = next(line for line in out if line.startswith(f"{name}  ") or line == name)
    return [cell for cell in row.removeprefix(name).split("  ") if cell.strip()]


def stripped(out: list[str], name: str) -> list[str]:
    return [cell.strip() for cell in cells(out, name)]


def last(run: Path, name: str) -> float:
    """Return the last value of a curve."""
    lines = map(json.loads, (run / "jsonlines" / "scalars.jsonl").read_text().splitlines())
    return float([line[name] for line in lines if name in line][-1])


def test_logs_show_state_curves_and_last_lines(runs: Path, treenail: Command) -> None:
    done = treenail("logs", runs / "a", "--lines", "4")
    assert done.code == 0
    assert stripped(done.out, "state") == ["finished"]
    assert stripped(done.out, "step") == ["40 of 40 (2 epochs)"]
    assert stripped(done.out, "checkpoint") == ["of step 40"]
    assert not [line for line in done.out if line.startswith("training left")]
    row = stripped(done.out, "val/accuracy")
    assert row[0] == "2"
    assert row[2] == f"{last(runs / 'a', 'val/accuracy'):.4g}"
    assert [line.split()[1] for line in done.out[-4:]] == ["train", "val", "test", "finished"]
    assert f"val/accuracy={last(runs / 'a', 'val/accuracy'):.4g}" in done.out[-3]
    assert done.out[-5] == ""


def test_logs_of_a_resumed_run_count_its_attempts(runs: Path, treenail: Command) -> None:
    done = treenail("logs", runs / "b", "--lines", "0")
    assert stripped(done.out, "attempt") == ["2"]
    assert done.out[-1].startswith("test/accuracy")


def test_logs_draw_a_curve(runs: Path, treenail: Command) -> None:
    done = treenail("logs", runs / "a", "--curve", "train/loss")
    assert done.code == 0
    at = done.out.index("train/loss")
    assert any("⠀" < character <= "⣿" for line in done.out[at : at + 14] for character in line)
    wrong = treenail("logs", runs / "a", "--curve", "train/los")
    assert wrong.code == 2
    assert wrong.err == f"error: {runs / 'a'}: there is no curve 'train/los'; did you mean 'train/loss'?\n"


def test_logs_list_the_main_curves_and_say_what_they_left_out(tmp_path: Path, treenail: Command) -> None:
    per_class = [f"val/iou_{number}" for number in range(20)]
    layers = [f"weights/{number}.weight/mean" for number in range(30)]
    names = ["train/loss", "lr", "weights/norm", *per_class, *layers, "gradients/0.bias/std"]
    (tmp_path / "curves").mkdir()
    (tmp_path / "curves" / "scalars.jsonl").write_text(json.dumps({"step": 1, "epoch": 0, **dict.fromkeys(names, 0.5)}))
    done = treenail("logs", tmp_path)
    assert done.code == 0
    rows = [line.split()[0] for line in done.out if "0.5" in line]
    assert rows == ["train/loss", "lr", "weights/norm", *per_class[:16]]
    assert (
        done.out[-1] == "left out: 4 of val, 30 of weights, 1 of gradients (--all shows them, --curve NAME draws one)"
    )
    whole = treenail("logs", tmp_path, "--all")
    assert [line.split()[0] for line in whole.out if "0.5" in line] == names
    assert "left out" not in "\n".join(whole.out)


def test_runs_stand_side_by_side(runs: Path, treenail: Command) -> None:
    done = treenail("compare", runs / "a", runs / "b")
    assert done.code == 0
    assert done.out[0].split() == ["a", "b"]
    assert stripped(done.out, "optimizer.lr") == ["0.002", "0.0001"]
    differing = [line.split()[0] for line in done.out[1 : done.out.index(next(x for x in done.out if "steps " in x))]]
    assert differing == ["optimizer.lr"]
    assert stripped(done.out, "steps") == ["40", "40"]
    assert stripped(done.out, "attempts") == ["1", "2"]
    assert stripped(done.out, "state") == ["finished", "finished"]
    accuracies = [last(runs / name, "val/accuracy") for name in "ab"]
    assert accuracies[0] > accuracies[1]
    assert stripped(done.out, "last val/accuracy") == [f"{each:.4g}" for each in accuracies]
    assert stripped(done.out, "best val/accuracy")[0] == f"{accuracies[0]:.4g} at 40 *"
    assert "*" not in stripped(done.out, "best val/accuracy")[1]
    losses = [last(runs / name, "val/loss") for name in "ab"]
    assert losses[0] < losses[1]
    assert stripped(done.out, "best val/loss")[0] == f"{losses[0]:.4g} at 40 *"


def test_secrets_of_configs_are_covered(tmp_path: Path, treenail: Command) -> None:
    for name, secret in (("a", "hunter2"), ("b", "hunter3")):
        run = tmp_path / name
        (run / "curves").mkdir(parents=True)
        (run / "curves" / "scalars.jsonl").write_text('{"step": 1, "epoch": 0}\n')
        (run / "config.yaml").write_text(f"seed: {name}\nhooks: {{mail: {{type: mail, password: {secret}}}}}\n")
    done = treenail("compare", tmp_path / "a", tmp_path / "b")
    assert stripped(done.out, "seed") == ["a", "b"]
    assert "hunter" not in "\n".join(done.out)


def test_a_config_that_is_not_kept_is_said_to_be_so(tmp_path: Path, treenail: Command) -> None:
    for name in "ab":
        (tmp_path / name / "curves").mkdir(parents=True)
        (tmp_path / name / "curves" / "scalars.jsonl").write_text('{"step": 1, "epoch": 0, "val/loss": null}\n')
    (tmp_path / "a" / "config.yaml").write_text("seed: 1\n")
    (tmp_path / "a" / "curves" / "config.txt").write_text('{"seed": 1}')
    done = treenail("compare", tmp_path / "a", tmp_path / "b")
    assert stripped(done.out, "config") == ["known", "not known"]
    assert stripped(done.out, "last val/loss") == ["nan", "nan"]
    assert not [line for line in done.out if line.startswith("best")]
    assert stripped(done.out, "training time") == ["not known", "not known"]


def test_logs_and_compare_need_no_torch(runs: Path) -> None:
    code = (
        "import sys; from treenail.adapters.cli import main\n"
        f"assert main(['logs', {str(runs / 'a')!r}]) == 0 == main(['compare', {str(runs / 'a')!r}, {str(runs / 'b')!r}])\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["logs", "nowhere"], "nowhere: there is no such directory; name the work directory of a run"),
        (["compare", "nowhere"], "nowhere: there is no such directory; name the work directory of a run"),
        (["logs", "."], ".: no run has logged anything here; name the work directory of a run: work_dirs/CONFIG/001"),
        (["logs", ".", "--lines=-1"], "--lines and --rank must not be negative"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, treenail: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = treenail(*arguments)
    assert (done.code, done.out, done.err) == (2, [], f"error: {message}\n")


def test_a_rank_without_a_log_is_named(runs: Path, treenail: Command) -> None:
    done = treenail("logs", runs / "a", "--rank=3")
    assert done.code == 2
    assert "rank 3 has no log; ranks but the first write one with distributed.rank_logs=true" in done.err


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([0.0, 1.0, 2.0, 3.5, 7.0], "▁▂▃▅█"),
        ([1.0, 1.0], "▁▁"),
        ([0.0, float("nan"), 1.0], "▁ █"),
        ([float("inf")], ""),
        ([float(each) for each in range(8) for _ in range(6)], "▁▁▁▂▂▂▃▃▃▄▄▄▅▅▅▆▆▆▇▇▇███"),
    ],
)
def test_a_small_drawing_follows_the_values(values: list[float], drawn: str) -> None:
    assert _spark(values) == drawn
