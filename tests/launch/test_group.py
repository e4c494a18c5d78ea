"""The process group of a process that a launcher started, in this process and in two."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.launch.listening import free_port, is_loopback, listening_addresses
from tests.launch.ranks import initialise, meet_twice
from tests.processes import Starter
from treenail.adapters.launch import RankEnvironment, available_backends, detect, init_dist, process_group
from treenail.kernel import CommunicationError, ConfigError

ROOT = Path(__file__).parents[2]


def alone(port: int | None = None) -> RankEnvironment:
    return RankEnvironment(0, 1, 0, 1, 0, "127.0.0.1", port or free_port(), "pytorch")


def test_without_an_environment_there_is_no_group() -> None:
    with process_group(None):
        assert not dist.is_initialized()


def test_a_group_lives_as_long_as_its_block_and_listens_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    environment = alone()
    for _ in range(2):  # the port is free again
        with process_group(environment, timeout=30):
            assert dist.get_world_size() == 1
            listening = listening_addresses(os.getpid())
            assert listening
            assert [address for address in listening if not is_loopback(address)] == []
        assert not dist.is_initialized()
        assert "GLOO_SOCKET_IFNAME" not in os.environ


def test_a_group_ends_with_an_error_of_its_block() -> None:
    with pytest.raises(ValueError, match="torn"), process_group(alone(), timeout=30):
        raise ValueError("torn")
    assert not dist.is_initialized()


def test_a_group_that_its_block_destroyed_is_no_error() -> None:
    environment = alone()
    with process_group(environment, timeout=30):
        dist.destroy_process_group()
    with process_group(environment, timeout=30):  # its port is free again
        assert dist.get_world_size() == 1


def test_a_group_in_a_group_is_refused() -> None:
    with (
        process_group(alone(), timeout=30),
        pytest.raises(ConfigError, match="there is a process group already"),
        process_group(alone()),
    ):
        pass


def test_a_taken_port_is_an_error_that_says_so() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(ConfigError, match=r"127.0.0.1:\d+: port \d+ is taken by another process; choose another one"),
        process_group(alone(server.getsockname()[1]), timeout=30),
    ):
        pass


def test_a_rank_that_does_not_come_is_named() -> None:
    first = RankEnvironment(0, 3, 0, 3, 0, "127.0.0.1", free_port(), "pytorch")
    with (
        pytest.raises(CommunicationError, match="rank 0 waited 1 s, but ranks 1, 2 of 3 did not come"),
        process_group(first, timeout=1.0),
    ):
        pass


def test_a_store_that_is_not_there_is_an_error() -> None:
    second = RankEnvironment(1, 2, 1, 2, 0, "127.0.0.1", free_port(), "pytorch")
    with pytest.raises(CommunicationError, match="nobody listened within 1 s"), process_group(second, timeout=1.0):
        pass


@pytest.mark.parametrize("timeout", [0, -1.0])
def test_a_timeout_without_time_is_refused(timeout: float) -> None:
    with pytest.raises(ConfigError, match=r"a timeout of .* s is none"), process_group(alone(), timeout=timeout):
        pass


@pytest.mark.parametrize("name", ["nccl", "mpi", "ucc", "xccl"])
def test_a_backend_that_torch_was_built_without_is_refused_with_those_it_has(name: str) -> None:
    if dist.is_backend_available(name):
        pytest.skip(f"this torch has {name}")
    message = f"built without backend '{name}'; it has {', '.join(available_backends())}"
    with pytest.raises(ConfigError, match=message), process_group(alone(), name):
        pass


def test_a_backend_of_somebody_else_is_passed_through() -> None:
    dist.Backend.register_backend("theirs", dist.ProcessGroupGloo, devices=["cpu"])
    with process_group(alone(), "theirs", timeout=30):
        total = torch.ones(1)
        dist.all_reduce(total)
        assert (dist.get_backend(), total.item()) == ("theirs", 1.0)


def test_further_arguments_go_to_torch() -> None:
    match = r"cannot initialise backend 'gloo': .*must be an accelerator"
    with pytest.raises(CommunicationError, match=match), process_group(alone(), device_id=torch.device("cpu")):
        pass
    with (
        pytest.raises(CommunicationError, match=r"unexpected keyword argument 'device_di'"),
        process_group(alone(), device_di=0),
    ):
        pass
    assert not dist.is_initialized()


def test_ranks_that_their_users_started_meet_at_rank_0(tmp_path: Path, starter: Starter) -> None:
    """Two processes with nothing but environment variables: as mpirun or a scheduler starts them."""
    assert starter.launch(meet_twice, tmp_path, 2, free_port()) == [2.0, 2.0]


class TestInitDist:
    """mmengine's `init_dist`; it lasts until the process ends, so it runs in one of its own."""

    def test_it_initialises_from_the_launchers_variables(self, tmp_path: Path, starter: Starter) -> None:
        assert starter.launch(initialise, tmp_path, 1) == [[0, 1, "gloo"]]

    @pytest.mark.parametrize("launcher", ["none", "spawn", "auto", "dask"])
    def test_an_unknown_launcher_is_refused(self, launcher: str) -> None:
        with pytest.raises(ConfigError, match=f"no launcher '{launcher}'; known are pytorch, slurm, mpi"):
            init_dist(launcher)

    def test_missing_variables_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RANK", raising=False)
        with pytest.raises(ConfigError, match=r"launcher 'pytorch' needs the environment variable.* RANK"):
            init_dist("pytorch", "gloo")

    def test_nccl_without_gpus_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
        for name, value in alone().variables().items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ConfigError, match="nccl"):
            init_dist("pytorch")

    @pytest.mark.parametrize(("argument", "value"), [("port", "one"), ("port", -3), ("timeout", "long")])
    def test_wrong_arguments_are_refused(self, argument: str, value: object) -> None:
        with pytest.raises(ConfigError, match=f"{argument}="):
            init_dist("slurm", "gloo", **{argument: value})


def test_detect_reads_the_environment_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in alone(29512).variables().items():
        monkeypatch.setenv(name, value)
    assert detect() == alone(29512)._replace(store_is_hosted=False)
