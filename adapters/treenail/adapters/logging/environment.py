"""What a process runs on: versions, devices, the commit of the code around it."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from treenail.kernel import FileError

ENVIRONMENT: Final = "environment.jsonl"
"""The file of a work directory that has a line for each attempt of its run."""
_GIT_SECONDS: Final = 5.0
"""A repository on a slow disk must not keep a run from beginning."""


def collect_environment(directory: Path | None = None) -> dict[str, object]:
    """Return what this process runs on, as plain data.

    Args:
        directory: Whose git commit is told, if it lies in a repository; the current directory when None.

    Returns:
        host, pid, platform, cpus, python; torch, cuda and cudnn (what torch was built with), threads (of an operator), gpus
        (their names); git (commit, and whether files that it knows were changed; None outside a repository); packages (version
        by name).
    """
    import torch  # who reads logs needs none

    available = torch.cuda.is_available()
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if available else None,  # type: ignore[no-untyped-call]  # torch left it
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] if available else [],
        "git": git_state(directory or Path()),
        "packages": installed_packages(),
    }


def record_environment(directory: Path, facts: Mapping[str, object]) -> dict[str, object]:
    """Add a line about this process to ``environment.jsonl`` in a directory, and return it without the packages.

    Args:
        directory: A run's work directory.
        facts: What else the line has, first in it: attempt, seed …

    Raises:
        FileError: The file cannot be written.
    """
    report = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **facts, **collect_environment()}
    path = directory / ENVIRONMENT
    try:
        with path.open("ab") as file:
            file.write(msgspec.json.encode(report, enc_hook=str) + b"\n")
    except OSError as error:
        raise FileError(f"cannot write: {error.strerror}", where=str(path)) from error
    return {name: value for name, value in report.items() if name not in ("time", "packages")}


def git_state(directory: Path) -> dict[str, object] | None:
    """Return ``{"commit": …, "changed": …}`` of the repository that a directory lies in; None outside one, or without git.

    Args:
        directory: Where to look.
    """
    commit = _git(directory, "rev-parse", "HEAD")
    if commit is None or commit.returncode:
        return None
    difference = _git(directory, "diff", "--no-ext-diff", "--quiet", "HEAD", "--")
    changed = difference.returncode != 0 if difference is not None else None  # None: it took too long to find out
    return {"commit": commit.stdout.strip(), "changed": changed}


def _git(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str] | None:
    # What a repository's settings would let git run stays out; and its index is not locked against somebody's commit.
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(directory), *arguments]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def installed_packages() -> dict[str, str]:
    """Return the version of each package on the import path by its name.

    Their directories are named ``NAME-VERSION.dist-info`` (packaging.python.org, "Recording installed projects"), which is
    known much faster than what they hold.
    """
    found: dict[str, str] = {}
    for folder in sys.path:
        for path in Path(folder or ".").glob("*.dist-info"):
            name, _, version = path.name.removesuffix(".dist-info").rpartition("-")
            found.setdefault(name, version)  # the first one on the path is what is imported
    return dict(sorted(found.items()))


__all__ = ["ENVIRONMENT", "collect_environment", "git_state", "installed_packages", "record_environment"]
