"""Worlds of real gloo processes: four processes are started once and form one world after another."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessException, start_processes

from tests.parallel.forks import fork_server

Check = Callable[[Path], None]
"""Runs on every rank of a world, with a directory that all worlds share; asserts what it expects."""

PROCESSES = 4
_PATIENCE = timedelta(seconds=60)


def run_worlds(worlds: Sequence[tuple[int, Sequence[Check]]], directory: Path) -> dict[str, str]:
    """Run the checks of each world, one world after another; returns the traceback of each that failed, by its name."""
    failures: dict[str, str] = {}
    try:
        fork_server()
        start_processes(  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            _process, args=(worlds, directory), nprocs=PROCESSES, start_method="forkserver"
        )
    except ProcessException as error:
        failures["all"] = str(error)
    for path in sorted(directory.glob("failures-*.json")):
        for name, text in json.loads(path.read_text()).items():
            failures[name] = f"{failures.get(name, '')}\n{path.stem}:\n{text}"
    return failures


def name_of(world_size: int, check: Check) -> str:
    return f"{world_size}: {check.__name__}"


def _process(process: int, worlds: Sequence[tuple[int, Sequence[Check]]], directory: Path) -> None:
    torch.set_num_threads(1)
    failures: dict[str, str] = {}
    try:
        for number, (world_size, checks) in enumerate(worlds):
            if process < world_size:
                meeting = (directory / f"rendezvous-{number}").as_uri()
                dist.init_process_group(
                    "gloo", init_method=meeting, rank=process, world_size=world_size, timeout=_PATIENCE
                )
                _run_checks(world_size, checks, directory, failures)
                dist.destroy_process_group()
    finally:
        (directory / f"failures-{process}.json").write_text(json.dumps(failures))


def _run_checks(world_size: int, checks: Sequence[Check], directory: Path, failures: dict[str, str]) -> None:
    for check in checks:
        name = name_of(world_size, check)
        try:
            check(directory)
        except BaseException:  # a check must not keep the others from being run
            failures[name] = traceback.format_exc()
        try:
            dist.barrier()
        except RuntimeError as error:  # ranks parted in this check, and this world is at its end
            failures.setdefault(name, "another rank failed")
            rest = checks[checks.index(check) + 1 :]
            failures |= {name_of(world_size, other): f"not run after '{name}': {error}" for other in rest}
            return


def shared_directory(name: str, factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Return a directory that all test workers of this session share, for `once` to make."""
    base = factory.getbasetemp()
    is_worker = hasattr(request.config, "workerinput")  # each worker of pytest-xdist has a directory in a common one
    return (base.parent if is_worker else base) / name


def once(directory: Path, run: Callable[[], Mapping[str, str]]) -> dict[str, str]:
    """Run something in one of the test workers that share a directory, and give its result to all."""
    result = directory / "result.json"
    try:
        directory.mkdir()
    except FileExistsError:
        deadline = time.monotonic() + 300
        while not result.exists():
            if time.monotonic() > deadline:
                raise TimeoutError("another worker was to run the worlds, and has not") from None
            time.sleep(0.1)
    else:
        found: Mapping[str, str] = {}
        try:
            found = run()
        except BaseException:
            found = {"all": traceback.format_exc()}
            raise
        finally:
            unfinished = result.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(found))
            os.replace(unfinished, result)
    loaded: dict[str, str] = json.loads(result.read_text())
    return loaded
