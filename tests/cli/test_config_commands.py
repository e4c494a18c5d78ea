"""``treenail config``, overlays, and the config that a run keeps."""

import json
import re
import shutil
from pathlib import Path

import pytest

from treenail.adapters.cli import main
from treenail.adapters.config import recorded
from treenail.adapters.config.load import Source, load
from treenail.contracts import Evaluation
from treenail.kernel import Late

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the digits config, in the current directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(DIGITS, tmp_path / "run.yaml")
    return Path("run.yaml")


def test_set_changes_one_line_and_keeps_the_comments(config: Path) -> None:
    before = config.read_text().splitlines()
    assert main(["config", "set", str(config), "train.batch_size=32"]) == 0
    after = config.read_text().splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert changed == [("  batch_size: 64", "  batch_size: 32")]


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        (["optimizer.lrr=1"], "run.yaml (as edited):21:"),
        (["optimizer.type=AdmW"], "did you mean 'AdamW'?"),
        (["~optimizer"], "Run needs 'optimizer', which is missing"),
        (["model.args.99.p=1"], "'99' is not one of its numbers"),
        (["seed"], "write key=value"),
    ],
)
def test_set_refuses_what_would_be_a_mistake(
    config: Path, edits: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = config.read_bytes()
    assert main(["config", "set", str(config), *edits]) == 2
    assert config.read_bytes() == before
    assert [path.name for path in config.parent.iterdir()] == ["run.yaml"]
    assert message in capsys.readouterr().err


def test_set_may_be_forced_and_then_mends_a_part(config: Path) -> None:
    assert main(["config", "set", str(config), "optimizer.lrr=1", "--force"]) == 0
    assert main(["config", "set", str(config), "seed=3"]) == 0  # the old mistake is none of this edit's
    assert main(["check", str(config)]) == 2
    assert main(["config", "set", str(config), "~optimizer.lrr"]) == 0
    assert main(["check", str(config)]) == 0


def test_show_prints_one_file_that_loads_to_the_same_run(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("top.yaml").write_text("_base_: run.yaml\noptimizer: {lr: 1e-4}\nval: {_delete_: true}\n")
    Path("over.yaml").write_text("train: {batch_size: 8}\nval: {dataset: {type: digits, split: val}, batch_size: 3}\n")
    for form in ("yaml", "json"):
        assert (
            main(
                [
                    "config",
                    "show",
                    "top.yaml",
                    "seed=9",
                    "--with",
                    "over.yaml",
                    "--format",
                    form,
                    "--out",
                    f"all.{form}",
                ]
            )
            == 0
        )
        whole = load(Source(Path(f"all.{form}"))).run
        parts = load(Source(Path("top.yaml"), ["seed=9"], [Path("over.yaml")])).run
        assert recorded(whole) == recorded(parts)
        assert isinstance(whole.optimizer, Late)
        assert (whole.seed, whole.train.batch_size, whole.optimizer.kwargs["lr"]) == (9, 8, 1e-4)
        assert isinstance(whole.val, Evaluation)
        assert whole.val.metrics == ()
    assert main(["config", "show", "top.yaml"]) == 0
    assert "_base_" not in capsys.readouterr().out


def test_a_mistake_in_a_base_is_reported_where_it_is(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("top.yaml").write_text("_base_: run.yaml\noptimizer: {type: SGD}\n")
    assert main(["check", "top.yaml"]) == 0  # SGD takes lr and weight_decay, too
    Path("top.yaml").write_text("_base_: run.yaml\noptimizer: {type: LBFGS}\n")
    assert main(["check", "top.yaml"]) == 2
    message = capsys.readouterr().err.splitlines()[0]
    assert message.startswith("run.yaml:21:36: optimizer.weight_decay: LBFGS takes no 'weight_decay'; it takes lr, ")
    assert message.endswith("; top.yaml chose the type: `_delete_: true` beside it drops what a base wrote")


def test_a_run_keeps_its_config_without_what_the_environment_held(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_LR", "0.375")
    Path("top.yaml").write_text("_base_: run.yaml\noptimizer: {lr: '${env:MY_LR}'}\nseed: ${env:MY_SEED:5}\n")
    overrides = ["loop.max_epochs=1", "~hooks.progress", "~vis.tensorboard", "~test"]
    assert main(["train", "top.yaml", *overrides, "--work-dir", "out"]) == 0
    kept = Path("out/config.yaml")
    assert "${env:MY_LR}" in kept.read_text()
    assert "${env:MY_SEED:5}" in kept.read_text()
    assert main(["check", str(kept)]) == 0
    assert load(Source(kept)).run.loop.kwargs == {"max_epochs": 1}
    manifest = next(Path("out/checkpoints").glob("*/manifest.json"))
    stored = json.loads(manifest.read_text())["config"]
    assert stored["optimizer"]["lr"] == "${env:MY_LR}"
    assert "0.375" not in Path("out/config.yaml").read_text()
    assert main(["train", "top.yaml", *overrides, "loop.max_epochs=2", "--work-dir", "out", "--resume"]) == 0
    capsys.readouterr()


def test_secrets_are_covered_where_they_are_shown(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "own_hook.py").write_text(
        "from treenail.kernel import Hook\nclass Own(Hook):\n    def __init__(self, api_key: str): ...\n"
    )
    edits = ["+imports=[own_hook]", "+hooks.own={type: own_hook:Own, api_key: hunter2}"]
    assert main(["config", "set", str(config), *edits]) == 0
    assert main(["config", "show", str(config)]) == 0
    assert "hunter2" not in capsys.readouterr().out
    loaded = load(Source(config))
    assert "hunter2" not in str(recorded(loaded.run, loaded.document))
    own = loaded.run.hooks["own"]
    assert own is not None
    assert own.kwargs == {"api_key": "hunter2"}


def test_a_python_config_is_neither_shown_nor_edited(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["show"], ["set"]):
        more = ["seed=1"] if command == ["set"] else []
        assert main(["config", *command, str(DIGITS.with_suffix(".py")), *more]) == 2
        assert "a Python config is code" in capsys.readouterr().err


@pytest.mark.parametrize("overlay", sorted((DIGITS.parent / "deploy").glob("*.yaml")), ids=lambda path: path.name)
def test_our_overlays_are_right(
    overlay: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(DIGITS), "--with", str(overlay)]) == 0
    monkeypatch.setenv("WORKERS", "many")
    takes_it = "WORKERS" in overlay.read_text()
    assert main(["check", str(DIGITS), "--with", str(overlay)]) == (2 if takes_it else 0)
    message = capsys.readouterr().err
    wrong = re.search(rf"{overlay.name}:\d+:16: train.num_workers: expected 'int', got 'str' \('many'\)", message)
    assert (wrong is not None) == takes_it


def test_an_overlay_for_a_python_config_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    overlay = DIGITS.parent / "deploy" / "server.yaml"
    assert main(["check", str(DIGITS.with_suffix(".py")), "--with", str(overlay)]) == 2
    assert "not over Python" in capsys.readouterr().err


def test_a_config_of_an_installed_package_is_named_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shop_package" / "configs" / "small").mkdir(parents=True)
    (tmp_path / "shop_package" / "__init__.py").write_text("raise RuntimeError('reading a config imports nothing')")
    shutil.copy(DIGITS, tmp_path / "shop_package" / "configs" / "small" / "digits.yaml")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["check", "shop_package::small/digits.yaml"]) == 0
    assert main(["check", "shop_package::small/digit.yaml"]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_configs_in_json_and_toml_are_checked_with_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form, place in (("json", "run.json:60:"), ("toml", "run.toml:")):
        path = tmp_path / f"run.{form}"
        edits = ["~hooks.timer"] if form == "json" else []  # TOML has no null
        assert main(["config", "show", str(DIGITS), *edits, "--format", form, "--out", str(path)]) == 0
        assert main(["check", str(path)]) == 0
        path.write_text(path.read_text().replace("weight_decay", "weigth_decay"))
        assert main(["check", str(path)]) == 2
        message = capsys.readouterr().err
        assert place in message
        assert "AdamW takes no 'weigth_decay'; did you mean 'weight_decay'?" in message


def test_a_variable_in_an_override_is_kept_as_it_was_written(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_TOKEN", "cpu")
    assert main(["config", "show", str(config), "device=${env:MY_TOKEN}"]) == 0
    assert "device: ${env:MY_TOKEN}" in capsys.readouterr().out.replace('"', "")
    assert load(Source(config, ["device=${env:MY_TOKEN}"])).run.device == "cpu"
    assert main(["check", str(config), "--set", "device=${env:NO_SUCH_VARIABLE}"]) == 2
    assert "NO_SUCH_VARIABLE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "run.yaml"], "this is what the config is read from"),
        (["--out", "there"], "a config file ends in"),
        (["--out", "x.json", "--format", "yaml"], "leave --format out"),
        (["--out", "folder.yaml"], "this is no file"),
    ],
)
def test_show_replaces_no_file_that_it_should_not(
    config: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("folder.yaml").mkdir()
    before = config.read_bytes()
    assert main(["config", "show", str(config), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert config.read_bytes() == before
    assert main(["config", "show", str(config), "--out", "new.json"]) == 0
    assert Path("new.json").stat().st_mode & 0o077 == 0
    assert main(["check", "new.json"]) == 0


def test_modules_and_annotations_that_misbehave_are_one_mistake(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("leaves_at_once.py").write_text("import sys\nsys.exit(0)\n")
    Path("odd_types.py").write_text(
        "from torch import nn\nclass U(nn.Identity):\n    def __init__(self, x: '1/0', type: str): ...\n"
    )
    for name, message in (
        ("leaves_at_once:X", "'leaves_at_once:X' cannot be imported: SystemExit"),
        ("odd_types:U", "U needs an argument called 'type', which a config cannot give; rename it"),
    ):
        module = name.partition(":")[0]
        override = f"model={{type: '{name}', x: 1}}" if module == "odd_types" else f"model={{type: '{name}'}}"
        assert main(["check", str(config), "--set", f"+imports=[{module}]", "--set", override]) == 2
        assert message in capsys.readouterr().err
