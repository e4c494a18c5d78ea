"""Commands whose config, overlay or base lies in a store."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import pytest

from treenail.adapters.cli import main
from treenail.adapters.config import load_run
from treenail.adapters.files import get_text, put, put_text

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"
QUICK = ["loop.max_epochs=1", "hooks.progress=null", "device=cpu"]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URI of a store that holds the digits config as a base, and a run over it."""
    monkeypatch.chdir(tmp_path)
    uri = f"memory://{uuid4().hex}"
    put(DIGITS.read_bytes(), f"{uri}/bases/digits.yaml")
    put_text("_base_: ../bases/digits.yaml\nseed: 3\n", f"{uri}/runs/small.yaml")
    return uri


def test_a_run_is_trained_tested_and_resumed(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = f"{store}/runs/small.yaml"
    assert main(["train", config, *QUICK]) == 0
    kept = Path("work_dirs/small/001/config.yaml").read_text()
    assert "seed: 3" in kept
    assert "_base_" not in kept
    assert main(["train", config, *QUICK, "loop.max_epochs=2", "--resume"]) == 0
    assert "40 (2 epochs)" in capsys.readouterr().out
    assert main(["test", config, *QUICK, "--checkpoint", "work_dirs/small/001/checkpoints/latest"]) == 0


def test_it_is_checked_shown_and_frozen(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = f"{store}/runs/small.yaml"
    put_text("train: {batch_size: 7}\n", f"{store}/deploy/laptop.yaml")
    assert main(["check", config, str(DIGITS), "--with", f"{store}/deploy/laptop.yaml"]) == 0
    assert capsys.readouterr().out == f"{config}: right\n{DIGITS}: right\n"
    assert main(["config", "show", config, "--with", f"{store}/deploy/laptop.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "batch_size: 7" in shown
    assert "seed: 3" in shown
    assert main(["freeze", config]) == 0
    assert "seed=3" in capsys.readouterr().out
    assert load_run(config).seed == 3


def test_mistakes_are_said_with_their_place(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    put_text("_base_: ../bases/digits.yaml\noptimizer: {lrr: 1}\n", f"{store}/runs/wrong.yaml")
    assert main(["check", f"{store}/runs/wrong.yaml", f"{store}/none.yaml"]) == 2
    said = capsys.readouterr().err
    assert f"{store}/runs/wrong.yaml:2:13: optimizer.lrr:" in said
    assert f"{store}/none.yaml: there is no such file" in said
    assert "2 mistakes" in said


@pytest.mark.parametrize("command", ["train", "check", "freeze"])
def test_no_code_is_run_from_a_store(store: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    put_text("open('ran', 'w').close()\n", f"{store}/run.py")
    assert main([command, f"{store}/run.py"]) == 2
    said = capsys.readouterr().err
    assert f"{store}/run.py: " in said
    assert command == "freeze" or "code, and none is run from a store; copy it here (treenail copy)" in said
    assert not Path("ran").exists()


def test_modules_beside_it_are_not_imported(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_text("open('ran', 'w').close()\n", f"{store}/runs/beside.py")
    put_text(
        "_base_: ../bases/digits.yaml\nimports: [beside]\nloss: {_delete_: true, type: 'beside:Loss'}\n",
        f"{store}/runs/imports.yaml",
    )
    assert main(["check", f"{store}/runs/imports.yaml"]) == 2
    assert "beside" in capsys.readouterr().err
    assert not Path("ran").exists()


def test_it_is_not_edited_in_place(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = f"{store}/runs/small.yaml"
    assert main(["config", "set", config, "seed=4"]) == 2
    assert f"{config}: a config in a store is not edited there; copy it here" in capsys.readouterr().err
    assert "seed: 3" in get_text(config)


def test_a_work_directory_in_a_store_is_refused_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", str(DIGITS), "--work-dir", "s3://user:hunter2@bucket/run"])
    assert ended.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "s3://***@bucket/run lies in a store; a work directory is local; files.checkpoints=URI keeps" in said
    assert "hunter2" not in said


def test_nothing_that_is_said_holds_credentials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "s4://user:hunter2@bucket/run.yaml"]) == 2
    said = capsys.readouterr().err
    assert "s4://***@bucket/run.yaml: nothing serves the scheme 's4'; did you mean 's3'?" in said
    assert "hunter2" not in said


class _Guarded(SimpleHTTPRequestHandler):
    """Serves who shows user and password."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") == "Basic dXNlcjpodW50ZXIy":  # user:hunter2
            super().do_GET()
        else:
            self.send_error(401)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "run.yaml").write_text(DIGITS.read_text() + "\ndistributed: {processes: 2}\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Guarded, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}/run.yaml"
        server.shutdown()
        thread.join()


def test_every_rank_reads_it_with_its_credentials(
    guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", f"http://user:hunter2@{guarded}", *QUICK, "--work-dir", str(tmp_path / "run")]) == 0
    kept = (tmp_path / "run" / "config.yaml").read_text()
    out, err = capfd.readouterr()
    assert "20 (1 epochs)" in out
    for text in (kept, out, err):
        assert "hunter2" not in text
