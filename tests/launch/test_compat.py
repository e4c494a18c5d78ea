"""SCEPTER's `we`: the documented example, what it shows, and that it leaves nothing behind."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from tests.launch.listening import free_port
from tests.launch.tasks import CONFIG, task, task_without_config
from treenail.adapters.launch import RankEnvironment, WorkEnv, we
from treenail.kernel import ConfigError

ROOT = Path(__file__).parents[2]
DEFAULTS = {
    "initialized": False,
    "is_distributed": False,
    "sync_bn": False,
    "rank": 0,
    "world_size": 1,
    "device_id": 0,
    "device_count": 1,
    "use_pl": False,
    "launcher": "spawn",
    "data_online": False,
    "share_storage": False,
    "backend": "",
    "seed": 2023,
    "debug": False,
}
DEVICE = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "DATA_ONLINE", "SHARE_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PROBE_VARIABLE", "")  # restored afterwards


def test_the_documented_example_runs() -> None:
    assert we.init_env(SimpleNamespace(), task_without_config, logger=None) == "done"


@pytest.mark.parametrize("config", [{}, SimpleNamespace(), None], ids=["mapping", "object", "none"])
def test_everything_in_the_config_is_optional(config: object) -> None:
    assert we.init_env(config, task_without_config) == "done"


def test_before_a_task_it_shows_the_documented_defaults() -> None:
    assert we.get_env() == DEFAULTS
    assert repr(we) == f"WorkEnv({', '.join(f'{name}={DEFAULTS[name]!r}' for name in sorted(DEFAULTS))})"


def test_a_task_in_this_process_sees_its_environment_and_its_value_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.device_count() > 1:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setenv("DATA_ONLINE", "true")
    seen = we.init_env(CONFIG, task)
    shown = {"sync_bn": True, "data_online": True, "device_id": DEVICE, "seed": 7}
    assert seen.env == DEFAULTS | shown
    assert (seen.total, seen.config) == (1.0, "probe")
    assert os.environ["PROBE_VARIABLE"] == "3"
    assert we.get_env() == DEFAULTS
    assert we.init_env(CONFIG, task).drawn == seen.drawn


def test_a_task_in_the_group_of_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in RankEnvironment(0, 1, 0, 1, 0, "127.0.0.1", free_port(), "pytorch").variables().items():
        monkeypatch.setenv(name, value)
    seen = we.init_env(CONFIG, task)
    assert seen.env["is_distributed"]
    assert seen.env["initialized"]
    assert seen.env["backend"] == "gloo"
    assert not dist.is_initialized()


def test_without_gpus_several_processes_use_gloo_and_rank_0s_value_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    seen = we.init_env(CONFIG, task)
    shown = {"initialized": True, "is_distributed": True, "world_size": 2, "device_count": 2, "backend": "gloo"}
    assert seen.env == DEFAULTS | shown | {"sync_bn": True, "seed": 7, "device_id": DEVICE}
    assert (seen.total, seen.rank_in_a_thread) == (3.0, 0)
    assert we.get_env() == DEFAULTS


def test_an_error_of_a_task_in_this_process_is_its_own_and_leaves_no_environment() -> None:
    with pytest.raises(ZeroDivisionError):
        we.init_env(CONFIG, lambda config: 1 // 0)
    assert we.get_env() == DEFAULTS


def test_lightning_starts_its_processes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")  # which would be an incomplete environment
    assert we.init_env({"ENV": {"USE_PL": True}}, lambda config: (we.use_pl, we.is_distributed)) == (True, False)


@pytest.mark.parametrize("count", ["0", "two", "-1"])
def test_a_wrong_number_of_processes_is_an_error(count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", count)
    with pytest.raises(ConfigError, match=f"LOCAL_WORLD_SIZE: '{count}' is no number of processes"):
        we.init_env(CONFIG, task)


def test_values_are_set_and_read_by_name_and_stay_in_their_context() -> None:
    def look(config: object) -> dict[str, object]:
        we.set_env({"pipeline": 3, "sync_bn": False, "file": open(os.devnull), "nothing": None, "seed": 11})  # noqa: SIM115
        first = torch.rand(1).item()
        we.debug = True
        we.set_env(we.get_env())
        assert torch.rand(1).item() == first  # a seed that is set seeds the generators
        assert (we.pipeline, we.sync_bn, we.debug) == (3, False, True)
        we.file.close()
        return we.get_env()

    found = we.init_env(CONFIG, look)
    assert (found["pipeline"], found["nothing"]) == (3, None)
    assert "file" not in found  # it cannot be pickled
    pickle.dumps(found)
    with pytest.raises(AttributeError, match="the working environment has no 'pipeline'; set_env gives it one"):
        _ = we.pipeline


def test_an_environment_of_ones_own_is_the_same_one() -> None:
    assert WorkEnv().init_env(CONFIG, lambda config: we.seed) == 7


def test_the_module_starts_no_process_and_no_group_by_itself() -> None:
    program = (
        "import threading, multiprocessing, torch.distributed as dist\n"
        "from treenail.adapters.launch import we\n"
        "print(threading.active_count(), multiprocessing.active_children(), dist.is_initialized(), we.rank)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1 [] False 0\n"
