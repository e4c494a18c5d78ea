"""Runs whose parameters are spread over ranks train, save, and go on anywhere as others do."""

import shutil
from pathlib import Path

import msgspec
import pytest
import torch
from torch import nn

from tests.ranks.ranked_run import EPOCHS
from tests.ranks.ranked_run import run as recorded_run
from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.comm import current_communicator
from treenail.adapters.files import LocalFiles
from treenail.adapters.launch import spawn
from treenail.adapters.loops import EpochLoop
from treenail.adapters.optim import SupervisedStep
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
    "sharded": Distributed(parallel=late(fully_sharded)(classes=("Linear",))),
    "tensor": Distributed(parallel=late(tensor_parallel)(plan={"layers.0": "colwise", "layers.2": "rowwise"})),
    "both": Distributed(
        parallel=late(fully_sharded)(
            mesh={"data": 2, "tensor": 2}, tensor_plan={"layers.0": "colwise", "layers.2": "rowwise"}
        )
    ),
}


def described(way: str, epochs: int) -> Run:
    described = recorded_run
    if way == "seed sampler":  # which gives each rank its own samples where it is used by itself
        seeded = msgspec.structs.replace(recorded_run.train, sampler=late(DefaultSampler)(seed=mix(7, "train")))
        described = msgspec.structs.replace(recorded_run, train=seeded)
    if way == "sum":
        described = msgspec.structs.replace(
            recorded_run,
            loss=spec(nn.CrossEntropyLoss)(reduction="sum"),
            optimizer=late(torch.optim.SGD)(lr=0.01),
        )
    return msgspec.structs.replace(
        described,
        hooks={},
        test=recorded_run.val,
        distributed=WAYS[way],
        loop=late(EpochLoop)(max_epochs=epochs),
    )


def train_all(tasks: list[tuple[str, str, str | None, int]]) -> list[dict[str, float]]:
    """Train one run after another: (way, directory, where the directory is copied from and resumed, epochs)."""
    results = []
    for way, directory, before, epochs in tasks:
        ranks = current_communicator()
        if before is not None and ranks.rank == 0:
            shutil.copytree(before, directory)
        ranks.barrier()
        Path(directory).mkdir(exist_ok=True)
        summary = train(described(way, epochs), Path(directory), resume="latest" if before else None)
        results.append(summary.metrics)
    return results


def weights(directory: Path) -> dict[str, torch.Tensor]:
    state = CheckpointStore(LocalFiles(directory / "checkpoints")).load("latest")[1]
    model = state["model"]
    assert isinstance(model, dict)
    return model


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train in all ways on 2, 3, 4 ranks and alone, and go on with what others have saved."""
    root = tmp_path_factory.mktemp("runs")

    def task(way: str, name: str, before: str | None = None, epochs: int = EPOCHS) -> tuple[str, str, str | None, int]:
        return way, str(root / name), None if before is None else str(root / before), epochs

    train_all([task("plain", "alone"), task("plain", "alone-first", epochs=1)])
    spawn(
        train_all,
        2,
        [
            task("sharded", "sharded-first", epochs=1),
            task("sharded", "sharded-sharded", "sharded-first"),
            task("plain", "sharded-plain", "sharded-first"),
            task("sharded", "alone-sharded", "alone-first"),
            task("tensor", "tensor"),
            task("seed sampler", "seed-sampler-two", epochs=1),
            task("sum", "sum-two", epochs=1),
        ],
    )
    spawn(train_all, 4, [task("sharded", "sharded-four", "sharded-first"), task("both", "both")])
    train_all(
        [
            task("plain", "sharded-alone", "sharded-first"),
            task("seed sampler", "seed-sampler", epochs=1),
            task("sum", "sum", epochs=1),
        ]
    )
    return root


@pytest.mark.parametrize(
    "name",
    ["sharded-sharded", "sharded-plain", "alone-sharded", "sharded-four", "sharded-alone", "tensor", "both"],
)
def test_every_way_gives_what_one_process_gives(runs: Path, name: str) -> None:
    expected = weights(runs / "alone")
    found = weights(runs / name)
    assert found.keys() == expected.keys()
    for each, weight in found.items():
        assert weight.shape == expected[each].shape
        assert torch.allclose(weight, expected[each], atol=1e-5), f"{name}: {each}"


@pytest.mark.parametrize("name", ["seed-sampler", "sum"])
def test_seed_samplers_and_sums_give_on_two_ranks_what_they_give_on_one(runs: Path, name: str) -> None:
    expected, found = weights(runs / name), weights(runs / f"{name}-two")
    assert all(torch.allclose(found[each], expected[each], atol=1e-5) for each in expected)


def test_an_optimizer_that_evaluates_several_times_a_step_is_refused_on_ranks() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="LBFGS evaluates the loss several times a step"):
        SupervisedStep(model, nn.CrossEntropyLoss(), torch.optim.LBFGS(model.parameters()), world_size=2)


def test_parts_are_written_by_their_ranks(runs: Path) -> None:
    store = CheckpointStore(LocalFiles(runs / "sharded-first" / "checkpoints"))
    directory = runs / "sharded-first" / "checkpoints" / store.resolve()
    shards = sorted(path.name for path in directory.glob("shard-*"))
    assert shards == ["shard-00001-of-00002.safetensors", "shard-00002-of-00002.safetensors"]
    manifest, _ = store.load()
    assert set(shards) <= {entry.path for entry in manifest.files}
    assert manifest.world_size == 2


def test_a_sharded_checkpoint_is_tested_in_one_process(runs: Path) -> None:
    metrics = evaluate_run(described("plain", EPOCHS), runs / "sharded-sharded" / "checkpoints" / "latest")
    assert metrics == pytest.approx(
        evaluate_run(described("plain", EPOCHS), runs / "alone" / "checkpoints" / "latest"), abs=1e-5
    )


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
