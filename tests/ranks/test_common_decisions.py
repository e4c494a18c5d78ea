"""What ranks decide together, and what they hear of each other's failures."""

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
import torch
import torch.distributed as dist
from torch.distributed import HashStore  # type: ignore[attr-defined]  # it is there, but not for mypy

from treenail.adapters.comm import TorchCommunicator, current_communicator, run_threads
from treenail.adapters.runtime import RankRng, StopVote, choose_place, failures_told, on_rank_0
from treenail.kernel import CommunicationError, Communicator, ConfigError, Engine, TreenailError


def stops_at(communicator: Communicator, calls_before: int) -> int:
    """Vote through a phase of quick calls; rank 1 wants to stop in the next phase. Return at which call of it they do."""
    vote = StopVote(communicator)
    for _ in range(calls_before):
        assert vote(None) is None
    vote.before_val(Engine())
    for call in range(200):
        if vote("enough" if communicator.rank == 1 else None) == "enough":
            return call
    return -1


@pytest.mark.parametrize("calls_before", [0, 1, 300])
def test_a_stop_is_heard_at_once_in_a_new_phase_by_all_ranks(calls_before: int) -> None:
    assert run_threads(3, stops_at, calls_before) == [0, 0, 0]


def fails_on_rank_0(communicator: Communicator, error: Exception) -> str:
    def act() -> None:
        raise error

    with pytest.raises(TreenailError) as caught:
        on_rank_0(communicator, act)
    return str(caught.value)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConfigError("no", mend="yes"), "no; yes"),
        (OSError("the disk is full"), "rank 0 failed: OSError: the disk is full"),
    ],
)
def test_what_fails_on_rank_0_is_the_error_of_every_rank(error: Exception, message: str) -> None:
    assert run_threads(3, fails_on_rank_0, error) == [message] * 3


def work(communicator: Communicator) -> None:
    with failures_told(communicator):
        if communicator.rank == 1:
            raise ArithmeticError("the sum is wrong")
        communicator.barrier()


def fails_on_rank_1(communicator: Communicator) -> str:
    with pytest.raises((ArithmeticError, CommunicationError)) as caught:
        work(communicator)
    return str(caught.value)


def test_what_fails_on_one_rank_is_told_to_the_others() -> None:
    first, second, third = run_threads(3, fails_on_rank_1)
    assert second == "the sum is wrong"
    assert "rank 1: ArithmeticError: the sum is wrong" in first
    assert "rank 1: ArithmeticError: the sum is wrong" in third


def numbers_after(communicator: Communicator, state: dict[str, object], streams: list[int]) -> list[float]:
    generators = RankRng(communicator, streams[communicator.rank])
    for rank in range(communicator.world_size):  # threads share torch's generator, so one rank at a time
        communicator.barrier()
        if rank == communicator.rank:
            generators.load_state_dict(state)
            drawn: list[float] = torch.rand(3).tolist()
    communicator.barrier()
    return drawn


def test_ranks_of_another_number_draw_their_own_numbers_and_those_of_one_stream_the_same() -> None:
    before = torch.get_rng_state()
    try:
        (state,) = run_threads(1, lambda communicator: RankRng(communicator, 0).state_dict())
        first, second, third = run_threads(3, numbers_after, state, [0, 1, 1])
    finally:
        torch.set_rng_state(before)
    assert first != second
    assert second == third


def test_a_restart_goes_on_in_the_directory_of_its_own_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "run.yaml"
    ours = choose_place(config, None, resume=False, launch="ours")
    theirs = choose_place(config, None, resume=False, launch="theirs")
    assert ours.work_dir != theirs.work_dir
    (theirs.work_dir / "checkpoints").mkdir()
    (theirs.work_dir / "checkpoints" / "latest").write_text("step-00000001")
    assert choose_place(config, None, resume=False, launch="ours")[:2] == (ours.work_dir, False)
    assert choose_place(config, None, resume=False, launch="theirs")[:2] == (theirs.work_dir, True)
    with pytest.raises(ConfigError, match="holds a run already"):
        choose_place(config, theirs.work_dir, resume=False, launch="another")


@pytest.fixture
def one_process() -> Iterator[None]:
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_an_error_of_the_user_is_not_taken_for_one_of_torch() -> None:
    error = RuntimeError("Connection to the data store timed out")
    assert TorchCommunicator().cause_of(error) is None


@pytest.mark.usefixtures("one_process")
def test_threads_of_a_process_have_the_same_communicator() -> None:
    found: list[Communicator] = []
    thread = Thread(target=lambda: found.append(current_communicator()))
    thread.start()
    thread.join()
    assert found == [current_communicator()]
