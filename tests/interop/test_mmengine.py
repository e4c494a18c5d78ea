"""Samplers in mmengine's Runner."""

from __future__ import annotations

import logging
import os
import warnings
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tests.processes import Starter
from treenail.adapters.sampling import RandomSampler, Shard
from treenail.adapters.sampling.compat.mmengine import DefaultSampler, InfiniteSampler

# What mmengine and the first optimizer would import in each.
IMPORTED_IN_NEW_PROCESSES = ("mmengine.dataset", "mmengine.runner", "matplotlib.pyplot", "torch._dynamo")
SIZE = 43
BATCHES = 6  # of 8 samples
EPOCHS = 3
SEED = 5
BY_EPOCH: dict[str, object] = {"by_epoch": True, "max_epochs": EPOCHS}
BY_ITERATION: dict[str, object] = {"by_epoch": False, "max_iters": EPOCHS * BATCHES}


class Samples(Dataset[dict[str, int]]):
    """Samples as mmengine's models take them."""

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> dict[str, int]:
        return {"inputs": int(index)}


def train(
    directory: Path,
    train_cfg: dict[str, object],
    kind: str,
    *,
    workers: int = 0,
    resume: str | None = None,
    keep_place: bool = False,
) -> list[list[int]]:
    """Train in a Runner and return the samples of each batch."""
    # mmengine 0.10.7 writes objects of its own into checkpoints, which torch >= 2.6 does not load unless it is told
    # to; these checkpoints are the test's own.
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
    warnings.simplefilter("ignore")
    import mmengine.dataset
    from mmengine.hooks import Hook
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    seen: list[list[int]] = []

    class Recorder(BaseModel):  # type: ignore[misc]  # mmengine has no types
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, inputs: Tensor, mode: str) -> dict[str, Tensor]:
            seen.append(inputs.tolist())
            return {"loss": self.weight * inputs.float().mean()}

    class SamplerHook(Hook):  # type: ignore[misc]  # mmengine has no types
        """Keeps a sampler's place in checkpoints; CheckpointHook runs after it."""

        def after_train_iter(self, runner: Runner, *_: object, **__: object) -> None:
            loader = runner.train_dataloader
            sampler = loader.sampler
            (sampler if isinstance(sampler, Shard) else Shard(sampler)).advance(loader.batch_size)

        def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, object]) -> None:
            checkpoint["sampler"] = runner.train_dataloader.sampler.state_dict()

        def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, object]) -> None:
            runner.train_dataloader.sampler.load_state_dict(checkpoint["sampler"])

    samplers = {
        "random": RandomSampler,
        "default": DefaultSampler,
        "infinite": InfiniteSampler,
        "their default": mmengine.dataset.DefaultSampler,
        "their infinite": mmengine.dataset.InfiniteSampler,
    }
    runner = Runner(
        model=Recorder(),
        work_dir=str(directory),
        train_dataloader={
            "dataset": Samples(),
            "sampler": {"type": samplers[kind]},
            "batch_size": 8,
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "collate_fn": {"type": "default_collate"},
        },
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 1e-4}},
        train_cfg=train_cfg,
        default_hooks={
            "checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 1},
            "sampler_seed": {"type": "DistSamplerSeedHook"},
        },
        custom_hooks=[SamplerHook()] if keep_place else [],
        load_from=None if resume is None else str(directory.parent / "whole" / resume),
        resume=resume is not None,
        randomness={"seed": SEED},
        log_level=logging.ERROR,
        experiment_name="test",
    )
    runner.train()
    return seen


def expected() -> list[list[int]]:
    sampler = RandomSampler(SIZE, seed=SEED)
    seen: list[list[int]] = []
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        order = sampler.indices(0, SIZE).tolist()
        seen += [order[start : start + 8] for start in range(0, SIZE, 8)]
    return seen


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_based_run_resumes_with_the_very_next_batch(workers: int, tmp_path: Path, starter: Starter) -> None:
    whole = expected()
    assert starter.launch(train, tmp_path / "whole", 1, BY_EPOCH, "random", workers=workers, keep_place=True) == [whole]
    for step in (BATCHES + 2, 2 * BATCHES):
        resume = f"iter_{step}.pth"
        again = starter.launch(
            train, tmp_path / f"{step}", 1, BY_EPOCH, "random", workers=2 - workers, resume=resume, keep_place=True
        )
        assert again == [whole[step:]], step


def test_an_iteration_based_run_goes_through_epochs_and_resumes_by_itself(tmp_path: Path, starter: Starter) -> None:
    whole = expected()
    assert starter.launch(train, tmp_path / "whole", 1, BY_ITERATION, "random") == [whole]
    # mmengine's loop replays what it has seen; with the sampler's state besides, it would skip as much again.
    again = starter.launch(train, tmp_path / "later", 1, BY_ITERATION, "random", resume=f"iter_{BATCHES + 2}.pth")
    assert again == [whole[BATCHES + 2 :]]
    assert sorted(chain(*whole[:BATCHES])) == list(range(SIZE))


@pytest.mark.parametrize(("kind", "train_cfg"), [("default", BY_EPOCH), ("infinite", BY_ITERATION)])
def test_a_seed_sampler_gives_what_the_original_does_and_resumes(
    kind: str, train_cfg: dict[str, object], tmp_path: Path, starter: Starter
) -> None:
    (theirs,) = starter.launch(train, tmp_path / "theirs", 1, train_cfg, f"their {kind}", workers=1)
    place = kind == "default"
    assert starter.launch(train, tmp_path / "whole", 1, train_cfg, kind, workers=1, keep_place=place) == [theirs]
    assert isinstance(theirs, list)
    assert len(theirs) == EPOCHS * BATCHES
    resume = f"iter_{BATCHES + 2}.pth"
    again = starter.launch(train, tmp_path / "later", 1, train_cfg, kind, workers=2, resume=resume, keep_place=place)
    assert again == [theirs[BATCHES + 2 :]]
