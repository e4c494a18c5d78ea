"""Averages on two real processes: equal on all ranks, of shards where weights are sharded, saved and gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from tests.averaging.models import assert_same, copies
from tests.parallel.models import Net, NormNet, assert_close, batches, made, optimizer_of, whole_state
from tests.parallel.worlds import Check, name_of, once, run_worlds, shared_directory
from treenail.adapters.averaging import WeightAverages, exponential_average, load_averages
from treenail.adapters.checkpoint import read_shards, snapshot_shards, write_shards
from treenail.adapters.comm import TorchCommunicator
from treenail.adapters.files import LocalFiles
from treenail.adapters.parallel import bare, data_parallel, data_share, fully_sharded, tensor_parallel
from treenail.kernel import StateError, TrainingError


def _train(
    module: nn.Module, averages: WeightAverages, shape: tuple[int, ...] = (5,), out: int = 5, first: int = 0
) -> None:
    rank, size = data_share(module)
    optimizer = optimizer_of(module)
    for step, (inputs, targets) in enumerate(batches(shape, out)):
        if step < first:
            continue
        optimizer.zero_grad()
        (module(inputs[rank::size]) - targets[rank::size]).square().mean().backward()
        optimizer.step()
        averages.update(step + 1)


def averages_are_equal_on_all_ranks(_: Path) -> None:
    module = data_parallel(made(NormNet))
    averages = exponential_average(bare(module), momentum=0.25)
    _train(module, averages, (2, 4, 4), 2)
    names = [name for name, _ in averages.view().named_parameters()]
    mine = {name: tensor for name, tensor in copies(averages.view()).items() if name in names}
    firsts = {name: tensor.clone() for name, tensor in mine.items()}
    for tensor in firsts.values():
        dist.broadcast(tensor, 0)
    assert_same(mine, firsts)


def sharded_averages_are_those_of_one_process(directory: Path) -> None:
    alone = made(Net)
    expected = exponential_average(alone, momentum=0.25)
    _train_alone(alone, expected)

    module = fully_sharded(made(Net), classes=("Block",))
    averages = exponential_average(module, momentum=0.25)
    _train(module, averages)
    kept = averages.state_dict()["weights"]
    assert isinstance(kept, dict)
    assert all(isinstance(each, DTensor) for each in kept.values())
    assert sum(each.to_local().numel() for each in kept.values()) < sum(each.numel() for each in kept.values())

    with pytest.raises(TrainingError, match="torch cannot copy a model that FSDP2 has sharded; give view"):
        averages.view()
    with pytest.raises(TrainingError, match="not built as the model is"):
        averages.view(made(Net))
    before = whole_state(module)
    second = fully_sharded(made(Net, seed=3), classes=("Block",))
    inputs = next(batches())[0]
    for _ in range(2):  # a forward pass without gradients leaves the outermost unit gathered
        view = averages.view(second)
        assert view is second
        with torch.no_grad():
            torch.testing.assert_close(view(inputs), expected.view()(inputs))
            module(inputs)
    assert_close(whole_state(averages.view(second)), whole_state(expected.view()))
    assert_same(whole_state(module), before)
    trained = fully_sharded(made(Net), classes=("Block",))
    assert load_averages(trained, averages.state_dict())
    assert_close(whole_state(trained), whole_state(expected.view()))
    with pytest.raises(ValueError, match=r"spread over ranks.*give no device"):
        exponential_average(module, device=torch.device("meta"))
    with pytest.raises(StateError, match="not spread over ranks as the model's is"):
        expected.load_state_dict(averages.state_dict())
    again = exponential_average(trained)
    again.load_state_dict(expected.state_dict())  # of a run that was not sharded
    assert_close(whole_state(again.view(second)), whole_state(expected.view()))


def _train_alone(module: nn.Module, averages: WeightAverages) -> None:
    optimizer = optimizer_of(module)
    for step, (inputs, targets) in enumerate(batches()):
        optimizer.zero_grad()
        (module(inputs) - targets).square().mean().backward()
        optimizer.step()
        averages.update(step + 1)


def sharded_averages_are_saved_and_gone_on_with(directory: Path) -> None:
    communicator = TorchCommunicator()
    module = fully_sharded(made(Net))
    averages = exponential_average(module, momentum=0.25)
    _train(module, averages)
    state, files = averages.state_dict(), LocalFiles(directory)
    weights = state["weights"]
    assert isinstance(weights, dict)
    write_shards(snapshot_shards(weights, communicator), files, "averages")
    others = exponential_average(fully_sharded(made(Net, seed=5)), momentum=0.25)
    targets = others.state_dict()["weights"]
    assert isinstance(targets, dict)
    read_shards(targets, files, "averages", communicator)
    others.load_state_dict({**state, "weights": targets})
    assert (others.updates, others.averaged) == (4, 4)
    found, expected = others.state_dict()["weights"], averages.state_dict()["weights"]
    assert isinstance(found, dict)
    assert isinstance(expected, dict)
    assert_same(
        {name: each.to_local() for name, each in found.items()},
        {name: each.to_local() for name, each in expected.items()},
    )


def split_layers_have_averages_and_views(_: Path) -> None:
    alone = made(Net)
    expected = exponential_average(alone, momentum=0.25)
    _train_alone(alone, expected)
    module = tensor_parallel(made(Net), plan={"blocks.*.up": "colwise", "blocks.*.down": "rowwise"})
    averages = exponential_average(module, momentum=0.25)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05, foreach=False)
    for step, (inputs, targets) in enumerate(batches()):
        optimizer.zero_grad()
        (module(inputs) - targets).square().mean().backward()
        optimizer.step()
        averages.update(step + 1)
    view = averages.view()
    assert_close(whole_state(view), whole_state(expected.view()))
    torch.testing.assert_close(view(inputs), expected.view()(inputs))


CHECKS: tuple[Check, ...] = (
    averages_are_equal_on_all_ranks,
    sharded_averages_are_those_of_one_process,
    sharded_averages_are_saved_and_gone_on_with,
    split_layers_have_averages_and_views,
)


@pytest.fixture(scope="session")
def failures(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, str]:
    directory = shared_directory("averaging-worlds", tmp_path_factory, request)
    return once(directory, lambda: run_worlds([(2, CHECKS)], directory))


@pytest.mark.parametrize("name", [name_of(2, check) for check in CHECKS])
def test_in_a_world_of(name: str, failures: dict[str, str]) -> None:
    if text := failures.get(name) or failures.get("all"):
        pytest.fail(text, pytrace=False)
