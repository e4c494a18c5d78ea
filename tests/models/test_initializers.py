"""Initialisers draw the weights that mmengine's draw, bit for bit, and modules tell what initialised them."""

from __future__ import annotations

import copy
import io
import logging
from pathlib import Path
from typing import Any

import mmengine.model as theirs
import pytest
import torch
from mmengine.logging import MMLogger as TheirLogger
from torch import Tensor, nn

import treenail.adapters.models as ours
from treenail.adapters.logging.compat import MMLogger
from treenail.adapters.models import BaseInit, BaseModule, initialize, update_init_info
from treenail.kernel import CheckpointError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2, bias=False))
    )


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    "config",
    [
        {"type": "Constant", "layer": "Conv2d", "val": 2, "bias": 3},
        {"type": "Constant", "layer": ["Linear", "_BatchNorm"], "val": 0.5, "bias_prob": 0.01},
        {"type": "Xavier", "layer": ["Conv2d", "Linear"], "gain": 2},
        {"type": "Xavier", "layer": "Linear", "distribution": "uniform", "bias": 1},
        {"type": "Normal", "layer": "Conv2d", "mean": 1, "std": 0.02},
        {"type": "Uniform", "layer": "Linear", "a": -3, "b": -2},
        {"type": "Kaiming", "layer": ["Conv2d", "Linear"]},
        {
            "type": "Kaiming",
            "layer": "Conv2d",
            "a": 1,
            "mode": "fan_in",
            "nonlinearity": "leaky_relu",
            "distribution": "uniform",
        },
        {"type": "Caffe2Xavier", "layer": "Conv2d", "bias": 4},
        {
            "type": "Constant",
            "val": 1,
            "layer": "Linear",
            "override": {"type": "Constant", "name": "0", "val": 3, "bias": 4},
        },
        {"type": "Normal", "std": 2, "layer": "Linear", "override": [{"name": "0"}, {"name": "2", "type": "Xavier"}]},
        {"type": "Uniform", "override": {"name": "2"}},
        [{"type": "Constant", "layer": "Conv2d", "val": 1}, {"type": "Kaiming", "layer": "Linear"}],
        [{"type": ours.NormalInit, "layer": "Linear", "std": 3}],
        [],
    ],
    ids=str,
)
def test_they_draw_what_mmengines_do(config: Any) -> None:
    mine, other, before = network(), network(), copy.deepcopy(config)
    torch.manual_seed(1)
    initialize(mine, config)
    torch.manual_seed(1)
    if config and isinstance(config, list) and config[0]["type"] is ours.NormalInit:
        theirs.initialize(other, [{**config[0], "type": theirs.NormalInit}])
    else:
        theirs.initialize(other, config)
    assert same(mine, other)
    assert config == before
    assert same(mine, network()) == (config == []), "it did nothing"


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("constant_init", (2, 3)),
        ("xavier_init", (2, 1, "uniform")),
        ("normal_init", (1, 2, 3)),
        ("uniform_init", (-1, 1, 2)),
        ("kaiming_init", (1, "fan_in", "leaky_relu", 2, "uniform")),
        ("caffe2_xavier_init", (2,)),
    ],
)
def test_functions_do_too(function: str, arguments: tuple[Any, ...]) -> None:
    one, other = nn.Linear(4, 5), nn.Linear(4, 5)
    torch.manual_seed(1)
    getattr(ours, function)(one, *arguments)
    torch.manual_seed(1)
    getattr(theirs, function)(other, *arguments)
    assert same(one, other)
    getattr(ours, function)(nn.ReLU(), *arguments)


def test_truncated_normals_are_of_the_same_distribution() -> None:
    # torch draws them by rejection since 2.13, mmengine by an inverse of float32, whose tails are coarse.
    one, other = nn.Sequential(nn.Linear(300, 300)), nn.Sequential(nn.Linear(300, 300))
    config = {"type": "TruncNormal", "layer": "Linear", "mean": 0.1, "std": 0.7, "a": -1, "b": 0.5, "bias": 2}
    torch.manual_seed(0)
    initialize(one, config)
    theirs.initialize(other, config)
    mine, expected = ([value.detach() for value in each.parameters()] for each in (one, other))
    assert -1 <= float(mine[0].min()) < -0.99
    assert 0.49 < float(mine[0].max()) <= 0.5
    torch.testing.assert_close(mine[0].mean(), expected[0].mean(), atol=0.01, rtol=0)
    torch.testing.assert_close(mine[0].std(), expected[0].std(), atol=0.01, rtol=0)
    assert mine[1].eq(2).all()


def test_a_prior_probability_makes_a_bias() -> None:
    assert ours.bias_init_with_prob(0.01) == theirs.bias_init_with_prob(0.01)
    with pytest.raises(ValueError, match="a prior probability is 1, must be between 0 and 1"):
        ours.bias_init_with_prob(1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "Kaimin", "layer": "Linear"}, "'Kaimin' is no initialiser: did you mean 'Kaiming'"),
        ({"layer": "Linear"}, "has no 'type'"),
        ({"type": "Kaiming"}, "KaimingInit names no layer, and would do nothing"),
        (
            {"type": "Kaiming", "layer": "Linear", "vall": 1},
            "the init_cfg of the type 'Kaiming' does not fit: .*'vall'",
        ),
        ({"type": "Constant", "layer": "Linear"}, "'Constant' does not fit: .*'val'"),
        ({"type": "Xavier", "layer": "Linear", "distribution": "gauss"}, "distribution is 'gauss', must be normal or"),
        ({"type": "Xavier", "layer": "Linear", "override": {"type": "Xavier"}}, "has no 'name'"),
        (
            {"type": "Xavier", "layer": "Linear", "override": {"name": "2", "bias": 1}},
            "override of '2' has no 'type', only bias",
        ),
        (
            {"type": "Xavier", "layer": "Linear", "override": {"name": "head"}},
            "Sequential has no part 'head' to override",
        ),
    ],
)
def test_a_config_of_no_meaning_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        initialize(network(), config)


def test_what_is_no_config_is_refused() -> None:
    for wrong in ("Xavier", [1], 3):
        with pytest.raises(TypeError, match="must be a config with a 'type', or a list of such"):
            initialize(network(), wrong)  # type: ignore[arg-type]  # wrong on purpose


# Modules


def modules(base: Any) -> Any:
    """Return the same nested modules on mmengine's base classes or ours."""

    class Inner(base.BaseModule):  # type: ignore[misc]
        def __init__(self, init_cfg: Any = None) -> None:
            super().__init__(init_cfg)
            self.conv = nn.Conv1d(2, 2, 1)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def init_weights(self) -> None:
            nn.init.constant_(self.linear.weight, 9)

    class Outer(base.BaseModule):  # type: ignore[misc]
        def __init__(self, init_cfg: Any) -> None:
            super().__init__(init_cfg)
            self.first = nn.Conv1d(2, 2, 1)
            self.plain = Inner()
            self.other = Inner({"type": "Constant", "layer": "Conv1d", "val": 7, "bias": 8})
            self.own = Own()
            self.rest = base.Sequential(nn.Linear(2, 2), init_cfg={"type": "Uniform", "layer": "Linear"})
            self.listed = base.ModuleList([nn.Linear(2, 2)], init_cfg={"type": "Normal", "layer": "Linear"})
            self.named = base.ModuleDict({"a": nn.Linear(2, 2)}, init_cfg={"type": "Xavier", "layer": "Linear"})

    return Outer


CONFIG = {"type": "Kaiming", "layer": "Conv1d", "override": {"name": "first", "type": "Xavier"}}


def told(outer: Any, logger: logging.Logger) -> list[str]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    torch.manual_seed(2)
    outer.init_weights()
    logger.removeHandler(handler)
    return [" ".join(line.split()).removesuffix(":") for line in stream.getvalue().splitlines() if line.strip()]


def test_modules_are_initialised_from_outside_in_and_tell_as_mmengines_do() -> None:
    torch.manual_seed(0)
    mine = modules(ours)(CONFIG)
    torch.manual_seed(0)
    other = modules(theirs)(CONFIG)
    lines = told(mine, MMLogger.get_instance("models", logger_name="models"))
    expected = told(other, TheirLogger.get_instance("their models", logger_name="theirs"))
    assert same(mine, other)
    assert lines == [line.replace("distribution =", "distribution=") for line in expected]
    assert "first.weight - torch.Size([2, 2, 1])" in lines
    assert lines[1] == "XavierInit: gain=1, distribution=normal, bias=0"
    assert (
        lines[3] == "KaimingInit: a=0, mode=fan_out, nonlinearity=relu, distribution=normal, bias=0"
    )  # 0 before and after
    assert not any("_params_init_info" in module.__dict__ for module in mine.modules())


def test_a_second_initialisation_changes_nothing() -> None:
    module = modules(ours)(CONFIG)
    assert not module.is_init
    module.init_weights()
    assert module.is_init
    before = copy.deepcopy(module)
    with pytest.warns(UserWarning, match="weights of Outer were initialised before"):
        module.init_weights()
    assert same(module, before)


def test_modules_in_plain_containers_are_reached() -> None:
    class Leaf(BaseModule):
        def __init__(self) -> None:
            super().__init__({"type": "Constant", "layer": "Linear", "val": 5})
            self.linear = nn.Linear(1, 1)

    leaf = Leaf()
    ours.Sequential(nn.Sequential(leaf)).init_weights()
    assert leaf.linear.weight.eq(5).all()
    assert repr(Leaf()).endswith("init_cfg={'type': 'Constant', 'layer': 'Linear', 'val': 5}")


def test_what_changed_is_noted_only_while_weights_are_initialised() -> None:
    with pytest.raises(ValueError, match="no init_weights runs that notes what it does to Linear"):
        update_init_info(nn.Linear(1, 1), "by hand")

    class Grows(nn.Module):
        def init_weights(self) -> None:
            self.late = nn.Parameter(torch.ones(1))

    outer = ours.Sequential(Grows())
    with pytest.raises(ValueError, match="the parameter 'late' of Grows was added or replaced by an init_weights"):
        outer.init_weights()
    assert not any("_params_init_info" in module.__dict__ for module in outer.modules())


def test_own_initialisers_are_named_by_their_class() -> None:
    class Half(BaseInit):
        def fill(self, module: nn.Module) -> None:
            nn.init.constant_(module.weight, 0.5)  # type: ignore[arg-type]  # a Linear's

    model = nn.Sequential(nn.Linear(2, 2))
    initialize(model, {"type": Half, "layer": "Linear"})
    weight = model[0].weight
    assert isinstance(weight, Tensor)
    assert weight.eq(0.5).all()


# Pretrained


def test_pretrained_weights_come_last_and_only_where_they_fit(tmp_path: Path) -> None:
    backbone = nn.Linear(2, 2)
    trained = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(2, 9)})
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "trained.pth")
    path = str(tmp_path / "trained.pth")

    class Net(BaseModule):
        def __init__(self) -> None:
            constant = {"type": "Constant", "layer": "Linear", "val": 1}
            super().__init__([{"type": "Pretrained", "checkpoint": path}, constant])
            self.backbone, self.head = nn.Linear(2, 2), nn.Linear(2, 3)

    net = Net()
    net.init_weights()
    assert torch.equal(net.backbone.weight, backbone.weight)
    assert net.head.weight.eq(1).all(), "of another shape"
    part = nn.Linear(2, 2)
    initialize(part, {"type": "Pretrained", "checkpoint": path, "prefix": "backbone."})
    assert torch.equal(part.weight, backbone.weight)
    with pytest.raises(CheckpointError, match=r"missing\.pth"):
        initialize(part, {"type": "Pretrained", "checkpoint": str(tmp_path / "missing.pth")})


def test_complex_weights_are_noted_too() -> None:
    module = ours.Sequential(nn.Linear(2, 2), init_cfg={"type": "Constant", "layer": "Linear", "val": 3})
    module.register_parameter("phases", nn.Parameter(torch.ones(2, dtype=torch.complex64)))
    module.init_weights()
    assert module.is_init
