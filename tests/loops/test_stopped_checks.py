"""Runs that are asked to stop while they are only checked: in the sanity validation."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
import torch
from tests.hooks.small_runs import Points, small_run
from torch import Tensor, nn

from treenail.adapters.comm import run_threads
from treenail.adapters.data import Loader
from treenail.adapters.loops import EvalLoop
from treenail.adapters.runtime import train
from treenail.adapters.runtime.limits import check_validation
from treenail.adapters.runtime.ranks import StopVote
from treenail.adapters.sampling import SequentialSampler
from treenail.contracts import Evaluation, Limits, Run
from treenail.kernel import Communicator, Engine, spec


class Signals(Points):
    """Points whose first one sends this process a signal."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__getitem__(index)


def checked(dataset: type[Points], **limits: float) -> Run:
    val = Evaluation(dataset=spec(dataset)(), batch_size=2)
    return msgspec.structs.replace(small_run(), val=val, limits=Limits(sanity_batches=8, **limits))  # type: ignore[arg-type]  # of seconds


def test_a_signal_ends_a_sanity_validation_and_no_step_follows(tmp_path: Path) -> None:
    summary = train(checked(Signals), tmp_path)
    assert (summary.step, summary.stop_reason, summary.checkpoints) == (0, "SIGTERM", None)
    whole = train(checked(Points), tmp_path)
    assert whole.step == 8, "the directory is begun anew"


def test_so_does_the_limit_of_time(tmp_path: Path) -> None:
    summary = train(checked(Points, max_seconds=1e-3), tmp_path)
    assert (summary.step, summary.stop_reason) == (0, "limit of time")


def test_ranks_end_it_at_the_same_batch() -> None:
    def stop(ranks: Communicator) -> tuple[int, str | None]:
        engine = Engine(agree=StopVote(ranks))
        seen = 0

        class Stops(Points):
            def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
                nonlocal seen
                seen += 1
                if ranks.rank == 1 and seen == 3:
                    engine.request_stop("enough")
                return super().__getitem__(index)

        def refuse(results: Mapping[str, float]) -> None:
            pytest.fail(f"results of an interrupted validation: {results}")

        batches = Loader(Stops(), SequentialSampler(16), batch_size=2, rank=ranks.rank, world_size=ranks.world_size)
        model = nn.Linear(4, 1)
        check_validation(lambda _: EvalLoop("val", model, nn.MSELoss(), batches, communicator=ranks), engine, refuse)
        return seen, engine.stop_reason

    torch.manual_seed(0)
    first, second = run_threads(2, stop)
    assert first[1] == second[1] == "enough"
    assert first[0] == second[0] < 8
