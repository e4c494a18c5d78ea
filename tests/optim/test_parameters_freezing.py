"""Freezing: what a pattern freezes, and that frozen modules stay in eval mode where that is asked for."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from treenail.adapters.averaging import exponential_average
from treenail.adapters.optim.freezing import freeze_parameters
from treenail.adapters.optim.parameters import parameter_groups


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout())
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()) for _ in range(3)])
        self.plain = nn.BatchNorm1d(4, affine=False)
        self.head = nn.Linear(4, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.stem(inputs)
        for block in self.blocks:
            hidden = block(hidden)
        outputs: Tensor = self.head(self.plain(hidden))
        return outputs


def parts(model: Net, number: int) -> list[nn.Module]:
    """Return what is in a block."""
    return list(model.blocks[number].children())


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (("stem",), {"stem.0.weight", "stem.0.bias", "stem.1.weight", "stem.1.bias"}),
        (("stem.*",), {"stem.0.weight", "stem.0.bias", "stem.1.weight", "stem.1.bias"}),
        (("stem.1",), {"stem.1.weight", "stem.1.bias"}),
        (("blocks.[01].0",), {f"blocks.{n}.0.{part}" for n in (0, 1) for part in ("weight", "bias")}),
        (
            ("*.bias", "head"),
            {"stem.0.bias", "stem.1.bias", "head.weight", "head.bias"}
            | {f"blocks.{n}.{m}.bias" for n in range(3) for m in (0, 1)},
        ),
    ],
)
def test_a_pattern_freezes_what_has_its_name(patterns: tuple[str, ...], expected: set[str]) -> None:
    model = Net()
    frozen = freeze_parameters(model, patterns)
    assert set(frozen) == expected
    assert {name for name, each in model.named_parameters() if not each.requires_grad} == expected


def test_without_eval_mode_the_statistics_of_a_frozen_normalisation_go_on() -> None:
    model = Net()
    freeze_parameters(model, ("stem",))
    model.train()(torch.randn(8, 2))
    assert model.stem[1].num_batches_tracked == 1


@pytest.mark.parametrize("patterns", [("stem", "blocks.[01]", "plain"), ("stem.*", "blocks.[01].*", "plain")])
def test_modules_that_are_frozen_as_a_whole_stay_in_eval_mode_whatever_the_model_is_told(
    patterns: tuple[str, ...],
) -> None:
    model = Net()
    parameter_groups(model, freeze=patterns, eval_frozen=True)
    kept = [model.stem, *model.stem, model.blocks[0], *parts(model, 0), *parts(model, 1), model.plain]
    assert not any(module.training for module in kept)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for _ in range(2):
        model.train()(torch.randn(8, 2))
        assert not any(module.training for module in kept)
        assert all(module.training for module in (model, model.head, *parts(model, 2)))
    changed = {name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])}
    assert changed == {f"blocks.2.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    model.eval()(torch.randn(8, 2))
    assert not any(module.training for module in model.modules())


def test_a_frozen_list_of_modules_stays_in_eval_mode_through_its_members() -> None:
    model = Net()
    parameter_groups(model, freeze=("blocks",), eval_frozen=True)
    model.train()(torch.randn(8, 2))
    assert [int(parts(model, number)[1].num_batches_tracked) for number in range(3)] == [0, 0, 0]  # type: ignore[arg-type]  # a tensor
    assert not any(part.training for number in range(3) for part in parts(model, number)), "dropout, too"


def test_a_member_of_a_frozen_list_that_has_no_parameters_stays_in_eval_mode_too() -> None:
    layers = nn.ModuleList([nn.Linear(2, 2), nn.Dropout(0.9)])
    model = nn.ModuleDict({"layers": layers, "head": nn.Linear(2, 2)})
    parameter_groups(model, freeze=("layers",), eval_frozen=True)
    model.train()
    inputs = torch.randn(64)
    assert torch.equal(layers[1](inputs), inputs)


def test_a_module_that_is_frozen_in_part_is_trained() -> None:
    model = Net()
    parameter_groups(model, freeze=("stem.0",), eval_frozen=True)
    model.train()(torch.randn(8, 2))
    assert model.stem[1].training
    assert not model.stem[0].training


def test_frozen_modules_are_kept_so_by_copies_pickles_and_views_of_averages_and_only_once() -> None:
    model = Net()
    for _ in range(2):
        parameter_groups(model, freeze=("stem",), eval_frozen=True)
    assert len(model.stem._forward_pre_hooks) == 1
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), exponential_average(model).view()]
    for each in copies:
        each.train()(torch.randn(8, 2))
        assert each.stem[1].num_batches_tracked == 0
    assert model.stem[1].num_batches_tracked == 0


def test_a_compiled_model_keeps_them_too() -> None:
    model = Net()
    parameter_groups(model, freeze=("stem",), eval_frozen=True)
    compiled = torch.compile(model, backend="eager")
    for _ in range(2):
        model.train()
        compiled(torch.randn(8, 2))
    assert model.stem[1].num_batches_tracked == 0
    assert parts(model, 0)[1].num_batches_tracked == 2


def test_patterns_are_a_list() -> None:
    with pytest.raises(TypeError, match="write a list of one"):
        freeze_parameters(Net(), "stem")
    model = Net()
    with pytest.raises(ValueError, match="a pattern is empty"):
        freeze_parameters(model, ("",))
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match="'plain' matches only what has no parameters"):
        freeze_parameters(Net(), ("plain",))
