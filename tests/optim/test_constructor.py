"""mmengine's constructor: its groups have mmengine's settings, but where mmengine breaks its own promises."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from typing import Any

import mmengine.optim as theirs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.logging import MMLogger
from torch import nn
from torch.optim import SGD

from tests.optim.test_parameters import DeformConv2d, Tied, ToyModel
from treenail.adapters.optim import compat
from treenail.adapters.optim.compat import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from treenail.adapters.optim.compat.constructor import DefaultOptimWrapperConstructor, build_optim_wrapper
from treenail.adapters.optim.parameters import parameter_groups
from treenail.adapters.registries.mmengine import RootRegistries
from treenail.kernel import BuildError, RegistryError

SGD_CFG: dict[str, Any] = {"type": "SGD", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}
CFG: dict[str, Any] = {"type": "OptimWrapper", "optimizer": SGD_CFG}

few = settings(deadline=None, max_examples=40)


@pytest.fixture(scope="module", autouse=True)
def _mmengine_is_silent() -> Iterator[None]:
    logger = MMLogger.get_instance("mmengine", logger_name="mmengine")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)


class Vision(nn.Module):
    """Kinds of parameters about which mmengine keeps its promises."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 4))
        self.stem = nn.Conv2d(3, 4, 3)
        self.backbone = nn.Sequential(
            nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4)
        )
        self.neck = nn.ModuleDict({"norm": nn.LayerNorm(4), "instance": nn.InstanceNorm2d(4, affine=True)})
        self.head = nn.Linear(4, 2)


def rates(wrapper: Any, model: nn.Module) -> dict[str, tuple[float, float]]:
    """Return the (learning rate, weight decay) of every parameter, each of which must be in one group."""
    found: dict[str, tuple[float, float]] = {}
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in wrapper.optimizer.param_groups:
        for parameter in group["params"]:
            assert names[parameter] not in found
            found[names[parameter]] = group["lr"], group["weight_decay"]
    return found


def both(model: nn.Module, paramwise: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what our constructor and mmengine's give."""
    ours = build_optim_wrapper(model, {**CFG, "paramwise_cfg": paramwise})
    mmengines = theirs.build_optim_wrapper(model, {**CFG, "paramwise_cfg": paramwise})
    return rates(ours, model), rates(mmengines, model)


FACTORS = ("bias_lr_mult", "norm_decay_mult", "dwconv_decay_mult", "dcn_offset_lr_mult", "flat_decay_mult")
KEYS = ("backbone", "backbone.0", "head", "norm", "weight", "stem.b", "stem.w", "e")


@few
@given(
    factors=st.fixed_dictionaries({}, optional=dict.fromkeys(FACTORS, st.sampled_from([0.0, 0.1, 1.0, 2.0]))),
    bias=st.none() | st.sampled_from([0.0, 2.0]),
    keys=st.dictionaries(
        st.sampled_from(KEYS),
        st.fixed_dictionaries(
            {}, optional={"lr_mult": st.sampled_from([0, 0.1]), "decay_mult": st.sampled_from([0, 2.0])}
        ),
        max_size=4,
    ),
)
def test_every_parameter_is_trained_as_by_mmengine(
    factors: dict[str, float], bias: float | None, keys: dict[str, dict[str, float]]
) -> None:
    paramwise: dict[str, Any] = {**factors, **({"custom_keys": keys} if keys else {})}
    if bias is not None:  # without a factor for them mmengine takes biases of norms for others
        paramwise |= {"bias_decay_mult": bias, "norm_decay_mult": factors.get("norm_decay_mult", 1.0)}
    model = Vision()
    ours, mmengines = both(model, paramwise)
    assert ours == mmengines
    present = {key: value for key, value in keys.items() if any(key in name for name, _ in model.named_parameters())}
    native = parameter_groups(model, **{**paramwise, "custom_keys": present})
    assert {
        name: (0.01 * group.lr_mult, 1e-4 * group.decay_mult) for group in native.groups for name in group.parameters
    } == ours


@pytest.mark.parametrize("paramwise", [None, {}])
def test_without_factors_all_parameters_are_one_group(paramwise: dict[str, Any] | None) -> None:
    model = Vision()
    wrapper = DefaultOptimWrapperConstructor(CFG, paramwise)(model)
    assert isinstance(wrapper, OptimWrapper)
    assert [each["params"] for each in wrapper.param_groups] == [list(model.parameters())]
    assert wrapper.get_lr() == {"lr": [0.01]}


def test_the_examples_of_the_class() -> None:
    convolution = nn.Conv1d(1, 1, 1)
    wrapper = DefaultOptimWrapperConstructor(CFG, {"norm_decay_mult": 0.0})(convolution)
    assert isinstance(wrapper, OptimWrapper)
    assert [(each["lr"], each["weight_decay"]) for each in wrapper.optimizer.param_groups] == [(0.01, 1e-4)]
    model = nn.ModuleDict({"backbone": nn.Linear(1, 1), "cls_head": nn.Linear(1, 1)})
    cfg: dict[str, Any] = {"optimizer": {"type": "SGD", "lr": 0.01, "weight_decay": 0.95}}
    keys = {"backbone": {"lr_mult": 0.1, "decay_mult": 0.9}}
    found = rates(DefaultOptimWrapperConstructor(cfg, {"custom_keys": keys})(model), model)
    assert {name: pair for name, pair in found.items() if name.endswith("weight")} == {
        "backbone.weight": (0.01 * 0.1, 0.95 * 0.9),
        "cls_head.weight": (0.01, 0.95),
    }


def logged(caplog: pytest.LogCaptureFixture, paramwise: dict[str, Any]) -> list[str]:
    with caplog.at_level(logging.INFO, logger="mmengine"):
        build_optim_wrapper(ToyModel(), {**CFG, "paramwise_cfg": paramwise})
    return [each.removeprefix("paramwise_options -- ") for each in caplog.messages]


def test_the_log_tells_what_biases_and_norms_get(caplog: pytest.LogCaptureFixture) -> None:
    lines = logged(caplog, {"bias_lr_mult": 1, "bias_decay_mult": 1, "norm_decay_mult": 0})
    biases = ("backbone.layer0.bias", "backbone.layer1.bias", "head.linear.bias")
    assert lines == [
        *(f"{name}:{each}" for name in biases for each in ("lr=0.01", "weight_decay=0.0001")),
        "head.bn.weight:weight_decay=0.0",
        "head.bn.bias:weight_decay=0.0",
    ]


def test_the_log_tells_what_custom_keys_give_and_the_groups_keep_it(caplog: pytest.LogCaptureFixture) -> None:
    keys = {
        "backbone.layer0": {"lr_mult": 0, "decay_mult": 0},
        "backbone": {"lr_mult": 1},
        "head": {"lr_mult": 0.1},
    }
    lines = logged(caplog, {"custom_keys": keys})
    frozen = ("lr=0.0", "weight_decay=0.0", "lr_mult=0", "decay_mult=0")
    slow = ("lr=0.001", "weight_decay=0.0001", "lr_mult=0.1")
    assert lines == [
        *(f"backbone.layer0.{name}:{each}" for name in ("weight", "bias") for each in frozen),
        *(
            f"backbone.layer1.{name}:{each}"
            for name in ("weight", "bias")
            for each in ("lr=0.01", "weight_decay=0.0001", "lr_mult=1")
        ),
        *(f"head.{name}:{each}" for name in ("linear.weight", "linear.bias", "bn.weight", "bn.bias") for each in slow),
    ]
    wrapper = build_optim_wrapper(ToyModel(), {**CFG, "paramwise_cfg": {"custom_keys": keys}})
    assert isinstance(wrapper, OptimWrapper)
    assert [each.get("lr_mult") for each in wrapper.param_groups] == [0, 1, 0.1], "equal ones are one group"


class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """The constructor of the seeds: the learning rate falls with the depth in the tree of modules."""

    def __init__(self, optim_wrapper_cfg: Any, paramwise_cfg: Any = None) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg=None)
        self.decay_factor = paramwise_cfg.get("decay_factor", 0.5)
        super().__init__(optim_wrapper_cfg, paramwise_cfg)

    def add_params(self, params: Any, module: Any, prefix: str = "", lr: Any = None) -> None:
        lr = self.base_lr if lr is None else lr
        for name, parameter in module.named_parameters(recurse=False):
            params.append({"params": [parameter], "lr": lr, "names": [f"{prefix}.{name}".lstrip(".")]})
        for name, child in module.named_children():
            self.add_params(params, child, prefix=f"{prefix}.{name}".lstrip("."), lr=lr * self.decay_factor)


def test_a_subclass_with_an_add_params_of_its_own_is_found_by_its_registered_name() -> None:
    registries = RootRegistries()
    registries.OPTIM_WRAPPER_CONSTRUCTORS.register_module(module=LayerDecayOptimWrapperConstructor)

    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.ModuleDict({"linear": nn.Linear(1, 1)})
            self.linear = nn.Linear(1, 1)

    cfg = {
        "optimizer": {"type": "SGD", "lr": 0.01},
        "constructor": "LayerDecayOptimWrapperConstructor",
        "paramwise_cfg": {"decay_factor": 0.5},
    }
    before = copy.deepcopy(cfg)
    wrapper = build_optim_wrapper(Nested(), cfg, registries=registries)
    assert isinstance(wrapper, OptimWrapper)
    assert [(each["names"][0], each["lr"]) for each in wrapper.optimizer.param_groups] == [
        ("layer.linear.weight", 0.0025),
        ("layer.linear.bias", 0.0025),
        ("linear.weight", 0.005),
        ("linear.bias", 0.005),
    ]
    assert cfg == before, "the caller's config was changed"
    with pytest.raises(RegistryError, match="did you mean 'LayerDecayOptimWrapperConstructor'"):
        build_optim_wrapper(Nested(), {**cfg, "constructor": "LayerDecayOptimWraperConstructor"}, registries=registries)


def test_configs_stay_what_they_are_whatever_a_constructor_does_to_them() -> None:
    class Careless(DefaultOptimWrapperConstructor):
        def __init__(self, optim_wrapper_cfg: Any, paramwise_cfg: Any = None) -> None:
            super().__init__(optim_wrapper_cfg, paramwise_cfg)
            optim_wrapper_cfg["optimizer"].clear()
            paramwise_cfg["custom_keys"].clear()

    cfg = {**CFG, "constructor": Careless, "paramwise_cfg": {"lr_mult": 0.1, "custom_keys": {"head": {"lr_mult": 0.5}}}}
    before = copy.deepcopy(cfg)
    build_optim_wrapper(ToyModel(), cfg)
    assert cfg == before
    twice = [DefaultOptimWrapperConstructor(CFG, {"lr_mult": 0.1, "decay_mult": 10.0}) for _ in range(2)]
    assert [(each.base_lr, each.base_wd) for each in twice] == [(0.001, 0.001)] * 2
    assert SGD_CFG["lr"] == 0.01


def test_a_constructor_of_several_optimizers_is_any_class() -> None:
    class Gan:
        def __init__(self, optim_wrapper_cfg: Any, paramwise_cfg: Any = None) -> None:
            self.cfg = optim_wrapper_cfg

        def __call__(self, model: nn.Module) -> OptimWrapperDict:
            return OptimWrapperDict(
                **{name: build_optim_wrapper(part, self.cfg[name]) for name, part in model.named_children()}  # type: ignore[arg-type]  # of one optimizer
            )

    model = nn.ModuleDict({"generator": nn.Linear(1, 1), "discriminator": nn.Linear(1, 1)})
    slow = {"optimizer": {"type": "SGD", "lr": 0.5}}
    made = build_optim_wrapper(model, {"constructor": Gan, "generator": CFG, "discriminator": slow})
    assert isinstance(made, OptimWrapperDict)
    assert made.get_lr() == {"generator.lr": [0.01], "discriminator.lr": [0.5]}


def test_the_wrapper_is_of_the_type_and_with_the_arguments_of_the_config() -> None:
    plain = build_optim_wrapper(
        Vision(), {"optimizer": SGD_CFG, "accumulative_counts": 4, "clip_grad": {"max_norm": 0.2}}
    )
    assert type(plain) is OptimWrapper
    assert (plain.accumulative_counts, plain.clip_grad_kwargs) == (4, {"max_norm": 0.2})
    amp = build_optim_wrapper(Vision(), {"type": "AmpOptimWrapper", "optimizer": SGD_CFG, "dtype": "bfloat16"})
    assert type(amp) is AmpOptimWrapper
    with pytest.raises(RegistryError, match="AmpOptimWraper"):
        build_optim_wrapper(Vision(), {**CFG, "type": "AmpOptimWraper"})


def test_optimizers_are_classes_or_names_of_the_registry_whatever_they_call_their_parameters() -> None:
    class Hybrid(SGD):
        def __init__(self, model_params: Any, lr: float) -> None:
            super().__init__(model_params, lr=lr)

    registries = RootRegistries()
    registries.OPTIMIZERS.register_module(module=Hybrid)
    for cfg in ({"type": "Hybrid", "lr": 0.1}, {"type": Hybrid, "lr": 0.1}):
        for paramwise in (None, {"bias_lr_mult": 2.0}):
            made = build_optim_wrapper(Vision(), {"optimizer": cfg, "paramwise_cfg": paramwise}, registries=registries)
            assert type(made.optimizer) is Hybrid  # type: ignore[union-attr]  # of one optimizer


def test_a_model_below_its_wrapper_is_trained_and_one_that_has_a_child_of_that_name_is_no_wrapper() -> None:
    model = Vision()
    keys = {"custom_keys": {"module": {"lr_mult": 0.1}}}
    wrapped = build_optim_wrapper(nn.DataParallel(model), {**CFG, "paramwise_cfg": keys})
    assert set(rates(wrapped, model).values()) == {(0.01, 1e-4)}
    outer = nn.ModuleDict({"module": nn.Linear(1, 1), "head": nn.Linear(1, 1)})
    ours = rates(build_optim_wrapper(outer, {**CFG, "paramwise_cfg": keys}), outer)
    assert ours["head.weight"] == (0.01, 1e-4)
    assert ours["module.weight"] == (0.001, 1e-4)
    mmengines = theirs.build_optim_wrapper(outer, {**CFG, "paramwise_cfg": keys})
    assert len(mmengines.optimizer.param_groups) == 2, "mmengine does not train the head"


def test_frozen_and_shared_parameters_are_skipped_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    model = Tied()
    model.head.bias.requires_grad_(False)
    with pytest.raises(ValueError, match=r"'head\.weight' is shared .* bypass_duplicate=True"):
        build_optim_wrapper(model, {**CFG, "paramwise_cfg": {"norm_decay_mult": 0.0}})
    caplog.clear()
    wrapper = build_optim_wrapper(model, {**CFG, "paramwise_cfg": {"bypass_duplicate": True}})
    assert rates(wrapper, model) == {"embedding.weight": (0.01, 1e-4)}
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "head.weight is a duplicate, and is skipped since bypass_duplicate=True",
        "head.bias is skipped since its requires_grad=False",
    ]


def test_a_key_that_matches_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    build_optim_wrapper(ToyModel(), {**CFG, "paramwise_cfg": {"custom_keys": {".backbone": {"lr_mult": 0.1}}}})
    assert caplog.messages == ["the custom key '.backbone' is part of no parameter's name; did you mean 'backbone'?"]


def test_offsets_of_deformable_convolutions_have_a_factor_of_their_own_at_any_depth() -> None:
    model = nn.Sequential(DeformConv2d())
    model[0].conv_offset = nn.Sequential(nn.Conv2d(4, 18, 3))
    paramwise = {"dcn_offset_lr_mult": 0.1, "bias_lr_mult": 2.0, "bias_decay_mult": 0.0}
    found = rates(build_optim_wrapper(model, {**CFG, "paramwise_cfg": paramwise}), model)
    assert found == {
        "0.weight": (0.01, 1e-4),
        "0.bias": (0.02, 0.0),
        "0.conv_offset.0.weight": (0.001, 1e-4),
        "0.conv_offset.0.bias": (0.001, 1e-4),
    }


def test_where_mmengine_breaks_its_promises() -> None:
    model = nn.ModuleDict({"bn": nn.BatchNorm2d(2), "dw": nn.Conv2d(2, 2, 1, groups=2), "conv": nn.Conv2d(1, 2, 1)})
    ours, mmengines = both(model, {"bias_decay_mult": 0.0})
    assert (mmengines["bn.bias"], mmengines["dw.bias"]) == ((0.01, 0.0), (0.01, 0.0))
    assert (ours["bn.bias"], ours["dw.bias"]) == ((0.01, 1e-4), (0.01, 1e-4)), (
        "biases of norms and depthwise are excepted"
    )
    ours, mmengines = both(model, {"bias_decay_mult": 0.0, "dwconv_decay_mult": 0.5})
    assert (mmengines["dw.bias"], ours["dw.bias"]) == ((0.01, 0.0), (0.01, 0.5e-4))
    assert (mmengines["conv.weight"], ours["conv.weight"]) == ((0.01, 0.5e-4), (0.01, 1e-4)), (
        "one channel is not depthwise"
    )
    ours, mmengines = both(model, {"lr_mult": 0.1, "decay_mult": 2.0})
    assert (mmengines["conv.weight"], ours["conv.weight"]) == ((0.01, 1e-4), (0.001, 2e-4)), (
        "factors for all parameters"
    )

    class Scaled(nn.LSTM):
        def __init__(self) -> None:
            super().__init__(1, 1)
            self.scale = nn.Parameter(torch.tensor(1.0))
            self.norm = nn.RMSNorm(1)

    lstm = Scaled()
    ours, mmengines = both(lstm, {"bias_lr_mult": 2.0, "norm_decay_mult": 0.0, "flat_decay_mult": 0.5})
    assert (mmengines["bias_ih_l0"], ours["bias_ih_l0"]) == ((0.01, 0.5e-4), (0.02, 0.5e-4)), "a bias by another name"
    assert (mmengines["norm.weight"], ours["norm.weight"]) == ((0.01, 0.5e-4), (0.01, 0.0)), "RMSNorm is a norm"
    assert (mmengines["scale"], ours["scale"]) == ((0.01, 1e-4), (0.01, 0.5e-4)), "flat without a dimension"


@pytest.mark.parametrize(
    ("cfg", "paramwise", "error", "message"),
    [
        ([], None, TypeError, "optim_wrapper_cfg is a list, must be a dict"),
        ({"optimzer": SGD_CFG}, None, ValueError, "has no 'optimizer'; rename 'optimzer' to it"),
        (CFG, [], TypeError, "paramwise_cfg is a list, must be a dict"),
        (CFG, {"custom_keys": ["backbone"]}, TypeError, "custom_keys is a list"),
        (
            {"optimizer": {"type": "SGD", "lr": 0.1}},
            {"norm_decay_mult": 0.0},
            ValueError,
            "'norm_decay_mult' has no weight_decay",
        ),
        (
            {"optimizer": {"type": "SGD", "lr": 0.1}},
            {"custom_keys": {"a": {"decay_mult": 0}}},
            ValueError,
            "no weight_decay",
        ),
        (
            {"optimizer": {"type": "Adadelta"}},
            {"bias_lr_mult": 2.0},
            ValueError,
            "'bias_lr_mult' has no lr to multiply",
        ),
        (
            CFG,
            {"norm_decay_mlt": 0},
            ValueError,
            "'norm_decay_mlt', which means nothing; did you mean 'norm_decay_mult'",
        ),
        (CFG, {"norm_decay_mult": -1}, ValueError, "norm_decay_mult is -1, must be a number of at least 0"),
        (CFG, {"lr_mult": "2"}, ValueError, "paramwise_cfg: lr_mult is '2', must be a number"),
        (CFG, {"custom_keys": {"a": {"decay_mult": -1}}}, ValueError, "a: decay_mult is -1, must be a number"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(
    cfg: Any, paramwise: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        DefaultOptimWrapperConstructor(cfg, paramwise)


def test_what_is_wrong_with_an_optimizer_says_where() -> None:
    with pytest.raises(RegistryError, match="did you mean 'SGD'"):
        build_optim_wrapper(Vision(), {"optimizer": {"type": "SDG", "lr": 0.1}})
    with pytest.raises(BuildError, match="Invalid learning rate"):
        build_optim_wrapper(Vision(), {"optimizer": {"type": "SGD", "lr": -1.0}})
    with pytest.raises(TypeError, match="cfg is a str"):
        build_optim_wrapper(Vision(), "SGD")  # type: ignore[arg-type]  # which is what is tested


def test_a_setting_of_a_key_that_the_optimizer_has_not_is_refused() -> None:
    def built(settings: dict[str, object]) -> OptimWrapper | OptimWrapperDict:
        return build_optim_wrapper(ToyModel(), {**CFG, "paramwise_cfg": {"custom_keys": {"head": settings}}})

    with pytest.raises(
        ValueError, match="key 'head' has 'lr_mlt', which the optimizer has not; did you mean 'lr_mult'"
    ):
        built({"lr_mlt": 0})
    wrapper = built({"lr_mult": 2, "momentum": 0.5})
    assert isinstance(wrapper, OptimWrapper)
    assert wrapper.get_momentum() == {"momentum": [0.9, 0.5]}


def test_entries_and_settings_of_a_subclass_are_its_own() -> None:
    class Own(DefaultOptimWrapperConstructor):
        pass

    keys = {"head": {"lr_mult": -1.0, "mine": 3}}
    wrapper = Own(CFG, {"mine": True, "custom_keys": keys})(ToyModel())
    assert isinstance(wrapper, OptimWrapper)
    assert [(each["lr"], each.get("mine")) for each in wrapper.param_groups] == [(0.01, None), (-0.01, 3)]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"type": "AmpOptimWraper"}, "knows no 'AmpOptimWraper'; did you mean 'AmpOptimWrapper'"),
        ({"type": "Nope"}, "knows no 'Nope'; .*; our own: OptimWrapper, AmpOptimWrapper"),
        ({"constructor": "Nope"}, "knows no 'Nope'; .*; our own: DefaultOptimWrapperConstructor"),
        ({"constructor": "DefaultOptimWraperConstructor"}, "did you mean 'DefaultOptimWrapperConstructor'"),
    ],
)
def test_our_own_names_are_offered(entry: dict[str, str], message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        build_optim_wrapper(ToyModel(), {**CFG, **entry})


def test_a_group_of_a_subclass_may_hold_one_parameter_or_a_tensor_for_a_learning_rate() -> None:
    rate = torch.tensor(0.5)

    class Own(DefaultOptimWrapperConstructor):
        def add_params(self, params: Any, module: nn.Module, **_: Any) -> None:  # type: ignore[override]  # no prefix
            weight, bias = module.parameters()
            params += [{"params": weight, "lr": rate}, {"params": (bias,), "lr": rate}]

    model = nn.Linear(1, 1)
    wrapper = Own(CFG, {"mine": True})(model)
    assert isinstance(wrapper, OptimWrapper)
    assert [each["params"] for each in wrapper.param_groups] == [[model.weight, model.bias]]


def test_the_names_are_public() -> None:
    assert compat.DefaultOptimWrapperConstructor is DefaultOptimWrapperConstructor
    assert compat.build_optim_wrapper is build_optim_wrapper
