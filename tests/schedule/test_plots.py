"""`treenail plot-schedule`, and the charts that it draws."""

import math
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.schedule.test_in_runs import BASE
from treenail.adapters.cli import main
from treenail.adapters.cli.plotting import course_of, panels_of
from treenail.adapters.config import load_run
from treenail.adapters.vis import Panel, plot_text, save_plot
from treenail.kernel import FileError, MissingDependencyError

WARM_UP = [
    {"scheduler": {"type": "mmengine.LinearLR", "start_factor": 0.1, "by_epoch": False, "begin": 0, "end": 5}},
    {"scheduler": {"type": "MultiStepLR", "milestones": [1], "gamma": 0.5}},
]


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    def write(*schedules: object, **fields: object) -> Path:
        path = tmp_path / "config.yaml"
        with path.open("w") as file:
            YAML(typ="safe").dump({**BASE, "schedules": list(schedules), **fields}, file)
        return path

    return write


def test_the_course_is_what_training_would_give(config: Callable[..., Path]) -> None:
    course = course_of(load_run(config(*WARM_UP)))
    length = course.epoch_length
    assert length == -(-1257 // 64)
    (rates,) = course.values.values()
    assert len(rates) == 2 * length
    assert rates[:5] == pytest.approx([0.01, 0.0325, 0.055, 0.0775, 0.1])
    assert rates[5:length] == [0.1] * (length - 5)
    assert rates[length:] == pytest.approx([0.05] * length)


def test_so_many_steps_as_are_asked_for(config: Callable[..., Path]) -> None:
    course = course_of(load_run(config(*WARM_UP)), 7)
    assert [len(each) for each in course.values.values()] == [7]


def test_momentum_and_whatever_is_scheduled_have_charts(config: Callable[..., Path]) -> None:
    run = load_run(
        config(
            {"scheduler": {"type": "LinearMomentum", "end": 5, "by_epoch": False}},
            {"scheduler": {"type": "cosine", "param": "weight_decay", "period": 2}},
            optimizer={"type": "AdamW", "lr": 0.1, "weight_decay": 0.01},
        )
    )
    panels = panels_of(course_of(run))
    assert [(panel.title, list(panel.lines)) for panel in panels] == [
        ("lr", ["lr"]),
        ("momentum", ["momentum"]),
        ("weight_decay", ["weight_decay"]),
    ]
    assert panels[1].lines["momentum"][1][:2] == pytest.approx([0.3, 0.45])


@pytest.mark.parametrize(
    ("schedule", "name"),
    [
        ({"scheduler": {"type": "ReduceLROnPlateau"}, "metric": "val/loss"}, "ReduceLROnPlateau"),
        ({"scheduler": {"type": "ReduceOnPlateauLR", "monitor": "loss"}}, "ReduceOnPlateauLR"),
    ],
)
def test_a_plateau_is_not_guessed(config: Callable[..., Path], schedule: object, name: str) -> None:
    (panel,) = panels_of(course_of(load_run(config(*WARM_UP, schedule))))
    assert panel.title == f"lr, without {name}, which only a metric can tell"
    assert panel.lines["lr"][1][-1] == pytest.approx(0.05)


def test_the_command_draws_in_the_terminal_and_into_a_file(
    config: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "lr.png"
    assert main(["plot-schedule", str(config(*WARM_UP)), "optimizer.lr=0.4", "--out", str(out)]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0] == "lr"
    assert lines[1].lstrip().startswith("0.4 ┤")
    assert lines[-1].split() == ["0", "step", "(20", "an", "epoch)", "39"]
    assert captured.err == f"written: {out}\n"
    assert out.read_bytes().startswith(b"\x89PNG\r\n")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["config.yaml", "lr.png"]


def test_what_cannot_be_drawn_is_said(config: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = str(config(*WARM_UP))
    assert main(["plot-schedule", path, "--steps", "0"]) == 2
    assert main(["plot-schedule", path, "--out", "lr.txt"]) == 1
    assert main(["plot-schedule", path, "--out", "missing/lr.png"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors == [
        "error: --steps is 0, must be at least 1",
        "error: lr.txt: 'lr.txt' has no suffix of an image; one of .png, .pdf, .svg",
        "error: missing: there is no such directory; make it first",
    ]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as if it were not installed
    with pytest.raises(MissingDependencyError, match=r"needs the package.*pip install 'treenail\[plot\]'"):
        save_plot([Panel("", "x", "y", {})], tmp_path / "plot.png")


def test_a_text_has_the_shape_of_its_line() -> None:
    text = plot_text([Panel("up", "step", "lr", {"lr": (range(80), [step / 79 for step in range(80)])})], 43, 13)
    lines = text.splitlines()
    assert (len(lines), max(map(len, lines))) == (13, 43)
    assert lines[0] == "up"
    assert [line[:2] for line in lines[1:11]] == ["1 ", *["  "] * 8, "0 "]
    drawn = [[index for index, sign in enumerate(line) if "\u2801" <= sign <= "\u28ff"] for line in lines[1:11]]
    assert drawn[0][-1] == 42
    assert all(above[0] >= below[-1] - 1 for above, below in pairwise(drawn))
    assert lines[-1].split() == ["0", "step", "79"]


def test_lines_are_named_beside_their_last_points() -> None:
    lines = {"lr/backbone": (range(10), [0.1] * 10), "lr/head": (range(10), [1.0] * 10), "lr/neck": ([0], [0.1])}
    text = plot_text([Panel("lr", "step", "lr", lines)], 60, 12).splitlines()
    assert text[1].endswith("lr/head")
    assert text[9].endswith("lr/backbone")
    assert text[8].endswith("lr/neck")  # the row below is taken
    assert max(map(len, text)) <= 60


def test_a_logarithmic_axis_and_what_is_not_finite() -> None:
    xs, ys = [0.0, 1e-5, 1e-4, 1e-3, 1e-2], [9.0, 4.0, 3.0, math.nan, 1.0]
    text = plot_text([Panel("lr finder", "lr", "loss", {"loss": (xs, ys)}, log_x=True)], 60, 9).splitlines()
    assert (text[1].split()[0], text[6].split()[0]) == ("4", "1")
    assert text[-1].split() == ["1e-05", "lr", "(log)", "0.01"]
    # (1e-4, 3) is a third of the way along both axes: in the third of 6 rows, at a third of 57 columns.
    assert "\u2801" <= text[3][3 + 19] <= "\u28ff"


def test_a_constant_and_nothing_at_all() -> None:
    constant, nothing = plot_text(
        [Panel("lr", "step", "lr", {"lr": ([0, 1], [0.1, 0.1])}), Panel("none", "step", "lr", {"lr": ([], [])})], 40, 9
    ).split("\n\n")
    assert [line.split()[0] for line in (constant.splitlines()[1], constant.splitlines()[6])] == ["0.15", "0.05"]
    assert nothing == "none\n(there is no point to draw)"


@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_files_are_written_without_a_display(tmp_path: Path, suffix: str, begins: bytes) -> None:
    panels = [
        Panel("a", "step", "lr", {"x": ([1, 2], [3, 4]), "y": ([1], [math.inf])}),
        Panel("b", "lr", "loss", {"z": ([1e-3, 1e-2], [1, 2])}, log_x=True),
    ]
    save_plot(panels, tmp_path / f"plot.{suffix}")
    assert (tmp_path / f"plot.{suffix}").read_bytes().startswith(begins)
    with pytest.raises(FileError, match="no suffix of an image"):
        save_plot(panels, tmp_path / "plot")
