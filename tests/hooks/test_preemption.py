"""Runs that are told to stop, or to save, by signals; and jobs that go back into their queue."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from math import inf
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from tests.hooks.small_runs import listening, reason_of, small_run
from tests.processes import Starter
from treenail.adapters.comm import TorchCommunicator, run_threads
from treenail.adapters.hooks.requeue import RequeueHook
from treenail.adapters.launch import detect, process_group
from treenail.adapters.runtime import StopVote, train
from treenail.contracts import Checkpoints, Data, Run
from treenail.kernel import Communicator, Engine, Hook, Spec, spec


class Signals(Hook):
    """Sends signals to this process at a hook point of a step.

    Args:
        point: Where.
        numbers: Which, one after another.
        step: Committed steps then.
        rank: On which rank only.
    """

    priority = 97

    def __init__(self, point: str, *numbers: int, step: int = 2, rank: int | None = None) -> None:
        self.point = point
        self.numbers = list(numbers)
        self.step = step
        self.rank = rank

    def _at(self, point: str, engine: Engine) -> None:
        here = self.rank is None or os.environ.get("RANK") == str(self.rank)
        if here and point == self.point and engine.step == self.step and engine.attempt == 1:
            while self.numbers:
                os.kill(os.getpid(), self.numbers.pop(0))

    def before_train_iter(self, engine: Engine, batch_index: int, batch: object) -> None:
        self._at("before_train_iter", engine)

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        self._at("after_train_iter", engine)

    def after_val_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        self._at("after_val_iter", engine)

    def before_save_checkpoint(self, engine: Engine, checkpoint: dict[str, object]) -> None:
        self._at("before_save_checkpoint", engine)


def saved(work_dir: Path) -> list[tuple[int, str]]:
    """Return step and reason of every checkpoint that stayed."""
    manifests = [json.loads(path.read_text()) for path in (work_dir / "checkpoints").glob("*/manifest.json")]
    return sorted((each["step"], each["reason"]) for each in manifests)


def weights(work_dir: Path) -> torch.Tensor:
    from safetensors.torch import load_file

    latest = (work_dir / "checkpoints" / "latest").read_text()
    tensors = load_file(work_dir / "checkpoints" / latest / "state.safetensors")
    return torch.cat([tensors[name].flatten().double() for name in sorted(tensors) if name.startswith("model")])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    work_dir = tmp_path_factory.mktemp("undisturbed")
    train(small_run(2), work_dir)
    return weights(work_dir)


@pytest.mark.parametrize(
    ("point", "at", "numbers", "stopped_at"),
    [
        ("before_train_iter", 2, [signal.SIGUSR1], 3),
        ("after_train_iter", 2, [signal.SIGUSR1, signal.SIGUSR1], 3),
        ("after_train_iter", 2, [signal.SIGUSR1, signal.SIGTERM], 3),
        ("after_val_iter", 4, [signal.SIGUSR1], 4),
        ("before_save_checkpoint", 4, [signal.SIGUSR1], 4),
        ("before_save_checkpoint", 4, [signal.SIGTERM], 4),
    ],
)
def test_a_run_stops_at_a_commit_with_a_checkpoint_from_which_it_goes_on(
    tmp_path: Path, undisturbed: torch.Tensor, point: str, at: int, numbers: list[int], stopped_at: int
) -> None:
    summary = train(small_run(2, signals=spec(Signals)(point, *numbers, step=at)), tmp_path)
    name = signal.Signals(numbers[0]).name
    assert (summary.stop_reason, summary.step) == (name, stopped_at)
    assert reason_of(tmp_path) == name
    on = train(small_run(2, signals=spec(Signals)("none")), tmp_path, resume="latest", allow_changes=True)
    assert (on.step, on.stop_reason) == (8, None)
    assert torch.equal(weights(tmp_path), undisturbed)


@pytest.mark.parametrize(
    ("point", "at", "stands"), [("after_train_iter", 2, 3), ("after_val_iter", 4, 4), ("before_save_checkpoint", 4, 4)]
)
def test_sigusr2_saves_at_a_commit_and_the_run_goes_on(
    tmp_path: Path, undisturbed: torch.Tensor, point: str, at: int, stands: int
) -> None:
    numbers = [signal.SIGUSR2, signal.SIGUSR2]
    run = small_run(2, signals=spec(Signals)(point, *numbers, step=at))
    summary = train(run, tmp_path)
    assert (summary.stop_reason, summary.step) == (None, 8)
    reasons = {step for step, reason in saved(tmp_path) if "SIGUSR2" in reason}
    assert reasons == {stands}, saved(tmp_path)
    assert torch.equal(weights(tmp_path), undisturbed)


def test_a_signal_saves_where_no_hook_does(tmp_path: Path) -> None:
    train(small_run(2, checkpoint=None, signals=spec(Signals)("after_train_iter", signal.SIGUSR2)), tmp_path / "a")
    assert saved(tmp_path / "a") == [(3, "SIGUSR2")]
    train(small_run(2, checkpoint=None, signals=spec(Signals)("after_train_iter", signal.SIGUSR1)), tmp_path / "b")
    assert saved(tmp_path / "b") == [(3, "SIGUSR1")]


def test_handlers_are_those_before_when_a_run_is_over(tmp_path: Path) -> None:
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]
    mine = [lambda number, frame: None for _ in numbers]
    before = [signal.signal(number, handler) for number, handler in zip(numbers, mine, strict=True)]
    try:
        train(small_run(1), tmp_path)
        assert [signal.getsignal(number) for number in numbers] == mine
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class Forks(Hook):
    """Forks processes in the middle of a run, and writes down by what they ended."""

    def __init__(self, ended: str, numbers: tuple[int, ...]) -> None:
        self.ended = Path(ended)
        self.numbers = numbers

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        if engine.step == 1:
            codes = []
            for number in self.numbers:
                child = multiprocessing.get_context("fork").Process(target=_kill_itself, args=(number,))
                child.start()
                child.join(60)
                codes.append(child.exitcode)
            self.ended.write_text(json.dumps(codes))


def _kill_itself(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)
    os._exit(7)


def test_in_a_forked_process_signals_do_what_they_did_before(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        hook = spec(Forks)(str(ended), (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2))
        summary = train(small_run(1, forks=hook), tmp_path / "run")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert json.loads(ended.read_text()) == [-signal.SIGTERM, 7, 7]
    assert (summary.step, summary.stop_reason) == (4, None), "the run was stopped by a signal to another process"


class SignalsToAll(Hook):
    """Sends a signal to this process and all that it has started, as Slurm does."""

    def __init__(self, number: int) -> None:
        self.number = number

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        if engine.step == 1:
            workers = [each for each in multiprocessing.active_children() if each.daemon]  # not the tests' own
            assert workers, "there is no loader process, and nothing is tested"
            for pid in [each.pid for each in workers] + [os.getpid()]:
                os.kill(pid or 0, self.number)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_loader_processes_outlive_a_signal_to_all(tmp_path: Path, number: int) -> None:
    run = small_run(1, signals=spec(SignalsToAll)(number))
    workers = Data(dataset=run.train.dataset, batch_size=2, num_workers=1)
    fields = {name: getattr(run, name) for name in run.__struct_fields__}
    summary = train(Run(**{**fields, "train": workers}), tmp_path)
    assert summary.step == (2 if number == signal.SIGUSR1 else 8)
    assert (2, signal.Signals(number).name) in saved(tmp_path)


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a script of this name on PATH, which writes down its arguments; return what it wrote."""
    script, written = tmp_path / "bin" / "scontrol", tmp_path / "requeued"
    script.parent.mkdir()
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {written}\n[ "$2" != 13 ] || {{ echo "Job 13 is gone" >&2; exit 1; }}\n'
        '[ "$2" != 99 ] || exec sleep 60\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    return written


def stopped_engine(reason: str | None) -> Engine:
    engine = Engine()
    if reason is not None:
        engine.request_stop(reason)
    return engine


def test_a_preempted_run_is_saved_and_then_requeued_once(tmp_path: Path, scontrol: Path) -> None:
    said = listening()
    hooks: dict[str, Spec[Hook]] = {
        "signals": spec(Signals)("after_train_iter", signal.SIGUSR1),
        "requeue": spec(RequeueHook)(terminal=said.terminal),
    }
    train(small_run(2, **hooks), tmp_path / "run")
    assert scontrol.read_text() == "requeue 4711\n"
    assert reason_of(tmp_path / "run") == "SIGUSR1"
    assert "requeued" in said.text


@pytest.mark.parametrize(
    ("reason", "environment", "hook", "why"),
    [
        (None, {}, RequeueHook(), None),
        ("SIGTERM", {}, RequeueHook(), None),
        ("early stopping: enough", {}, RequeueHook(), None),
        ("SIGUSR1", {"SLURM_JOB_ID": ""}, RequeueHook(), "SLURM_JOB_ID is not set; is this a job of Slurm's?"),
        ("SIGUSR1", {"SLURM_RESTART_COUNT": "2"}, RequeueHook(max_restarts=2), "restarted 2 times already"),
        ("SIGUSR1", {"SLURM_JOB_ID": "13"}, RequeueHook(), "it ended with 1: Job 13 is gone"),
        ("SIGUSR1", {"SLURM_JOB_ID": "99"}, RequeueHook(timeout=0.2), "it took more than 0.2 s"),
        ("SIGUSR1", {}, RequeueHook(command=["no-such-command"]), "no-such-command: No such file"),
    ],
)
def test_a_run_that_is_not_requeued_says_why_where_it_was_to_be(
    scontrol: Path,
    monkeypatch: pytest.MonkeyPatch,
    reason: str | None,
    environment: dict[str, str],
    hook: RequeueHook,
    why: str | None,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    said = listening()
    hook._terminal = said.terminal
    hook.after_run(stopped_engine(reason))
    assert ("not requeued" in said.text) == (why is not None)
    assert why is None or why in said.text
    assert scontrol.exists() == (environment.get("SLURM_JOB_ID") in ("13", "99"))


def test_a_preempted_job_of_slurm_gets_sigterm(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    RequeueHook(signals=["SIGTERM"], max_restarts=2).after_run(stopped_engine("SIGTERM"))
    assert scontrol.read_text() == "requeue 4711\n"


def test_only_rank_0_requeues(scontrol: Path) -> None:
    def work(ranks: Communicator) -> None:
        RequeueHook(communicator=ranks).after_run(stopped_engine("SIGUSR1"))

    run_threads(3, work)
    assert scontrol.read_text() == "requeue 4711\n"


@pytest.mark.parametrize(
    "arguments",
    [
        {"signals": []},
        {"signals": ["SIGKILL"]},
        {"command": []},
        {"command": "scontrol requeue 1"},
        {"timeout": 0.0},
        {"timeout": inf},
        {"max_restarts": -1},
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any]) -> None:  # Any: each its own
    with pytest.raises(ValueError):
        RequeueHook(**arguments)


def test_ranks_agree_on_a_checkpoint_that_one_of_them_wishes() -> None:
    def work(ranks: Communicator) -> list[tuple[int, str]]:
        saves: list[tuple[int, str]] = []
        call = 0
        vote = StopVote(ranks, save=lambda reason: saves.append((call, reason)))
        for call in range(40):
            if ranks.rank == 1 and call == 3:
                vote.request_checkpoint("SIGUSR2")
            if ranks.rank == 0 and call in (3, 4):
                vote.request_checkpoint("SIGUSR2 of rank 0")
            vote.before_val(Engine())
            assert vote(None) is None
        return saves

    first, second = run_threads(2, work)
    assert first == second
    assert [call for call, _ in first] == [3, 4]


def ranked(directory: Path) -> list[object]:
    """Train on the ranks that the environment names; the second one gets both signals."""
    hooks: dict[str, Spec[Hook]] = {
        "save": spec(Signals)("after_train_iter", signal.SIGUSR2, step=2, rank=1),
        "stop": spec(Signals)("after_train_iter", signal.SIGUSR1, step=9, rank=1),
    }
    run = small_run(400, stragglers=None, **hooks)
    with process_group(detect("pytorch"), "gloo", 60.0):
        summary = train(run, directory / "run", communicator=TorchCommunicator(timeout=60.0))
    return [summary.stop_reason, summary.step]


def test_of_two_ranks_only_one_gets_the_signals(tmp_path: Path, starter: Starter) -> None:
    first, second = starter.launch(ranked, tmp_path, 2)
    assert first == second
    assert isinstance(first, list)
    assert first[0] == "SIGUSR1"
    assert 9 < first[1] < 1600
    reasons = [reason for _, reason in saved(tmp_path / "run")]
    assert "SIGUSR1" in reasons


class FailsOnRank1(Hook):
    """Raises on the second rank.

    Args:
        point: Where.
    """

    def __init__(self, point: str) -> None:
        self.point = point

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        self._at("after_train_iter", engine)

    def after_run(self, engine: Engine) -> None:
        self._at("after_run", engine)

    def _at(self, point: str, engine: Engine) -> None:
        ranks = TorchCommunicator(timeout=60.0)
        if point == self.point and ranks.rank == 1 and engine.step >= 2:
            raise ArithmeticError("wrong")


def failing(directory: Path) -> list[object]:
    """Return how the runs of this rank end, of which a hook fails on rank 1."""
    ends: list[object] = []
    with process_group(detect("pytorch"), "gloo", 60.0):
        ranks = TorchCommunicator(timeout=60.0)
        run = small_run(2, stragglers=None, fails=spec(FailsOnRank1)((directory / "point").read_text()))
        run = msgspec.structs.replace(run, checkpoints=Checkpoints(asynchronous=False))
        try:
            train(run, directory / "run", communicator=ranks)
        except Exception as error:
            ends += [type(error).__name__, str(error)]
    return ends


@pytest.mark.parametrize("point", ["after_train_iter", "after_run"])
def test_a_hook_that_fails_on_one_rank_fails_the_run_on_all(tmp_path: Path, starter: Starter, point: str) -> None:
    (tmp_path / "point").write_text(point)
    first, second = starter.launch(failing, tmp_path, 2)
    assert second == ["ArithmeticError", "wrong"]
    assert isinstance(first, list)
    assert first[:1] == ["CommunicationError"]
    assert f"rank 1: ArithmeticError: wrong (raised by hook 'fails' at {point})" in first[1]
