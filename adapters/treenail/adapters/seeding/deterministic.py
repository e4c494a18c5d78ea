"""Operators that give the same bits every time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from treenail.kernel import ConfigError

_VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
_ALLOWED = (":4096:8", ":16:8")


@contextmanager
def deterministic_algorithms(mode: bool | Literal["warn"] = True) -> Iterator[None]:
    """While inside, torch uses only operators that give the same bits on the same machine, as its notes on reproducibility ask.

    cuDNN does not try which algorithm is fastest, cuBLAS keeps to a fixed workspace, and memory that an operator leaves
    uninitialised is filled (torch's ``fill_uninitialized_memory``, which is on by default). All is as before afterwards, but
    for the environment variable that told cuBLAS, once CUDA began: so that it can be known when it is asked for again.
    Seeds are another matter; see `seed_process`. Source: https://docs.pytorch.org/docs/stable/notes/randomness.html

    Args:
        mode: true refuses operators that have no deterministic form, with a RuntimeError that names them; "warn" warns of them;
            false changes nothing.

    Raises:
        ConfigError: The mode is another one; or CUDA runs already, and cuBLAS was not told in time, or was told something else.
    """
    if mode not in (True, False, "warn"):  # written in Python, where nothing checked it
        raise ConfigError(f"{mode!r} is no mode", where="deterministic", mend="choose true, false or warn")
    if not mode:
        yield
        return
    enabled, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    benchmark, workspace = torch.backends.cudnn.benchmark, os.environ.get(_VARIABLE)
    if torch.version.cuda is not None:
        _fix_workspace(workspace)
    torch.use_deterministic_algorithms(True, warn_only=mode == "warn")
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        if workspace is None and not _cuda_began():
            os.environ.pop(_VARIABLE, None)


@contextmanager
def cudnn_benchmark(*, enabled: bool) -> Iterator[None]:
    """While inside, cuDNN tries which algorithm of a convolution is fastest for each size that it meets.

    Source: https://docs.pytorch.org/docs/stable/backends.html#torch.backends.cudnn.benchmark

    Args:
        enabled: False changes nothing.

    Raises:
        ConfigError: Only deterministic algorithms are used; which one is the fastest may be another one each time.
    """
    if not enabled:
        yield
        return
    if torch.are_deterministic_algorithms_enabled():
        raise ConfigError(
            "what cuDNN finds fastest may give other bits each time, which deterministic rules out",
            where="cudnn_benchmark",
            mend="leave out one of them",
        )
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _fix_workspace(given: str | None) -> None:
    if given is None and not _cuda_began():
        os.environ[_VARIABLE] = _ALLOWED[0]
    elif given not in _ALLOWED:
        why = "CUDA was used before, and cuBLAS" if given is None else f"{_VARIABLE} is '{given}', with which cuBLAS"
        raise ConfigError(
            f"{why} may give other bits each time",
            where="deterministic",
            mend=f"set {_VARIABLE}={_ALLOWED[0]} before the process starts",
        )


def _cuda_began() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]  # torch leaves it unannotated
