"""Runs of every way to spread a model train, save, and go on anywhere as others do, on the number of ranks that is there."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import torch
from torch import nn

from tests.parallel.worlds import Check, once, run_worlds, shared_directory
from tests.ranks.ranked_run import EPOCH, EPOCHS, SAMPLES, STEPS, Recorder, TroubleHook, batch_of, drawn
from tests.ranks.ranked_run import run as recorded_run
from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.comm import SingleProcess, current_communicator
from treenail.adapters.files import LocalFiles
from treenail.adapters.loops import EpochLoop
from treenail.adapters.optim import OptimWrapper, SupervisedStep, TokenCrossEntropy
from treenail.adapters.parallel import fully_sharded, tensor_parallel
from treenail.adapters.runtime import test as evaluate_run
from treenail.adapters.runtime import train
from treenail.adapters.sampling.compat import DefaultSampler
from treenail.contracts import Distributed, Run
from treenail.kernel import CheckpointError, late, mix, spec

WAYS = {
    "plain": Distributed(),
    "seed sampler": Distributed(),
    "sum": Distributed(),
    "accumulated": Distributed(),
    "tokens": Distributed(),
    "token shards": Distributed(parallel=late(fully_sharded)(classes=("Linear",))),
    "clipped": Distributed(),
    "clipped shards": Distributed(parallel=late(fully_sharded)(classes=("Linear",))),
    "accumulated shards": Distributed(parallel=late(fully_sharded)(classes=("Linear",))),
    "sharded": Distributed(parallel=late(fully_sharded)(classes=("Linear",))),
    "tensor": Distributed(parallel=late(tensor_parallel)(plan={"layers.0": "colwise", "layers.2": "rowwise"})),
    "both": Distributed(
        parallel=late(fully_sharded)(
            mesh={"data": 2, "tensor": 2}, tensor_plan={"layers.0": "colwise", "layers.2": "rowwise"}
        )
    ),
}


class Task(NamedTuple):
    """A run: in which way, its directory, where that is copied from and resumed, epochs, and whether rank 2 stops it."""

    way: str
    name: str
    before: str | None = None
    epochs: int = EPOCHS
    stops: bool = False


def described(task: Task, directory: Path) -> Run:
    described = recorded_run
    if task.way == "seed sampler":  # which gives each rank its own samples where it is used by itself
        seeded = msgspec.structs.replace(recorded_run.train, sampler=late(DefaultSampler)(seed=mix(7, "train")))
        described = msgspec.structs.replace(recorded_run, train=seeded)
    if task.way == "sum":
        described = msgspec.structs.replace(
            recorded_run,
            loss=spec(nn.CrossEntropyLoss)(reduction="sum"),
            optimizer=late(torch.optim.SGD)(lr=0.01),
        )
    if task.way.startswith("accumulated"):
        described = msgspec.structs.replace(described, updates=late(OptimWrapper)(accumulative_counts=3))
    if task.way.startswith(
        "token"
    ):  # those of class 0 do not count, so that ranks and micro-batches have different weights
        described = msgspec.structs.replace(
            described,
            loss=spec(TokenCrossEntropy)(ignore_index=0),
            updates=late(OptimWrapper)(accumulative_counts=3 if current_communicator().world_size > 1 else 1),
        )
    if task.way.startswith("clipped"):
        described = msgspec.structs.replace(described, updates=late(OptimWrapper)(clip_norm=0.05))
    trouble = {"trouble": spec(TroubleHook)("stop", 2, 9)} if task.stops else {}
    return msgspec.structs.replace(
        described,
        hooks={"recorder": spec(Recorder)(str(directory)), **trouble},
        test=recorded_run.val,
        distributed=WAYS[task.way],
        loop=late(EpochLoop)(max_epochs=task.epochs),
    )


def train_all(root: Path, *tasks: Task) -> None:
    """Train one run after another."""
    ranks = current_communicator()
    for task in tasks:
        directory = root / task.name
        if task.before is not None and ranks.rank == 0:
            shutil.copytree(root / task.before, directory)
        ranks.barrier()
        directory.mkdir(exist_ok=True)
        train(described(task, directory), directory, resume="latest" if task.before else None)


def on_two(root: Path) -> None:
    train_all(
        root,
        Task("sharded", "sharded-first", epochs=1),
        Task("sharded", "sharded-sharded", "sharded-first"),
        Task("plain", "sharded-plain", "sharded-first"),
        Task("sharded", "alone-sharded", "alone-first"),
        Task("tensor", "tensor"),
        Task("seed sampler", "seed-sampler-two", epochs=1),
        Task("sum", "sum-two", epochs=1),
        Task("accumulated", "accumulated-two", epochs=1),
        Task("accumulated shards", "accumulated-shards", epochs=1),
        Task("tokens", "tokens-two", epochs=1),
        Task("token shards", "token-shards", epochs=1),
        Task("clipped", "clipped-two", epochs=1),
        Task("clipped shards", "clipped-shards", epochs=1),
    )


def on_four(root: Path) -> None:
    train_all(
        root,
        Task("sharded", "sharded-four", "sharded-first"),
        Task("both", "both"),
        Task("plain", "stopped", stops=True),
    )


def again_on_three(root: Path) -> None:
    train_all(root, Task("plain", "stopped-three", "stopped"))


def again_on_two(root: Path) -> None:
    train_all(root, Task("plain", "stopped-two", "stopped"))


def in_a_group_of_one(root: Path) -> None:
    train_all(root, Task("sharded", "sharded-one", "alone-first"))


WORLDS: tuple[tuple[int, tuple[Check, ...]], ...] = (
    (2, (on_two,)),
    (4, (on_four,)),
    (3, (again_on_three,)),
    (2, (again_on_two,)),
    (1, (in_a_group_of_one,)),
)


def state_of(directory: Path) -> dict[str, object]:
    return CheckpointStore(LocalFiles(directory / "checkpoints")).load("latest")[1]


def weights(directory: Path) -> dict[str, torch.Tensor]:
    model = state_of(directory)["model"]
    assert isinstance(model, dict)
    return model


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Train in all ways alone, on 2, 3 and 4 ranks, and go on with what others have saved."""
    root = shared_directory("sharded-runs", tmp_path_factory, request)
    failures = once(root, lambda: train_in_all_ways(root))
    assert not failures, "\n".join(f"{name}: {text}" for name, text in failures.items())
    return root


def train_in_all_ways(root: Path) -> dict[str, str]:
    train_all(root, Task("plain", "alone"), Task("plain", "alone-first", epochs=1))
    failures = run_worlds(WORLDS, root)
    if not failures:
        train_all(
            root,
            Task("plain", "sharded-alone", "sharded-first"),
            Task("seed sampler", "seed-sampler", epochs=1),
            Task("sum", "sum", epochs=1),
            Task("tokens", "tokens", epochs=1),
            Task("clipped", "clipped", epochs=1),
        )
    return failures


@pytest.mark.parametrize(
    "name",
    [
        *("sharded-sharded", "sharded-plain", "alone-sharded", "sharded-four", "sharded-alone", "sharded-one"),
        *("tensor", "both", "stopped-three", "stopped-two"),
    ],
)
def test_every_way_gives_what_one_process_gives(runs: Path, name: str) -> None:
    expected = weights(runs / "alone")
    found = weights(runs / name)
    assert found.keys() == expected.keys()
    for each, weight in found.items():
        assert weight.shape == expected[each].shape
        assert torch.allclose(weight, expected[each], atol=1e-5), f"{name}: {each}"


def test_ranks_that_stop_and_change_their_number_see_each_sample_once(runs: Path) -> None:
    """Stopped on 4 ranks from one of them, resumed on 2 and on 3."""
    engine = state_of(runs / "stopped")["engine"]
    assert isinstance(engine, dict)
    assert 9 < engine["step"] < STEPS, "no rank stopped the run in its middle"
    assert all(len(shares) == 4 for shares in drawn(runs / "stopped", 1).values()), "ranks stopped at different steps"
    whole = [batch_of(shares) for _, shares in sorted(drawn(runs / "alone", 1).items())]
    for name, ranks in (("stopped-three", 3), ("stopped-two", 2)):
        resumed = drawn(runs / name, 2)
        assert all(len(shares) == ranks for shares in resumed.values())
        found = [batch_of(shares) for _, shares in sorted({**drawn(runs / name, 1), **resumed}.items())]
        assert found == whole, "the batches are not those of one process"
        for epoch in range(EPOCHS):
            seen = Counter(index for batch in found[epoch * EPOCH : (epoch + 1) * EPOCH] for index in batch)
            assert seen == Counter(range(SAMPLES)), f"not every sample once in epoch {epoch}"
        for ours, theirs in zip(validations(runs / name), validations(runs / "alone"), strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)


def validations(directory: Path) -> list[list[float]]:
    lines = map(json.loads, (directory / "jsonlines" / "scalars.jsonl").read_text().splitlines())
    return [[line["val/loss"], line["val/accuracy"]] for line in lines if "val/loss" in line]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        *(
            ("seed-sampler", "seed-sampler-two"),
            ("sum", "sum-two"),
            ("tokens", "tokens-two"),
            ("tokens", "token-shards"),
        ),
        *(("alone-first", "accumulated-two"), ("alone-first", "accumulated-shards")),
        *(("clipped", "clipped-two"), ("clipped", "clipped-shards")),
    ],
)
def test_updates_on_two_ranks_are_what_they_are_on_one(runs: Path, one: str, two: str) -> None:
    expected, found = weights(runs / one), weights(runs / two)
    assert all(torch.allclose(found[each], expected[each], atol=1e-5) for each in expected)


def test_clipping_and_weights_make_a_difference(runs: Path) -> None:
    plain = weights(runs / "alone-first")
    for other in ("clipped", "tokens"):
        found = weights(runs / other)
        assert any(not torch.allclose(found[each], plain[each], atol=1e-3) for each in plain)


class TwoRanks(SingleProcess):
    """As one of two ranks sees itself; nothing is sent."""

    @property
    def world_size(self) -> int:
        return 2


def test_an_optimizer_that_evaluates_several_times_a_step_is_refused_on_ranks() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="LBFGS evaluates the loss several times a step"):
        SupervisedStep(model, nn.CrossEntropyLoss(), torch.optim.LBFGS(model.parameters()), ranks=TwoRanks())


def test_parts_are_written_by_their_ranks(runs: Path) -> None:
    store = CheckpointStore(LocalFiles(runs / "sharded-first" / "checkpoints"))
    directory = runs / "sharded-first" / "checkpoints" / store.resolve()
    shards = sorted(path.name for path in directory.glob("shard-*"))
    assert shards == ["shard-00001-of-00002.safetensors", "shard-00002-of-00002.safetensors"]
    manifest, _ = store.load()
    assert set(shards) <= {entry.path for entry in manifest.files}
    assert manifest.world_size == 2


def test_a_sharded_checkpoint_is_tested_in_one_process(runs: Path, tmp_path: Path) -> None:
    run = described(Task("plain", "tested"), tmp_path)
    sharded, alone = (
        evaluate_run(run, runs / name / "checkpoints" / "latest") for name in ("sharded-sharded", "alone")
    )
    assert sharded == pytest.approx(alone, abs=1e-5)


def test_a_shard_that_is_missing_or_damaged_is_named(runs: Path, tmp_path: Path) -> None:
    copied = tmp_path / "checkpoints"
    shutil.copytree(runs / "sharded-first" / "checkpoints", copied)
    store = CheckpointStore(LocalFiles(copied))
    shard = copied / store.resolve() / "shard-00002-of-00002.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        store.load()
    shard.unlink()
    with pytest.raises(CheckpointError, match="missing"):
        store.load()


def test_retention_removes_shards_too(runs: Path) -> None:
    for directory in (runs / "sharded-sharded" / "checkpoints").iterdir():
        if directory.is_dir():
            assert (directory / "manifest.json").exists(), f"{directory.name} was not removed whole"
