"""The commands as a user calls them: what they print, their exit codes, and that bad input is one line."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from treenail.adapters.cli import main
from treenail.adapters.runtime import locked

CONFIG = str(Path(__file__).parents[2] / "configs" / "digits.yaml")
QUICK = [
    "loop.max_epochs=2",
    "vis={jsonlines: {type: jsonlines}}",
    "hooks.progress=null",
    "hooks.logger={type: logger, least_seconds: 0}",
    "device=cpu",
]


SCALED_LOSS = """
import torch
from torch import nn

class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, outputs, targets):
        return nn.functional.cross_entropy(outputs * self.scale, targets)
"""

BROKEN_DATA = """
class Broken:
    def __len__(self):
        return 8

    def __getitem__(self, index):
        raise ValueError("image 3 is torn")
"""


class Called(NamedTuple):
    code: int
    out: str
    err: str


class Command:
    """Calls the command in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> Called:
        self._capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Called(code, *self._capsys.readouterr())


@pytest.fixture
def treenail(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(capsys)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work directory of two epochs of the digits."""
    work_dir = tmp_path_factory.mktemp("run") / "trained"
    assert main(["train", CONFIG, *QUICK, "--work-dir", str(work_dir)]) == 0
    return work_dir


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copied"))


def test_a_run_prints_its_results_and_where_they_lie(treenail: Command) -> None:
    done = treenail("train", CONFIG, *QUICK, "loop.max_epochs=1")
    assert done.code == 0
    rows = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert rows["steps"] == "20 (1 epochs)"
    assert float(rows["test/accuracy"]) > 0.5
    for place in ("checkpoints", "curves", "log"):
        assert Path(rows[place]).exists()
    assert rows["log"].startswith("work_dirs/digits/001/")
    again = treenail("train", CONFIG, *QUICK, "loop.max_epochs=1")
    assert "work_dirs/digits/002/" in again.out


def test_the_log_is_lines_of_json(trained: Path) -> None:
    about, *lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert (about["event"], about["attempt"]) == ("environment", 1)
    assert [line["event"] for line in lines] == ["train", "train", "val", "train", "train", "val", "test", "finished"]
    assert [line["step"] for line in lines] == [10, 20, 20, 30, 40, 40, 40, 40]
    assert {"train/loss", "lr", "time", "data_time", "timestamp", "level"} <= lines[0].keys()


def test_a_checkpoint_is_tested_with_the_accuracy_of_its_run(trained: Path, treenail: Command) -> None:
    test = json.loads((trained / "jsonlines" / "scalars.jsonl").read_text().splitlines()[-1])
    done = treenail("test", CONFIG, *QUICK, "--checkpoint", trained / "checkpoints" / "latest")
    assert done.code == 0
    assert f"test/accuracy  {test['test/accuracy']:.4f}" in done.out


def test_a_finished_run_can_be_made_longer(copied: Path, treenail: Command) -> None:
    done = treenail("train", CONFIG, *QUICK, "loop.max_epochs=3", "--work-dir", copied, "--resume")
    assert done.code == 0
    assert "60 (3 epochs)" in done.out
    steps = [json.loads(line)["step"] for line in (copied / "jsonlines" / "scalars.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.lr=0.5"], "is not the one that this run was begun with: optimizer.lr: 0.002 → 0.5"),
        (["train.batch_size=32"], "train.batch_size: 64 → 32"),
    ],
)
def test_a_resume_that_would_be_another_run_is_refused(
    copied: Path, treenail: Command, overrides: list[str], message: str
) -> None:
    done = treenail("train", CONFIG, *QUICK, *overrides, "--work-dir", copied, "--resume")
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "--allow-changes" in done.err
    allowed = treenail("train", CONFIG, *QUICK, *overrides, "--work-dir", copied, "--resume", "--allow-changes")
    assert allowed.code == 0


def test_a_resume_may_begin_at_another_checkpoint(copied: Path, treenail: Command) -> None:
    arguments = ["train", CONFIG, *QUICK, "loop.max_epochs=3", "--work-dir", str(copied), "--resume", "--checkpoint"]
    missing = treenail(*arguments, "bset")
    assert (missing.code, "did you mean 'best'?" in missing.err) == (2, True)
    assert treenail(*arguments, "best").code == 0


def test_two_processes_do_not_write_one_directory(copied: Path, treenail: Command) -> None:
    with locked(copied):
        done = treenail("train", CONFIG, *QUICK, "loop.max_epochs=3", "--work-dir", copied, "--resume")
    assert done.code == 2
    assert f"process {os.getpid()} on " in done.err
    assert treenail("train", CONFIG, *QUICK, "loop.max_epochs=3", "--work-dir", copied, "--resume").code == 0
    assert not (copied / "lock").exists()


def test_a_loss_with_parameters_is_trained_saved_and_tested(tmp_path: Path, treenail: Command) -> None:
    Path("scaled.py").write_text(SCALED_LOSS)
    arguments = [CONFIG, *QUICK, "imports=[scaled]", "loss={type: 'scaled:Scaled'}", "loop.max_epochs=1"]
    done = treenail("train", *arguments, "--work-dir", "run")
    assert done.code == 0, done.err
    row = next(line for line in done.out.splitlines() if line.startswith("test/loss"))
    assert row in treenail("test", *arguments, "--checkpoint", "run/checkpoints/latest").out
    from safetensors.torch import load_file

    directory = Path("run/checkpoints") / Path("run/checkpoints/latest").read_text()
    tensors = load_file(directory / "state.safetensors")
    assert any(name.startswith("loss") and float(tensor) != 1.0 for name, tensor in tensors.items() if tensor.ndim == 0)


def test_a_failure_in_a_loader_worker_ends_the_command_in_one_line(tmp_path: Path, scripts: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN_DATA)
    arguments = ["train", CONFIG, *QUICK, "imports=[broken]", "train.dataset={type: 'broken:Broken'}"]
    done = subprocess.run(
        [scripts / "treenail", *arguments, "train.num_workers=2"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "ValueError" in done.stderr.splitlines()[-1]
    assert "image 3 is torn" in done.stderr.splitlines()[-1]
    assert "Traceback (most" not in done.stderr


def test_check_prints_every_mistake_of_every_config(treenail: Command) -> None:
    Path("one.yaml").write_text(Path(CONFIG).read_text().replace("lr:", "lrr:").replace("mode: max", "mode: mx"))
    Path("empty.yaml").touch()
    done = treenail("check", CONFIG, "one.yaml", "empty.yaml", "missing.yaml", ".")
    assert done.code == 2
    assert done.out == f"{CONFIG}: right\n"
    lines = done.err.splitlines()
    assert lines[0].startswith("one.yaml:21:26: optimizer.lrr: AdamW takes no 'lrr'; did you mean 'lr'?")
    assert lines[1].startswith("one.yaml:44:50: hooks.best.mode: expected one of 'max', 'min', got 'mx'")
    assert [line.partition(":")[0] for line in lines[2:5]] == ["empty.yaml", "missing.yaml", "."]
    assert lines[5] == "5 mistakes"


def test_export_publishes_an_artefact_that_agrees(trained: Path, treenail: Command) -> None:
    done = treenail(
        "export", CONFIG, *QUICK, "--checkpoint", trained / "checkpoints" / "best", "--out", "out/digits.onnx"
    )
    assert done.code == 0, done.err
    assert "largest difference" in done.out
    assert [path.name for path in Path("out").iterdir()] == ["digits.onnx"]
    unknown = treenail(
        "export", CONFIG, "--checkpoint", trained / "checkpoints" / "best", "--format", "onx", "--out", "x"
    )
    assert (unknown.code, unknown.err) == (2, "error: unknown exporter 'onx'; did you mean 'onnx'?\n")


def test_adapters_lists_every_port_and_what_is_ready(treenail: Command) -> None:
    done = treenail("adapters")
    assert done.code == 0
    for line in ("hook", "  tensorboard    ready", "  onnx           ready", "15 names of torch.optim, such as"):
        assert line in done.out


@pytest.mark.parametrize("command", ["train", "test", "check", "export", "adapters"])
def test_help_says_what_the_command_does(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"usage: treenail {command}" in capsys.readouterr().out


def test_overrides_may_stand_anywhere(treenail: Command) -> None:
    done = treenail("train", CONFIG, "--work-dir", "here", "optimizer.lr=-3", "--resume")
    assert "here: there is no checkpoint to resume from" in done.err
    done = treenail("train", CONFIG, "--work-dir", "here", "optimizer.lrr=1")
    assert "override 'optimizer.lrr=1'" in done.err
    with pytest.raises(SystemExit) as caught:
        treenail("train", CONFIG, "--work-dir", "here", "--resum=1", "stray")
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", CONFIG, "optimizer.lr=-1"], "AdamW could not be built: ValueError: Invalid learning rate: -1.0"),
        (["train", CONFIG, "device=cud"], "device: expected 'str' matching regex"),
        (["train", CONFIG, "device=cuda:63"], "the device 'cuda:63' cannot be used"),
        (
            ["train", CONFIG, "--work-dir", "file/below"],
            "file/below: the work directory cannot be written: Not a directory",
        ),
        (["train", CONFIG, "--work-dir", "new", "--resume"], "new: there is no checkpoint to resume from"),
        (["train", CONFIG, "--checkpoint", "best"], "but --resume is missing; add --resume"),
        (["train", CONFIG, "--resume"], "work_dirs/digits: there is no checkpoint to resume from"),
        (["train", "file"], "file: a config file ends in .yaml, .yml, .json, .toml"),
        (["train", "missing.yaml"], "missing.yaml: there is no such file"),
        (["test", CONFIG, "--checkpoint", "missing"], "missing: there is no such file or directory; name a checkpoint"),
        (["test", CONFIG, "test=null", "--checkpoint", "file"], "the config has no 'test'"),
        (
            ["test", CONFIG, "--checkpoint", "file"],
            "file: the file is empty; was it copied",
        ),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(treenail: Command, arguments: list[str], message: str) -> None:
    Path("file").touch()
    done = treenail(*arguments)
    errors = [line for line in done.err.splitlines() if not line.startswith("work directory: ")]
    assert done.code == 2
    assert len(errors) == 1, done.err
    assert errors[0].startswith("error: ")
    assert message in errors[0]
    assert not list(Path().glob("work_dirs/*/*")), "a run that never began leaves no directory"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.lr=1e30"], "the loss became"),
        (["hooks.best.metric=val/acuracy"], "which validation does not give; did you mean 'val/accuracy'?"),
        (["model.args.0.out_channels=16"], "RuntimeError: running_mean should contain 16 elements"),
        (["loss={type: Identity}"], "loss.type"),
    ],
)
def test_a_failure_while_training_is_one_line(treenail: Command, overrides: list[str], message: str) -> None:
    done = treenail("train", CONFIG, *QUICK, *overrides)
    assert done.code in (1, 2)
    assert message in done.err.splitlines()[-1]
    assert "Traceback" not in done.err


def test_debug_shows_the_traceback(treenail: Command) -> None:
    done = treenail("train", CONFIG, *QUICK, "optimizer.lr=-1", "--debug")
    assert done.code == 2
    assert "Traceback" in done.err


def test_a_directory_with_a_run_is_not_written_over(copied: Path, treenail: Command) -> None:
    before = sorted(str(path) for path in copied.rglob("*"))
    done = treenail("train", CONFIG, *QUICK, "--work-dir", copied)
    assert done.code == 2
    assert "holds a run already; go on with --resume" in done.err
    assert sorted(str(path) for path in copied.rglob("*")) == before


def damage_truncate(directory: Path) -> str:
    path = directory / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return "its manifest says"


def damage_flip(directory: Path) -> str:
    path = directory / "state.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return "checksum is not that of its manifest"


def damage_remove(directory: Path) -> str:
    (directory / "state.json").unlink()
    return "a file of the checkpoint is missing"


def damage_manifest(directory: Path) -> str:
    (directory / "manifest.json").write_text("{")
    return "the manifest cannot be read"


def damage_future(directory: Path) -> str:
    (directory / "manifest.json").write_text('{"format_version": 99}')
    return "has format 99, this treenail reads 2; upgrade treenail"


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_remove, damage_manifest, damage_future])
@pytest.mark.parametrize("command", ["test", "resume"])
def test_a_damaged_checkpoint_is_named_and_refused(
    copied: Path, treenail: Command, damage: object, command: str
) -> None:
    assert callable(damage)
    latest = copied / "checkpoints" / "latest"
    message = damage(copied / "checkpoints" / latest.read_text())
    if command == "test":
        done = treenail("test", CONFIG, *QUICK, "--checkpoint", latest)
    else:
        named = ["--resume", "--checkpoint", latest.read_text()]
        done = treenail("train", CONFIG, *QUICK, "--work-dir", copied, *named)
    assert done.code == 2
    assert message in done.err.splitlines()[-1]
    assert latest.read_text() in done.err.splitlines()[-1]


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_remove, damage_manifest])
def test_a_damaged_latest_checkpoint_gives_way_to_the_one_before_and_says_so(
    copied: Path, treenail: Command, damage: object
) -> None:
    assert callable(damage)
    damaged = (copied / "checkpoints" / "latest").read_text()
    message = damage(copied / "checkpoints" / damaged)
    done = treenail("train", CONFIG, *QUICK, "--work-dir", copied, "--resume")
    assert done.code == 0
    [warning] = [line for line in done.err.splitlines() if "in its place" in line]
    assert message in warning
    assert damaged in warning


def test_a_checkpoint_of_another_model_is_refused_in_one_line(trained: Path, treenail: Command) -> None:
    smaller = ["model.args.0.out_channels=16", "model.args.1.num_features=16", "model.args.3.in_channels=16"]
    done = treenail("test", CONFIG, *QUICK, *smaller, "--checkpoint", trained / "checkpoints" / "best")
    assert done.code == 2
    assert "the checkpoint is of another model: size mismatch for 0.weight" in done.err
    assert "(and 6 more)" in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_a_checkpoint_and_says_how_to_go_on(
    tmp_path: Path, scripts: Path, number: int, code: int
) -> None:
    work_dir = tmp_path / "run"
    command = [str(scripts / "treenail"), "train", CONFIG, *QUICK, "loop.max_epochs=500"]
    process = subprocess.Popen(
        [*command, "train.num_workers=1", "--work-dir", str(work_dir)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "step=30" in line:
            break
    os.killpg(process.pid, number)  # as a terminal does: the loader's workers get it, too
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert f"stopped by {signal.Signals(number).name}; a checkpoint is saved. Go on with:" in err
    assert err.rstrip().endswith(f"--work-dir {work_dir} --resume")
    manifest = json.loads(
        (work_dir / "checkpoints" / (work_dir / "checkpoints" / "latest").read_text() / "manifest.json").read_text()
    )
    assert manifest["reason"] == signal.Signals(number).name
    assert manifest["step"] >= 30
