"""Samplers in Lightning's Trainer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable
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
from tests.processes import Starter
from treenail.adapters.interop.lightning import SamplerCallback
from treenail.adapters.sampling import BucketBatchSampler, RandomSampler, Shard
from treenail.adapters.sampling.compat import DefaultSampler, InfiniteSampler
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

    def validation_step(self, batch: Tensor) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-4)


class MakesLoader(Recorder):
    """Makes its loader where Lightning knows the processes."""

    def __init__(
        self,
        make: Callable[[], Iterable[int]],
        size: int = SIZE,
        batch_size: int = 8,
        workers: int = 1,
        *,
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        self.make = make
        self.size, self.batch_size, self.workers, self.drop_last = size, batch_size, workers, drop_last

    def train_dataloader(self) -> DataLoader[int]:
        return DataLoader(
            Indices(self.size),
            self.batch_size,
            sampler=self.make(),
            num_workers=self.workers,
            drop_last=self.drop_last,
        )


def fit(
    directory: Path,
    model: LightningModule,
    *callbacks: Callback,
    loader: DataLoader[int] | None = None,
    resume: str | None = None,
    world_size: int = 1,
    replace_sampler: bool = False,
    max_epochs: int | None = EPOCHS,
    max_steps: int = -1,
    limit_train_batches: int | None = None,
    val_check_interval: int | None = None,
) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Lightning cannot know that the callback resumes the loader; and it speaks of the number of workers.
        warnings.filterwarnings("ignore", module="lightning")
        trainer = Trainer(
            accelerator="cpu",
            strategy="ddp" if world_size > 1 else "auto",
            devices=world_size,
            max_epochs=max_epochs,
            max_steps=max_steps,
            limit_train_batches=limit_train_batches,
            val_check_interval=val_check_interval,
            callbacks=list(callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=False,
            default_root_dir=directory,
            enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
            use_distributed_sampler=replace_sampler,
        )
        checkpoint = None if resume is None else str(directory / resume)
        validation = None if val_check_interval is None else DataLoader(Indices(1))
        trainer.fit(model, loader, validation, ckpt_path=checkpoint, weights_only=True)


def every_step(directory: Path) -> ModelCheckpoint:
    return ModelCheckpoint(directory, filename="{step}", every_n_train_steps=1, save_top_k=-1)


def at_step(directory: Path, step: int) -> ModelCheckpoint:
    return ModelCheckpoint(directory, filename="{step}", every_n_train_steps=step)


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


KINDS = [("indices", 2), ("batches", 2), ("batch_shard", 0)]


@pytest.mark.parametrize(("kind", "workers"), [*KINDS, ("indices", 0)])
def test_a_run_resumes_with_the_very_next_batch(kind: str, workers: int, tmp_path: Path) -> None:
    sampler, loader = loader_of(kind, workers)
    model = Recorder()
    fit(tmp_path, model, SamplerCallback(sampler), every_step(tmp_path), loader=loader)
    whole = expected(kind)
    assert model.seen == whole
    length = len(loader)
    for step in (5, length - 1, length, length + 1, 2 * length):
        assert resumed(tmp_path, kind, workers, f"step={step}.ckpt") == whole[step:], step


def resumed_kinds(directory: Path, steps: list[int]) -> list[list[list[int]]]:
    pairs = zip(KINDS, steps, strict=True)
    return [resumed(directory / kind, kind, 2 - workers, f"step={step}.ckpt") for (kind, workers), step in pairs]


def test_a_run_resumes_in_a_new_process_with_another_number_of_workers(tmp_path: Path, starter: Starter) -> None:
    steps = []
    for kind, workers in KINDS:
        sampler, loader = loader_of(kind, workers)
        steps.append(len(loader) + 5)
        saving = at_step(tmp_path / kind, steps[-1])
        fit(tmp_path, Recorder(), SamplerCallback(sampler), saving, loader=loader, max_steps=steps[-1])
    left = [expected(kind)[step:] for (kind, _), step in zip(KINDS, steps, strict=True)]
    assert starter.launch(resumed_kinds, tmp_path, 1, steps) == [left]


def epochs_of(size: int) -> list[list[int]]:
    sampler = RandomSampler(size, seed=2)
    epochs: list[list[int]] = []
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        epochs.append(sampler.indices(0, size).tolist())
    return epochs


def order(size: int, batch_size: int, length: int) -> list[list[int]]:
    """The first batches of each epoch."""
    starts = range(0, length * batch_size, batch_size)
    return [epoch[start : start + batch_size] for epoch in epochs_of(size) for start in starts]


# Trainer's limit of batches, the loader's drop_last, and the batches of an epoch of 22 samples by 4.
ENDINGS = {"plain": (None, False, 6), "drop_last": (None, True, 5), "limit_train_batches": (3, False, 3)}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ending", ENDINGS)
def test_after_an_epoch_that_left_samples_out_comes_the_next_one(ending: str, workers: int, tmp_path: Path) -> None:
    limit, drop_last, length = ENDINGS[ending]

    def run(resume: str | None) -> list[list[int]]:
        sampler, model = RandomSampler(22, seed=2), Recorder()
        loader = DataLoader(Indices(22), 4, sampler=sampler, drop_last=drop_last, num_workers=workers)
        saving = [] if resume else [every_step(tmp_path)]
        fit(tmp_path, model, SamplerCallback(sampler), *saving, loader=loader, resume=resume, limit_train_batches=limit)
        return model.seen

    whole = run(None)
    assert whole == order(22, 4, length)
    for step in (2, length, length + 2, 2 * length, 2 * length + 2, 3 * length):
        assert run(f"step={step}.ckpt") == whole[step:], step


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("saving", ["epoch", "validation"])
@pytest.mark.parametrize("limit", ["max_epochs", "max_steps"])
def test_checkpoints_of_an_epoch_s_end_and_of_validation_resume(
    limit: str, saving: str, workers: int, tmp_path: Path
) -> None:
    def run(resume: str | None, epochs: int) -> list[list[int]]:
        sampler, model = RandomSampler(22, seed=2), Recorder()
        fit(
            tmp_path,
            model,
            SamplerCallback(sampler),
            *([] if resume else [ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1)]),
            loader=DataLoader(Indices(22), 4, sampler=sampler, num_workers=workers),
            resume=resume,
            max_epochs=epochs if limit == "max_epochs" else None,
            max_steps=6 * epochs - 2 if limit == "max_steps" else -1,  # the epoch that it stops in counts as over
            val_check_interval=3 if saving == "validation" else None,
        )
        return model.seen

    run(None, 2)
    whole = order(22, 4, 6)[: 18 if limit == "max_epochs" else 16]
    steps = [int(path.stem.removeprefix("step=")) for path in tmp_path.glob("*.ckpt")]
    assert len(steps) >= 2
    for step in steps:
        assert run(f"step={step}.ckpt", 3) == whole[step:], step


class RefusingRecorder(Recorder):
    """Wants three batches of an epoch."""

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> int | None:
        return -1 if batch_idx == 3 else None


def test_an_epoch_that_the_module_ends_is_followed_by_the_next_one(tmp_path: Path) -> None:
    def run(resume: str | None) -> list[list[int]]:
        sampler, model = RandomSampler(22, seed=2), RefusingRecorder()
        saving = [] if resume else [ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1)]
        loader = DataLoader(Indices(22), 4, sampler=sampler)
        fit(tmp_path, model, SamplerCallback(sampler), *saving, loader=loader, resume=resume)
        return model.seen

    assert run(None) == order(22, 4, 3)
    for step in (3, 6):
        assert run(f"step={step}.ckpt") == order(22, 4, 3)[step:]


def test_a_stream_without_epochs_goes_on_where_it_stood(tmp_path: Path) -> None:
    def run(resume: str | None) -> list[list[int]]:
        sampler, model = InfiniteSampler(22, seed=2), Recorder()
        saving = [] if resume else [every_step(tmp_path)]
        loader = DataLoader(Indices(22), 4, sampler=sampler)
        fit(tmp_path, model, SamplerCallback(sampler), *saving, loader=loader, resume=resume, limit_train_batches=5)
        return model.seen

    whole = run(None)
    assert list(chain(*whole)) == InfiniteSampler(22, seed=2).indices(0, EPOCHS * 20).tolist()
    for step in (3, 5, 7, 10):
        assert run(f"step={step}.ckpt") == whole[step:]


def test_another_run_without_a_checkpoint_begins_with_the_first_epoch(tmp_path: Path) -> None:
    sampler, model = RandomSampler(22, seed=2), Recorder()
    callback = SamplerCallback(sampler)
    for _ in range(2):
        fit(tmp_path, model, callback, loader=DataLoader(Indices(22), 4, sampler=sampler, num_workers=1))
    assert model.seen == order(22, 4, 6) * 2


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


PADDING = 5  # batches of an epoch: 21 samples for each of two ranks, by 4, with the last one left out
RESUMED = {0: (2, PADDING, 2 * PADDING), 2: (PADDING, PADDING + 2)}  # workers and the steps that they resume from


def on_two(directory: Path, alone: str) -> dict[str, object]:
    """All that is tried on two processes, in one go: it is their start that takes long."""
    answers: dict[str, object] = {}
    bare, early = RandomSampler(SIZE, seed=2), DefaultSampler(SIZE, seed=2)
    refused: list[tuple[str, RandomSampler | DefaultSampler, bool]] = [
        ("bare", bare, False),
        ("replaced", bare, True),
        ("early", early, False),
    ]
    for name, sampler, replace in refused:
        model = MakesLoader(lambda given=sampler: given)  # type: ignore[misc]  # mypy cannot infer a lambda's default
        with pytest.raises(ValueError, match="training loader") as caught:
            fit(directory, model, SamplerCallback(sampler), world_size=2, replace_sampler=replace)
        answers[name] = str(caught.value)

    def run(kind: str, workers: int, resume: str | None) -> list[list[int]]:
        if kind == "padding":
            order_of_43 = RandomSampler(43, seed=2)
            model = MakesLoader(lambda: Shard(order_of_43, padding="drop"), 43, 4, workers, drop_last=True)
            callback = SamplerCallback(order_of_43)
        elif kind == "default":
            share = DefaultSampler(SIZE, seed=2)
            model, callback = MakesLoader(lambda: share, workers=workers), SamplerCallback(share)
        else:
            shared = RandomSampler(SIZE, seed=2)
            model, callback = MakesLoader(lambda: Shard(shared), workers=workers), SamplerCallback(shared)
        saving = [] if resume else [every_step(directory / f"{kind}{workers}")]
        fit(directory, model, callback, *saving, resume=resume, world_size=2)
        return model.seen

    answers["whole"] = run("shard", 1, None)
    answers["resumed"] = run("shard", 1, "shard1/step=10.ckpt")
    answers["of one"] = run("shard", 1, alone)
    answers["default"] = run("default", 0, None)
    answers["default resumed"] = run("default", 0, "default0/step=10.ckpt")
    for workers, steps in RESUMED.items():
        answers[f"padding {workers}"] = run("padding", workers, None)
        for step in steps:
            answers[f"padding {workers} from {step}"] = run("padding", workers, f"padding{workers}/step={step}.ckpt")
    return answers


Ranks = list[dict[str, list[list[int]]]]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, starter: Starter) -> tuple[Path, Ranks]:
    """Directory of, and what each rank saw in, the runs on two processes."""
    directory = tmp_path_factory.mktemp("two")
    sampler, loader = loader_of("indices", 0)
    fit(directory, Recorder(), SamplerCallback(sampler), at_step(directory / "one", 18), loader=loader, max_steps=18)
    return directory, starter.launch(on_two, directory, 2, "one/step=18.ckpt")  # type: ignore[return-value]  # JSON of on_two's


def together(ranks: Ranks, run: str) -> list[list[int]]:
    """What the ranks saw in each step."""
    return [list(chain(*zip(*both, strict=True))) for both in zip(*(rank[run] for rank in ranks), strict=True)]


def test_processes_share_an_epoch_and_a_run_resumes_on_them(two: tuple[Path, Ranks]) -> None:
    _, ranks = two
    steps = together(ranks, "whole")
    length = 7  # steps of an epoch: 52 samples for each of two ranks, by 8
    for epoch, whole in enumerate(epochs_of(SIZE)):
        assert list(chain(*steps[epoch * length : (epoch + 1) * length])) == [*whole, whole[0]]
    assert together(ranks, "resumed") == steps[10:]


def test_a_run_resumes_on_fewer_processes(two: tuple[Path, Ranks]) -> None:
    directory, _ = two
    sampler = RandomSampler(SIZE, seed=2)
    model = MakesLoader(lambda: Shard(sampler))
    fit(directory, model, SamplerCallback(sampler), resume="shard1/step=10.ckpt")
    _, second, third = epochs_of(SIZE)
    assert list(chain(*model.seen)) == second[3 * 16 :] + third  # three steps of two ranks are behind


def test_a_run_resumes_on_more_processes(two: tuple[Path, Ranks]) -> None:
    _, ranks = two
    _, second, third = epochs_of(SIZE)
    left = second[5 * 8 :]  # five steps of one process are behind
    assert list(chain(*together(ranks, "of one"))) == [*left, second[0], *third, third[0]]


def test_what_each_process_draws_may_be_given_itself(two: tuple[Path, Ranks]) -> None:
    _, ranks = two
    steps = together(ranks, "default")
    shuffled = torch.randperm(SIZE, generator=torch.Generator().manual_seed(2)).tolist()
    assert list(chain(*steps[:7])) == [*shuffled, shuffled[0]]
    assert together(ranks, "default resumed") == steps[10:]


@pytest.mark.parametrize("workers", [0, 2])
def test_after_an_epoch_whose_last_samples_no_process_gets_comes_the_next_one(
    workers: int, two: tuple[Path, Ranks]
) -> None:
    _, ranks = two
    steps = together(ranks, f"padding {workers}")
    assert steps == order(43, 8, PADDING)
    for step in RESUMED[workers]:
        assert together(ranks, f"padding {workers} from {step}") == steps[step:], step


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bare", "for a world of 1, and there are 2 processes; give it Shard(sampler), made in train_dataloader()"),
        ("replaced", "does not draw from the RandomSampler of the SamplerCallback"),
        ("early", "make the DefaultSampler where they are known: in train_dataloader(), or after"),
    ],
)
def test_processes_that_would_each_draw_everything_are_refused(
    name: str, message: str, two: tuple[Path, Ranks]
) -> None:
    for answers in two[1]:
        assert message in str(answers[name])


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
