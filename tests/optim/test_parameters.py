"""Parameter groups: which settings each parameter gets, and that each that is trained is in exactly one group."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, AdamW

from treenail.adapters.optim.grouped import grouped_optimizer, groups_below, summarize_frozen, summarize_groups
from treenail.adapters.optim.parameters import KeySettings, parameter_groups, with_loss
from treenail.contracts.parameters import ParameterGroup, ParameterGroups
from treenail.kernel import ConfigError

few = settings(deadline=None, max_examples=60)

adamw: Callable[[Any], AdamW] = partial(AdamW, lr=0.01, weight_decay=0.1)


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer0 = nn.Linear(2, 2)
        self.layer1 = nn.Linear(2, 2)


class ToyModel(nn.Module):
    """The model of the seeds: a backbone, and a head with a normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.ModuleDict({"linear": nn.Linear(2, 1), "bn": nn.BatchNorm1d(1)})


class DeformConv2d(nn.Conv2d):
    """Named as mmcv's is, with the layer that computes its offsets in it, as mmcv's packs have it."""

    def __init__(self) -> None:
        super().__init__(4, 4, 3)
        self.conv_offset = nn.Conv2d(4, 18, 3)


class Zoo(nn.Module):
    """One of every kind of parameter that rules tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.gamma = nn.Parameter(torch.ones(4))
        self.token = nn.Parameter(torch.ones(1, 4))
        self.conv = nn.Conv2d(1, 4, 3)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.grouped = nn.Conv2d(4, 4, 3, groups=2)
        self.line = nn.Conv1d(4, 8, 3, groups=4)
        self.bn = nn.BatchNorm2d(4)
        self.sync = nn.SyncBatchNorm(4)
        self.instance = nn.InstanceNorm1d(4, affine=True)
        self.group = nn.GroupNorm(2, 4)
        self.layer = nn.LayerNorm(4)
        self.rms = nn.RMSNorm(4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.lstm = nn.LSTM(4, 4)
        self.dcn = DeformConv2d()
        self.mixed = nn.Linear(4, 4)


def by_name(groups: ParameterGroups) -> dict[str, ParameterGroup]:
    return {name: group for group in groups.groups for name in group.parameters}


def factors(model: nn.Module, **rules: Any) -> dict[str, tuple[float, float]]:
    return {name: (each.lr_mult, each.decay_mult) for name, each in by_name(parameter_groups(model, **rules)).items()}


def rates(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, tuple[float, float]]:
    return {
        name: (group["lr"], group["weight_decay"])
        for name, parameter in model.named_parameters()
        for group in optimizer.param_groups
        if any(parameter is each for each in group["params"])
    }


def test_the_settings_of_custom_keys_multiply_those_of_the_optimizer() -> None:
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "cls_head": nn.Linear(2, 2)})
    groups = parameter_groups(model, custom_keys={"backbone": {"lr_mult": 0.1, "decay_mult": 0.9}})
    optimizer = grouped_optimizer(partial(SGD, lr=0.01, weight_decay=0.95), model, groups)
    assert [(each["name"], each["lr"], each["weight_decay"]) for each in optimizer.param_groups] == [
        ("backbone", 0.01 * 0.1, 0.95 * 0.9),
        ("default", 0.01, 0.95),
    ]
    assert [(each["lr_mult"], each["decay_mult"]) for each in optimizer.param_groups] == [(0.1, 0.9), (1.0, 1.0)]


def test_the_longest_key_counts_and_switches_the_other_rules_off() -> None:
    keys: dict[str, KeySettings] = {
        "backbone.layer0": {"lr_mult": 0.0, "decay_mult": 0.0},
        "backbone": {"lr_mult": 1.0},
        "head": {"lr_mult": 0.1},
    }
    found = factors(ToyModel(), custom_keys=keys, norm_decay_mult=0.0, bias_lr_mult=5.0, bias_decay_mult=0.0)
    assert found == {
        "backbone.layer0.weight": (0.0, 0.0),
        "backbone.layer0.bias": (0.0, 0.0),
        "backbone.layer1.weight": (1.0, 1.0),
        "backbone.layer1.bias": (1.0, 1.0),
        "head.linear.weight": (0.1, 1.0),
        "head.linear.bias": (0.1, 1.0),
        "head.bn.weight": (0.1, 1.0),
        "head.bn.bias": (0.1, 1.0),
    }


def test_of_equally_long_keys_the_first_in_the_alphabet_counts_and_a_key_may_stand_anywhere_in_a_name() -> None:
    found = factors(ToyModel(), custom_keys={"layer": {"lr_mult": 3.0}, "er0.w": {"lr_mult": 2.0}, "er1.w": {}})
    assert found["backbone.layer0.weight"] == (2.0, 1.0)
    assert found["backbone.layer1.weight"] == (1.0, 1.0)
    assert found["backbone.layer0.bias"] == (3.0, 1.0)


BIASES = {"conv", "grouped", "mixed", "attention.out_proj", "dcn"}
NORMS = {"bn", "sync", "instance", "group", "layer", "rms"}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            "bias_lr_mult",
            {f"{name}.bias" for name in BIASES | {"depthwise", "line"}}
            | {"attention.in_proj_bias", "lstm.bias_ih_l0", "lstm.bias_hh_l0"},
        ),
        (
            "bias_decay_mult",
            {f"{name}.bias" for name in BIASES} | {"attention.in_proj_bias", "lstm.bias_ih_l0", "lstm.bias_hh_l0"},
        ),
        (
            "norm_decay_mult",
            {f"{name}.{part}" for name in NORMS for part in ("weight", "bias")} - {"rms.bias"},
        ),
        ("dwconv_decay_mult", {f"{name}.{part}" for name in ("depthwise", "line") for part in ("weight", "bias")}),
        ("dcn_offset_lr_mult", {"dcn.conv_offset.weight", "dcn.conv_offset.bias"}),
    ],
)
def test_a_rule_is_for_its_kind_of_parameters_only(rule: str, expected: set[str]) -> None:
    found = factors(Zoo(), **{rule: 0.5})
    wanted = (0.5, 1.0) if "_lr_" in rule else (1.0, 0.5)
    assert {name for name, each in found.items() if each == wanted} == expected
    assert {each for name, each in found.items() if name not in expected} == {(1.0, 1.0)}


def test_flat_decay_is_for_parameters_of_no_or_one_dimension_that_no_rule_is_for() -> None:
    model = Zoo()
    flat = {name for name, each in model.named_parameters() if each.ndim <= 1 and "conv_offset" not in name}
    assert {"scale", "gamma", "bn.weight", "conv.bias", "rms.weight"} <= flat
    assert "token" not in flat
    alone = factors(model, flat_decay_mult=0.0)
    assert {name for name, each in alone.items() if each == (1.0, 0.0)} == flat
    beside = factors(model, flat_decay_mult=0.0, norm_decay_mult=0.5, bias_decay_mult=0.25, dwconv_decay_mult=0.75)
    assert {name for name, (_, decay) in beside.items() if decay == 0} == {"scale", "gamma"}
    assert (beside["bn.bias"], beside["conv.bias"], beside["depthwise.bias"]) == ((1, 0.5), (1, 0.25), (1, 0.75))


def test_the_offset_rule_takes_the_place_of_the_bias_rule_in_all_deformable_convolutions() -> None:
    model = nn.ModuleDict({"backbone": DeformConv2d(), "neck": nn.Sequential(DeformConv2d())})
    found = factors(model, dcn_offset_lr_mult=0.1, bias_lr_mult=2.0, bias_decay_mult=0.0, flat_decay_mult=0.0)
    assert found["backbone.conv_offset.bias"] == found["neck.0.conv_offset.weight"] == (0.1, 1.0)
    assert found["backbone.bias"] == (2.0, 0.0)
    assert factors(model, bias_lr_mult=2.0)["backbone.conv_offset.bias"] == (1.0, 1.0)


def test_factors_for_all_parameters_multiply_the_others() -> None:
    keys: dict[str, KeySettings] = {"head": {"lr_mult": 0.1}}
    found = factors(ToyModel(), lr_mult=2.0, decay_mult=3.0, bias_decay_mult=0.5, custom_keys=keys)
    assert found["backbone.layer0.weight"] == (2.0, 3.0)
    assert found["backbone.layer0.bias"] == (2.0, 1.5)
    assert found["head.bn.weight"] == (0.2, 3.0)


def test_equal_settings_share_one_group_with_a_name_that_says_why() -> None:
    groups = parameter_groups(ToyModel(), norm_decay_mult=0.0, bias_decay_mult=0.0)
    assert [(each.name, len(each.parameters)) for each in groups.groups] == [("default", 3), ("bias+norm", 5)]
    many: dict[str, KeySettings] = {f"{number}.": {"decay_mult": 0.5} for number in range(6)}
    several = parameter_groups(nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in range(7))), custom_keys=many)
    assert [each.name for each in several.groups] == ["0.+…+5.", "default"]


def test_groups_of_the_same_reason_and_other_settings_have_names_of_their_own() -> None:
    model = nn.ModuleList([nn.Conv1d(2, 2, 1), nn.Conv1d(2, 2, 1, groups=2)])
    groups = parameter_groups(model, bias_lr_mult=2.0, bias_decay_mult=0.0)
    assert {each.name: each.parameters for each in groups.groups} == {
        "default": ("0.weight", "1.weight"),
        "bias": ("0.bias",),
        "bias (3)": ("1.bias",),
    }


def test_options_of_a_key_are_the_groups_own_and_a_list_of_a_config_becomes_what_the_optimizer_has() -> None:
    model = ToyModel()
    groups = parameter_groups(model, custom_keys={"head": {"options": {"betas": [0.8, 0.9], "eps": 1e-4}}})
    optimizer = grouped_optimizer(adamw, model, groups)
    head = next(each for each in optimizer.param_groups if each["name"] == "head")
    assert (head["betas"], head["eps"], head["lr"]) == ((0.8, 0.9), 1e-4, 0.01)
    assert summarize_groups(model, optimizer)[1].options == {"betas": (0.8, 0.9), "eps": 1e-4}
    wrong = parameter_groups(model, custom_keys={"head": {"options": {"beta": 0.9}}})
    with pytest.raises(ConfigError, match=r"AdamW has no 'beta', which the group 'head' sets; did you mean 'betas'\?"):
        grouped_optimizer(adamw, model, wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"custom_keys": {".backbone": {"lr_mult": 0.1}}}, r"'\.backbone' is part of no .* did you mean 'backbone'\?"),
        ({"custom_keys": {"zzz": {}}}, r"'zzz' is part of no parameter's name; there are backbone, backbone\.layer0, "),
        ({"custom_keys": {"": {}}}, "a key is empty"),
        ({"custom_keys": {"head": {"lr_mul": 0.1}}}, "head: 'lr_mul' is no setting of a key; did you mean 'lr_mult'"),
        ({"custom_keys": {"head": {"momentum": 0.1}}}, "head: 'momentum' is no .*; other arguments .* are its options"),
        ({"custom_keys": {"head": {"lr_mult": -0.1}}}, r"head: lr_mult is -0\.1"),
        ({"bias_decay_mult": -1.0}, r"bias_decay_mult is -1\.0"),
        ({"lr_mult": float("nan")}, "lr_mult is nan"),
        ({"freeze": ("backbone.layr0*",)}, r"'backbone\.layr0\*' matches no .* did you mean 'backbone\.layer0'\?"),
        ({"freeze": ("head.act",)}, r"'head\.act' matches only what has no parameters"),
    ],
)
def test_what_matches_nothing_or_is_no_factor_is_an_error(arguments: dict[str, Any], message: str) -> None:
    model = ToyModel()
    model.head["act"] = nn.ReLU()
    with pytest.raises(ValueError, match=message):
        parameter_groups(model, **arguments)
    assert all(parameter.requires_grad for parameter in model.parameters()), "nothing was frozen"


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, 2)
        self.head = nn.Linear(2, 3)
        self.head.weight = self.embedding.weight


def test_a_shared_parameter_counts_once_by_its_first_name() -> None:
    model = Tied()
    groups = parameter_groups(model, custom_keys={"embedding": {"lr_mult": 0.5}, "head": {"lr_mult": 0.25}})
    assert {name: each.lr_mult for name, each in by_name(groups).items()} == {
        "embedding.weight": 0.5,
        "head.bias": 0.25,
    }
    grouped_optimizer(adamw, model, groups)
    with pytest.raises(
        ValueError, match=r"'head\.w' matches only 'head\.weight', .* same parameter as 'embedding\.weight'"
    ):
        parameter_groups(model, custom_keys={"head.w": {}})
    with pytest.raises(ValueError, match=r"'head\.weight' is the same parameter as 'embedding\.weight'; let bypass"):
        parameter_groups(model, bypass_duplicate=False)
    assert parameter_groups(model, freeze=("head",)).frozen == ("embedding.weight", "head.bias")


@few
@given(
    rules=st.fixed_dictionaries(
        {},
        optional={
            name: st.sampled_from([0.0, 0.5, 1.0, 2.0])
            for name in (
                "lr_mult",
                "decay_mult",
                "bias_lr_mult",
                "bias_decay_mult",
                "norm_decay_mult",
                "dwconv_decay_mult",
                "dcn_offset_lr_mult",
                "flat_decay_mult",
            )
        },
    ),
    keys=st.dictionaries(
        st.sampled_from(["conv", "dcn.", "weight", "bias", "m", "layer", "lstm.bias_"]),
        st.fixed_dictionaries({}, optional={"lr_mult": st.sampled_from([0.0, 1.0, 3.0])}),
        max_size=3,
    ),
    freeze=st.lists(st.sampled_from(["conv*", "dcn", "*.bias", "lstm", "[bs]*", "*norm*|x", "token"]), max_size=2),
)
def test_every_trained_parameter_is_in_exactly_one_group(
    rules: dict[str, float], keys: dict[str, KeySettings], freeze: list[str]
) -> None:
    model = Zoo()
    patterns = tuple(pattern for pattern in freeze if "|" not in pattern)
    groups = parameter_groups(model, **rules, custom_keys=keys, freeze=patterns)  # type: ignore[arg-type]  # as above
    grouped = [name for group in groups.groups for name in group.parameters]
    trained = [name for name, each in model.named_parameters() if each.requires_grad]
    assert sorted(grouped) == sorted(trained)
    assert sorted([*grouped, *groups.frozen]) == sorted(name for name, _ in model.named_parameters())
    different = [(each.lr_mult, each.decay_mult) for each in groups.groups]
    assert len(set(different)) == len(different), "equal settings are in several groups"
    assert len({each.name for each in groups.groups}) == len(groups.groups)
    assert all(group.parameters for group in groups.groups)
    optimizer = grouped_optimizer(adamw, model, groups)
    expected = {name: (0.01 * each.lr_mult, 0.1 * each.decay_mult) for name, each in by_name(groups).items()}
    assert rates(optimizer, model) == expected


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ((("a", "0.weight"),), r"'0\.bias', '1\.weight', '1\.bias' would be trained, but in no group"),
        (
            (("a", "0.weight", "0.bias"), ("b", "1.weight", "0.bias", "1.bias")),
            r"'0\.bias' is in the group 'b' and in 'a'",
        ),
        ((("a", "0.wieght"),), r"the group 'a' has '0\.wieght', and the model has not; did you mean '0\.weight'\?"),
        ((("a", "0.weight", "2.weight"),), r"'2\.weight' requires no gradient, and is in the group 'a'"),
    ],
)
def test_groups_that_are_not_exactly_what_is_trained_are_refused(groups: Any, message: str) -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1).requires_grad_(False))
    made = ParameterGroups(tuple(ParameterGroup(name, names) for name, *names in groups))
    with pytest.raises(ConfigError, match=f"parameters: {message}"):
        grouped_optimizer(adamw, model, made)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (AdamW, {"betas": [0.9]}, r"AdamW refuses the options {betas: \[0\.9\]} of the group 'slow'; it has 2 values"),
        (AdamW, {"betas": 3}, "{betas: 3} of the group 'slow'; it has 2 values"),
        (AdamW, {"betas": [0.9, 1.5], "eps": 1e-6}, r"{betas: \[0\.9, 1\.5\]} of the group 'slow'; Invalid beta"),
        (AdamW, {"amsgrad": "no"}, "{amsgrad: 'no'} of the group 'slow'; it is true or false"),
        (SGD, {"momentum": "high"}, "SGD refuses the options {momentum: 'high'} of the group 'slow'; it is a number"),
        (SGD, {"dampening": True}, "{dampening: True} of the group 'slow'; it is a number"),
        (SGD, {"lr": -3, "weight_decay": 0.1}, "{lr: -3} of the group 'slow'; Invalid learning rate: -3"),
        (SGD, {"lr": -3, "weight_decay": -1}, "{lr: -3, weight_decay: -1} of the group 'slow'; Invalid"),
        (SGD, {"nesterov": True}, "{nesterov: True} of the group 'slow'; Nesterov momentum requires a momentum"),
    ],
)
def test_options_that_the_optimizer_would_refuse_are_named(kind: Any, options: dict[str, object], message: str) -> None:
    model = ToyModel()
    groups = parameter_groups(model, custom_keys={"backbone": {"options": {}}, "head": {"options": options}})
    named = ParameterGroups(tuple(each._replace(name="slow") if each.options else each for each in groups.groups))
    with pytest.raises(ConfigError, match=f"parameters: .*{message}"):
        grouped_optimizer(partial(kind, lr=0.1), model, named)


def test_options_that_are_right_only_together_are_taken() -> None:
    model = nn.Linear(1, 1)
    groups = parameter_groups(model, custom_keys={"bias": {"options": {"nesterov": True, "momentum": 0.9}}})
    optimizer = grouped_optimizer(partial(SGD, lr=0.1), model, groups)
    assert [(each["nesterov"], each["momentum"]) for each in optimizer.param_groups] == [(False, 0), (True, 0.9)]


def test_an_optimizer_that_needs_more_than_its_defaults_takes_options() -> None:
    class Needy(SGD):
        def __init__(self, params: Any, lr: float, needed: object) -> None:
            super().__init__(params, lr)
            self.needed = needed

    model = nn.Linear(1, 1)
    groups = parameter_groups(model, custom_keys={"bias": {"options": {"lr": 0.5}}})
    optimizer = grouped_optimizer(partial(Needy, lr=0.1, needed=1), model, groups)
    assert [each["lr"] for each in optimizer.param_groups] == [0.1, 0.5]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ((ParameterGroup("a", ("weight",)), ParameterGroup("a", ("bias",))), "two groups are called 'a'"),
        ((ParameterGroup("a", ("weight", "bias"), float("nan")),), "lr_mult of the group 'a' is nan; .* at least 0"),
        ((ParameterGroup("a", ("weight", "bias"), 1.0, -1.0),), r"decay_mult of the group 'a' is -1\.0"),
    ],
)
def test_groups_without_sense_are_refused(groups: tuple[ParameterGroup, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        grouped_optimizer(adamw, nn.Linear(1, 1), ParameterGroups(groups))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr_mult": "2"}, "lr_mult is '2', must be a number of at least 0"),
        ({"bias_lr_mult": True}, "bias_lr_mult is True, must be a number"),
        ({"custom_keys": {"weight": 3}}, "weight: the settings are 3, must be a mapping"),
        ({"custom_keys": {"weight": {"lr_mult": "x"}}}, "weight: lr_mult is 'x', must be a number"),
        ({"custom_keys": {"weight": {"options": 3}}}, "weight: the options are 3, must be a mapping"),
        ({"custom_keys": {0: {"lr_mult": 2}}}, "the key 0 is no text"),
    ],
)
def test_arguments_of_another_kind_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parameter_groups(nn.Linear(1, 1), **arguments)


def test_a_group_of_nothing_is_left_out() -> None:
    model = nn.Linear(1, 1)
    groups = ParameterGroups((ParameterGroup("none", ()), ParameterGroup("all", ("weight", "bias"))))
    assert [each["name"] for each in grouped_optimizer(adamw, model, groups).param_groups] == ["all"]


def test_a_model_of_which_all_is_frozen_has_nothing_to_train() -> None:
    model = nn.Linear(1, 1)
    groups = parameter_groups(model, freeze=("*",))
    with pytest.raises(ConfigError, match="no parameter is left to train"):
        grouped_optimizer(adamw, model, groups)


def test_a_factor_of_what_the_optimizer_does_not_have_is_an_error() -> None:
    model = ToyModel()
    with pytest.raises(ConfigError, match="Rprop has no weight_decay for the decay_mult of 0 of the group 'norm'"):
        grouped_optimizer(torch.optim.Rprop, model, parameter_groups(model, norm_decay_mult=0.0))
    optimizer = grouped_optimizer(torch.optim.Rprop, model, parameter_groups(model, bias_lr_mult=2.0))
    assert [each["lr"] for each in optimizer.param_groups] == [0.01, 0.02]
    # One group is all that LBFGS takes.
    grouped_optimizer(torch.optim.LBFGS, model, parameter_groups(model))


def test_a_learning_rate_that_is_a_tensor_is_multiplied_and_shared_by_no_two_groups() -> None:
    model = ToyModel()
    lr = torch.tensor(0.01)
    groups = parameter_groups(model, bias_lr_mult=2.0, norm_decay_mult=0.0)
    optimizer = grouped_optimizer(partial(AdamW, lr=lr, foreach=False, capturable=False), model, groups)
    assert [float(each["lr"]) for each in optimizer.param_groups] == pytest.approx([0.01, 0.02, 0.01])
    optimizer.param_groups[0]["lr"].fill_(1.0)
    assert [float(each["lr"]) for each in optimizer.param_groups] == pytest.approx([1.0, 0.02, 0.01])
    assert float(lr) == pytest.approx(0.01)


def test_training_with_groups_equals_training_with_groups_made_by_hand() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    other = copy.deepcopy(model)
    groups = parameter_groups(model, norm_decay_mult=0.0, custom_keys={"2.": {"lr_mult": 3.0}})
    ours = grouped_optimizer(adamw, model, groups)
    by_hand: list[dict[str, Any]] = [
        {"params": other[0].parameters()},
        {"params": other[1].parameters(), "weight_decay": 0.0},
        {"params": other[2].parameters(), "lr": 0.03},
    ]
    theirs = adamw(by_hand)
    for _ in range(5):
        inputs = torch.randn(8, 4)
        for module, optimizer in ((model, ours), (other, theirs)):
            module(inputs).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    for mine, expected in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, expected)


def test_the_state_of_an_optimizer_with_groups_is_loaded_as_any() -> None:
    model = ToyModel()
    first, second = (grouped_optimizer(adamw, model, parameter_groups(model, bias_lr_mult=2.0)) for _ in range(2))
    first.param_groups[1]["lr"] = 0.5
    second.load_state_dict(first.state_dict())
    assert [each["lr"] for each in second.param_groups] == [0.01, 0.5]
    assert [each["name"] for each in second.param_groups] == ["default", "bias"]


def test_a_loss_with_parameters_is_trained_under_names_of_its_own() -> None:
    model, loss = nn.BatchNorm1d(2), nn.PReLU()
    both = with_loss(model, loss)
    groups = parameter_groups(both, norm_decay_mult=0.0, custom_keys={"loss.": {"lr_mult": 100.0}})
    assert {each.name: each.parameters for each in groups.groups} == {
        "norm": ("weight", "bias"),
        "loss.": ("loss.weight",),
    }
    optimizer = grouped_optimizer(adamw, both, groups)
    assert optimizer.param_groups[1]["params"] == [loss.weight]
    assert [name for name, _ in model.named_children()] == [], "the model itself was changed"
    with pytest.raises(ConfigError, match=r"'loss\.weight' would be trained, but in no group"):
        grouped_optimizer(adamw, both, parameter_groups(model))
    assert with_loss(model, nn.MSELoss()) is model
    assert with_loss(model, nn.functional.cross_entropy) is model
    with pytest.raises(ValueError, match="rename that"):
        with_loss(nn.ModuleDict({"loss": nn.Linear(1, 1)}), loss)


def test_the_groups_of_a_part_have_the_names_of_the_part() -> None:
    model = nn.ModuleDict({"generator": nn.Linear(1, 1), "generators": nn.Linear(1, 1), "judge": nn.Linear(1, 1)})
    groups = parameter_groups(model, bias_lr_mult=2.0, freeze=("judge.bias",))
    assert groups_below(groups, "generator").groups == (
        ParameterGroup("default", ("weight",)),
        ParameterGroup("bias", ("bias",), 2.0),
    )
    judge = groups_below(groups, "judge")
    assert ([each.name for each in judge.groups], judge.frozen) == (["default"], ("bias",))
    grouped_optimizer(adamw, model["judge"], judge)
    frozen = parameter_groups(model, freeze=("judge",))
    with pytest.raises(ConfigError, match=r"no parameter of 'judge' is left to train; .* leave out its optimizer"):
        groups_below(frozen, "judge")


def test_a_parameter_without_a_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'0\.weight' has no shape yet"):
        parameter_groups(nn.Sequential(nn.LazyLinear(2)))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[None]:
    """A world of this one process."""
    dist.init_process_group("gloo", init_method=(tmp_path / "world").as_uri(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("world")
def test_groups_made_before_fsdp2_hold_the_parameters_that_it_makes() -> None:
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    model, loss = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)), nn.PReLU()
    before = list(model.parameters())
    groups = parameter_groups(with_loss(model, loss), norm_decay_mult=0.0, freeze=("0",))
    fully_shard(model)
    optimizer = grouped_optimizer(adamw, with_loss(model, loss), groups)
    held = [each for group in optimizer.param_groups for each in group["params"]]
    assert sum(isinstance(each, DTensor) for each in held) == 4
    assert not any(each is old for each in held for old in before)
    assert [len(each["params"]) for each in optimizer.param_groups] == [2, 3]
    assert summarize_frozen(model).parameters == ("0.weight", "0.bias")
    model(torch.randn(4, 2)).sum().backward()
    optimizer.step()


@pytest.mark.usefixtures("world")
def test_options_are_those_of_the_optimizer_that_zero_divides() -> None:
    from treenail.adapters.comm import TorchCommunicator
    from treenail.adapters.parallel.zero_optimizer import ZeroOptimizer

    def build(groups: Any) -> ZeroOptimizer:
        return ZeroOptimizer(groups, adamw, TorchCommunicator())

    def made(options: dict[str, object]) -> ZeroOptimizer:
        model = nn.Linear(2, 2)
        return grouped_optimizer(build, model, parameter_groups(model, custom_keys={"bias": {"options": options}}))

    assert [each["betas"] for each in made({"betas": [0.8, 0.9]}).param_groups] == [(0.9, 0.999), (0.8, 0.9)]
    with pytest.raises(ConfigError, match=r"refuses the options {eps: -1\.0} of the group 'bias'; Invalid epsilon"):
        made({"eps": -1.0})


def test_names_are_found_below_what_torch_puts_around_modules() -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = parameter_groups(model, custom_keys={"1.": {"lr_mult": 2.0}})
    model[0] = checkpoint_wrapper(model[0])
    model[1] = torch.compile(model[1])  # type: ignore[assignment]  # a module, which its annotation does not say
    optimizer = grouped_optimizer(adamw, model, groups)
    assert [each.parameters for each in summarize_groups(model, optimizer)] == [
        ("0.weight", "0.bias"),
        ("1.weight", "1.bias"),
    ]
