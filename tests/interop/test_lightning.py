"""Samplers in Lightning's Trainer."""

from __future__ import annotations

import logging
import warnings
from itertools import chain
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from tests.indices import Indices
from tests.interop.processes import launch
from treenail.adapters.interop.lightning import SamplerCallback
from treenail.adapters.sampling import BucketBatchSampler, RandomSampler, Shard
from treenail.kernel import StateError

SIZE = 103
BATCHES = 13  # of 8 samples
EPOCHS = 3


class Recorder(LightningModule):
    """Trains one number and notes the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []

    def training_step(self, batch: Tensor) -> Tensor:
        self.seen.append(batch.tolist())
        return self.weight * batch.float().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-4)


class ShardedRecorder(Recorder):
    """Makes its loader where Lightning knows the processes."""

    def __init__(self, sampler: RandomSampler, *, shard: bool = True) -> None:
        super().__init__()
        self.sampler, self.shard = sampler, shard

    def train_dataloader(self) -> DataLoader[int]:
        given = Shard(self.sampler) if self.shard else self.sampler
        return DataLoader(Indices(SIZE), batch_size=8, sampler=given, num_workers=1)


def fit(
    directory: Path,
    model: LightningModule,
    *callbacks: Callback,
    loader: DataLoader[int] | None = None,
    resume: str | None = None,
    world_size: int = 1,
    replace_sampler: bool = False,
) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Lightning cannot know that the callback resumes the loader; and it speaks of the number of workers.
        warnings.filterwarnings("ignore", module="lightning")
        trainer = Trainer(
            accelerator="cpu",
            strategy="ddp" if world_size > 1 else "auto",
            devices=world_size,
            max_epochs=EPOCHS,
            callbacks=list(callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=False,
            default_root_dir=directory,
            enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
            use_distributed_sampler=replace_sampler,
        )
        checkpoint = None if resume is None else str(directory / resume)
        trainer.fit(model, loader, ckpt_path=checkpoint, weights_only=True)


def every_step(directory: Path) -> ModelCheckpoint:
    return ModelCheckpoint(directory, filename="{step}", every_n_train_steps=1, save_top_k=-1)


def loader_of(kind: str, workers: int) -> tuple[RandomSampler | BucketBatchSampler, DataLoader[int]]:
    if kind == "indices":
        indices = RandomSampler(SIZE, seed=2)
        return indices, DataLoader(Indices(SIZE), batch_size=8, sampler=indices, num_workers=workers)
    batches = BucketBatchSampler(SIZE, [index % 13 for index in range(SIZE)], batch_size=8, num_buckets=4, seed=2)
    given = Shard(batches) if kind == "batch_shard" else batches
    return batches, DataLoader(Indices(SIZE), batch_sampler=given, num_workers=workers)


def expected(kind: str) -> list[list[int]]:
    sampler, _ = loader_of(kind, 0)
    seen: list[list[int]] = []
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        if isinstance(sampler, BucketBatchSampler):
            seen += sampler.batches(0, len(sampler))
        else:
            order = sampler.indices(0, SIZE).tolist()
            seen += [order[start : start + 8] for start in range(0, SIZE, 8)]
    return seen


def resumed(directory: Path, kind: str, workers: int, checkpoint: str) -> list[list[int]]:
    sampler, loader = loader_of(kind, workers)
    model = Recorder()
    fit(directory, model, SamplerCallback(sampler), loader=loader, resume=checkpoint)
    return model.seen


@pytest.mark.parametrize(("kind", "workers"), [("indices", 0), ("indices", 2), ("batches", 2), ("batch_shard", 0)])
def test_a_run_resumes_with_the_very_next_batch(kind: str, workers: int, tmp_path: Path) -> None:
    sampler, loader = loader_of(kind, workers)
    model = Recorder()
    fit(tmp_path, model, SamplerCallback(sampler), every_step(tmp_path), loader=loader)
    whole = expected(kind)
    assert model.seen == whole
    length = len(loader)
    for step in (5, length - 1, length, length + 1, 2 * length):
        assert resumed(tmp_path, kind, workers, f"step={step}.ckpt") == whole[step:], step
    # Another number of workers, in a new process.
    (seen,) = launch(resumed, tmp_path, 1, kind, 2 - workers, f"step={length + 5}.ckpt")
    assert seen == whole[length + 5 :]


def test_a_second_resume_in_one_epoch_loses_nothing(tmp_path: Path) -> None:
    whole = expected("indices")
    sampler, loader = loader_of("indices", 2)
    fit(tmp_path, Recorder(), SamplerCallback(sampler), every_step(tmp_path), loader=loader)
    for resume, later in (("step=16.ckpt", "again=20.ckpt"), ("again=20.ckpt", "third=22.ckpt")):
        sampler, loader = loader_of("indices", 2)
        model = Recorder()
        name = later.partition("=")[0] + "={step}"
        again = ModelCheckpoint(
            tmp_path, filename=name, every_n_train_steps=1, save_top_k=-1, auto_insert_metric_name=False
        )
        fit(tmp_path, model, SamplerCallback(sampler), again, loader=loader, resume=resume)
        assert model.seen == whole[int(resume.partition("=")[2].removesuffix(".ckpt")) :]
    assert resumed(tmp_path, "indices", 0, "third=22.ckpt") == whole[22:]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_resumes_without_the_callback(workers: int, tmp_path: Path) -> None:
    def run(resume: str | None) -> list[list[int]]:
        loader: StatefulDataLoader[int] = StatefulDataLoader(
            Indices(SIZE), batch_size=8, sampler=RandomSampler(SIZE, seed=2), num_workers=workers
        )
        model = Recorder()
        saving = [] if resume else [every_step(tmp_path)]
        fit(tmp_path, model, *saving, loader=loader, resume=resume)
        return model.seen

    whole = expected("indices")
    assert run(None) == whole
    for step in (5, BATCHES + 5):
        assert run(f"step={step}.ckpt") == whole[step:]


def ddp(directory: Path, world_size: int, resume: str | None) -> list[list[int]]:
    sampler = RandomSampler(SIZE, seed=2)
    model = ShardedRecorder(sampler)
    saving = [] if resume else [every_step(directory)]
    fit(directory, model, SamplerCallback(sampler), *saving, resume=resume, world_size=world_size)
    return model.seen


def test_processes_share_an_epoch_and_a_run_resumes_on_fewer(tmp_path: Path) -> None:
    ranks = launch(ddp, tmp_path, 2, 2, None)
    steps = [list(zip(*both, strict=True)) for both in zip(*ranks, strict=True)]
    order = [list(chain(*step)) for step in steps]
    sampler = RandomSampler(SIZE, seed=2)
    length = 7  # steps of an epoch: 52 samples for each of two ranks, by 8
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        whole = sampler.indices(0, SIZE).tolist()
        assert list(chain(*order[epoch * length : (epoch + 1) * length])) == [*whole, whole[0]]

    assert launch(ddp, tmp_path, 2, 2, "step=10.ckpt") == [rank[10:] for rank in ranks]  # type: ignore[index]  # JSON
    (alone,) = launch(ddp, tmp_path, 1, 1, "step=10.ckpt")
    assert isinstance(alone, list)
    sampler.set_epoch(1)
    left = sampler.indices(3 * 16, SIZE).tolist()  # three steps of two ranks are behind
    sampler.set_epoch(2)
    assert list(chain(*alone)) == left + sampler.indices(0, SIZE).tolist()


def undivided(directory: Path, replace_sampler: bool) -> str:
    sampler = RandomSampler(SIZE, seed=2)
    model = ShardedRecorder(sampler, shard=False)
    with pytest.raises(ValueError, match="training loader") as caught:
        fit(directory, model, SamplerCallback(sampler), world_size=2, replace_sampler=replace_sampler)
    return str(caught.value)


@pytest.mark.parametrize(
    ("replace_sampler", "message"), [(False, "for a world of 1, and there are 2 processes"), (True, "does not draw")]
)
def test_processes_that_would_each_draw_everything_are_refused(
    replace_sampler: bool, message: str, tmp_path: Path
) -> None:
    for answer in launch(undivided, tmp_path, 2, replace_sampler):
        assert message in str(answer)


def test_a_loader_of_another_sampler_is_refused(tmp_path: Path) -> None:
    _, loader = loader_of("indices", 0)
    with pytest.raises(ValueError, match="does not draw from the RandomSampler of the SamplerCallback"):
        fit(tmp_path, Recorder(), SamplerCallback(RandomSampler(SIZE, seed=2)), loader=loader)


def test_a_checkpoint_of_another_seed_is_refused(tmp_path: Path) -> None:
    sampler, loader = loader_of("indices", 0)
    fit(tmp_path, Recorder(), SamplerCallback(sampler), every_step(tmp_path), loader=loader)
    other = RandomSampler(SIZE, seed=3)
    loader = DataLoader(Indices(SIZE), batch_size=8, sampler=other)
    with pytest.raises(StateError, match="the state's seed is 2, this sampler's is 3"):
        fit(tmp_path, Recorder(), SamplerCallback(other), loader=loader, resume="step=5.ckpt")
