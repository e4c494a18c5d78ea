"""What is written down of the machine and the code that a run was run on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from treenail.adapters.logging import collect_environment, record_environment
from treenail.adapters.logging.compat import collect_env
from treenail.adapters.logging.environment import git_state
from treenail.kernel import FileError


def git(directory: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *settings, "-C", str(directory), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_commit_of_the_code_and_whether_it_was_changed(tmp_path: Path) -> None:
    inside = tmp_path / "project"
    inside.mkdir()
    assert git_state(inside) is None, "no repository"
    git(inside, "init", "-q")
    assert git_state(inside) is None, "no commit"
    (inside / "model.py").write_text("width = 1\n")
    git(inside, "add", ".")
    git(inside, "commit", "-q", "-m", "first")
    commit = git(inside, "rev-parse", "HEAD")
    assert git_state(inside) == {"commit": commit, "changed": False}
    (inside / "model.py").write_text("width = 2\n")
    assert git_state(inside) == {"commit": commit, "changed": True}


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert collect_environment()["git"] is None


def test_a_message_of_gits_in_any_encoding_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "git"
    script.write_bytes(b"#!/bin/sh\necho 'fatal: pas de d\xe9p\xf4t' >&2\nexit 128\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert git_state(tmp_path) is None


def test_versions_are_those_that_are_imported() -> None:
    found = collect_environment()
    packages = found["packages"]
    assert isinstance(packages, dict)
    assert packages["pytest"] == pytest.__version__
    assert found["python"] == sys.version.split()[0]
    assert found["threads"] == torch.get_num_threads()
    assert collect_env()["PyTorch"] == found["torch"] == torch.__version__


def test_names_are_those_of_mmengine() -> None:
    utils = pytest.importorskip("mmengine.utils.dl_utils")
    theirs, ours = utils.collect_env(), collect_env()
    # Numbers of a random generator, compilers and other vendors' chips are left out.
    left_out = {"numpy_random_seed", "MUSA available", "GCC", "CUDA_HOME", "NVCC", "MSVC"}
    assert set(theirs) - left_out <= set(ours)
    for name in ("sys.platform", "Python", "CUDA available", "PyTorch", "MMEngine"):
        assert ours[name] == theirs[name]


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot write"):
        record_environment(tmp_path / "missing", {})
