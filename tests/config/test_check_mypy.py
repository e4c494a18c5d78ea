"""`treenail check --mypy`: what mypy says of a config, at the place where people wrote it."""

import shutil
from argparse import Namespace
from pathlib import Path

import pytest
from tests.config.test_freeze import CACHE, ROOT, SMALL, one_at_a_time, written

from treenail.adapters.cli.freezing import check_with_mypy
from treenail.adapters.config import load_run
from treenail.kernel import ConfigError


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let mypy's cache be that of the checkout."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))


def run_check(*paths: Path, overrides: tuple[str, ...] = ()) -> int:
    with one_at_a_time():
        return check_with_mypy(Namespace(configs=list(paths), overrides=list(overrides), overlays=[], imports=[]))


def test_check_finds_the_configs_of_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    whole = (
        SMALL.replace("loop:", "_base_: [base.yaml]\nloop:").replace("model:", "# model:").replace("loss:", "# loss:")
    )
    written(
        folder, "model: {type: Linear, in_features: 64, out_features: 10}\nloss: {type: cross_entropy}\n", "base.yaml"
    )
    written(folder, "device: cpu\n", "overlay.yml")
    written(folder, "def helper() -> int:\n    return 1\n", "helpers.py")
    paths = [written(folder, whole, "whole.yaml"), Path(shutil.copy(ROOT / "configs" / "digits.py", folder))]
    assert run_check(folder) == 0
    captured = capsys.readouterr()
    assert sorted(captured.out.splitlines()) == sorted(f"{path}: right" for path in paths)
    assert "base.yaml describes no run" in captured.err
    assert "helpers.py describes no run" in captured.err
    (folder / "whole.yaml").unlink()
    (folder / "digits.py").unlink()
    with pytest.raises(ConfigError, match="no config of a run lies in this directory"):
        run_check(folder)


def test_a_wrong_type_that_only_mypy_sees_is_reported_where_the_yaml_says_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stubbed.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self, width, inner=None):\n"
        "        super().__init__()\n        self.layer = nn.Linear(64, width)\n"
    )
    (tmp_path / "stubbed.pyi").write_text(
        "from torch import nn\nclass Net(nn.Module):\n"
        "    def __init__(self, width: int, inner: nn.Module | None = None) -> None: ...\n"
    )
    head, tail = SMALL.split("\n", 2)[0], SMALL.split("\n", 2)[2]
    text = f"{head}\nimports: [stubbed]\nmodel:\n  type: stubbed:Net\n  width: wide\n"
    nested = f"{text}  inner:\n    type: stubbed:Net\n    width: [1,\n      2]\n{tail}"
    flat, deep = written(tmp_path, text + tail, "flat.yaml"), written(tmp_path, nested, "deep.yaml")
    load_run(flat)
    assert run_check(flat, deep, ROOT / "configs" / "digits.yaml") == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == f"{ROOT / 'configs' / 'digits.yaml'}: right\n"
    assert len(lines) == 4
    assert lines[0].startswith(
        f'{flat}:5:10: model.width: mypy: Argument "width" has incompatible type "str"; expected "int"'
    )
    assert lines[1].startswith(f'{deep}:5:10: model.width: mypy: Argument "width" to "Net" has incompatible type')
    assert lines[2].startswith(
        f'{deep}:8:12: model.inner.width: mypy: Argument "width" to "Net" has incompatible type "list[int]"'
    )
    assert lines[3] == "3 mistakes"


def test_mistakes_of_both_kinds_are_reported_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = written(tmp_path, SMALL.replace("lr: 1e-1", "lr: fast"))
    python = written(
        tmp_path,
        (ROOT / "configs" / "digits.py").read_text().replace("STEPS_PER_EPOCH = 20", "STEPS_PER_EPOCH: str = 20"),
        "own.py",
    )
    assert run_check(wrong, python) == 2
    err = capsys.readouterr().err
    assert f"{wrong}:4:28: optimizer.lr: expected float or Tensor, got 'fast'" in err
    assert f"{python}:18:24: mypy: Incompatible types in assignment" in err
