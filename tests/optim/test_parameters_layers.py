"""Layer-wise decay: how far below the head each parameter stands."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import AdamW

from treenail.adapters.optim.grouped import grouped_optimizer
from treenail.adapters.optim.layer_decay import layer_decay
from treenail.adapters.optim.parameters import parameter_groups
from treenail.contracts.parameters import ParameterGroups
from treenail.kernel import late


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2)
        self.experts = nn.ModuleList([nn.Linear(2, 2) for _ in range(2)])


class VisionTransformer(nn.Module):
    def __init__(self, depth: int = 12, stack: type[nn.ModuleList] | type[nn.Sequential] = nn.ModuleList) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 2))
        self.patch_embed = nn.Conv2d(3, 2, 4)
        blocks = [Block() for _ in range(depth)]
        self.blocks = nn.ModuleList(blocks) if stack is nn.ModuleList else nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(2)
        self.head = nn.Linear(2, 5)


def factors(groups: ParameterGroups) -> dict[str, float]:
    return {name: group.lr_mult for group in groups.groups for name in group.parameters}


def beit(name: str, depth: int, decay: float) -> float:
    """Return the factor as BEiT's code has it: by the number of the layer."""
    if name in ("cls_token", "patch_embed.weight", "patch_embed.bias"):
        number = 0
    elif name.startswith("blocks."):
        number = int(name.split(".")[1]) + 1
    else:
        number = depth + 1
    return decay ** (depth + 1 - number)


@settings(deadline=None, max_examples=20)
@given(
    depth=st.integers(2, 6),
    decay=st.sampled_from([0.5, 0.65, 0.75, 0.9]),
    stack=st.sampled_from([nn.ModuleList, nn.Sequential]),
    named=st.booleans(),
)
def test_the_factors_are_those_of_beit(
    depth: int, decay: float, stack: type[nn.ModuleList], named: bool
) -> None:  # drawn
    model = VisionTransformer(depth, stack)
    layers = ("blocks.*",) if named else None
    found = factors(layer_decay(model, decay=decay, layers=layers))
    assert found == pytest.approx({name: beit(name, depth, decay) for name, _ in model.named_parameters()})


def test_twelve_layers_are_fourteen_groups_and_twice_as_many_with_a_rule() -> None:
    model = VisionTransformer()
    plain = layer_decay(model)
    assert [each.name for each in plain.groups] == ["input", *(f"layer {n}" for n in range(1, 13)), "head"]
    ruled = layer_decay(model, groups=late(parameter_groups)(flat_decay_mult=0.0, freeze=("cls_token",)))
    assert [each.name for each in ruled.groups[:4]] == ["input", "input flat", "layer 1", "layer 1 flat"]
    assert len(ruled.groups) == 28
    assert ruled.frozen == ("cls_token",)
    optimizer = grouped_optimizer(partial(AdamW, lr=1e-3, weight_decay=0.05), model, ruled)
    rates = {each["name"]: (each["lr"], each["weight_decay"]) for each in optimizer.param_groups}
    assert rates["head"] == (1e-3, 0.05)
    assert rates["layer 12 flat"] == (1e-3 * 0.75, 0.0)
    faster = factors(layer_decay(model, groups=late(parameter_groups)(bias_lr_mult=2.0)))
    assert (faster["head.bias"], faster["blocks.11.experts.0.bias"], faster["head.weight"]) == (2.0, 1.5, 1.0)
    assert rates["input"] == pytest.approx((1e-3 * 0.75**13, 0.05))


def test_layers_are_named_from_the_input_to_the_head() -> None:
    model = VisionTransformer(3)
    found = factors(layer_decay(model, decay=0.5, layers=("patch_embed", "blocks.[01]", "blocks.2.experts")))
    assert found["cls_token"] == 0.5**5
    assert found["patch_embed.weight"] == 0.5**4
    assert [found[f"blocks.{number}.experts.0.weight"] for number in range(3)] == [0.5**3, 0.5**2, 0.5]
    assert found["blocks.2.norm.weight"] == 0.5**2, "what lies between two layers counts to the first"
    assert found["norm.weight"] == found["head.weight"] == 1


def test_the_last_of_the_named_layers_is_the_head_where_nothing_comes_after_it() -> None:
    model = VisionTransformer(2)
    found = factors(layer_decay(model, decay=0.5, layers=("blocks.*", "norm", "head")))
    assert (found["head.bias"], found["norm.bias"], found["blocks.1.norm.bias"]) == (1, 0.5, 0.25)


def test_a_head_that_stands_elsewhere_can_be_named() -> None:
    model = nn.ModuleDict({"classifier": nn.Linear(2, 2), "layers": nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])})
    by_place = factors(layer_decay(model, decay=0.5))
    assert [by_place[f"{name}.bias"] for name in ("classifier", "layers.0", "layers.1")] == [0.25, 0.5, 1]
    named = factors(layer_decay(model, decay=0.5, head=("classifier",)))
    assert [named[f"{name}.bias"] for name in ("classifier", "layers.0", "layers.1")] == [1, 0.25, 0.5]


def test_stages_of_sequential_blocks_follow_each_other() -> None:
    def stage(blocks: int) -> nn.Sequential:
        return nn.Sequential(*(Block() for _ in range(blocks)))

    stem = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    model = nn.Sequential(stem, stage(2), stage(3), nn.Linear(2, 2))
    found = factors(layer_decay(model, decay=0.5))
    headless = factors(layer_decay(nn.Sequential(*list(model.children())[:3]), decay=0.5))
    assert [headless[name] for name in ("0.0.weight", "1.0.norm.bias", "2.2.norm.bias")] == [0.5**5, 0.5**4, 1]
    exponents = {
        "0.0.weight": 6,
        "1.0.norm.bias": 5,
        "1.1.norm.bias": 4,
        "2.0.norm.bias": 3,
        "2.2.norm.bias": 1,
        "3.bias": 0,
    }
    assert {name: found[name] for name in exponents} == {name: 0.5**power for name, power in exponents.items()}


def test_no_decay_is_one_group() -> None:
    groups = layer_decay(VisionTransformer(6), decay=1.0).groups
    assert [(each.name, each.lr_mult) for each in groups] == [("input+…+head", 1.0)]


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (VisionTransformer(2), {"layers": ("blcks.*",)}, r"'blcks\.\*' matches no .*; did you mean 'blocks'\?"),
        (VisionTransformer(2), {"head": ("haed",)}, r"'haed' matches no .*; did you mean 'head'\?"),
        (VisionTransformer(2), {"decay": 0.0}, r"decay is 0\.0"),
        (VisionTransformer(2), {"decay": 1.5}, r"decay is 1\.5"),
        (nn.Sequential(nn.Linear(1, 1), nn.ReLU()), {}, "has no ModuleList, and no Sequential .*; name the layers"),
        (VisionTransformer(2), {"layers": ()}, "layers is empty; name the layers"),
    ],
)
def test_layers_that_cannot_be_found_are_an_error(model: nn.Module, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer_decay(model, **arguments)  # type: ignore[arg-type]  # any of its arguments


@pytest.mark.parametrize("argument", ["layers", "head"])
def test_one_text_is_not_read_as_letters(argument: str) -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    with pytest.raises(TypeError, match=f"{argument} are the text '01': write a list of one"):
        layer_decay(model, **{argument: "01"})  # type: ignore[arg-type]  # wrong on purpose
