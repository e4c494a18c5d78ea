"""Parameter groups of whole runs: what ``check --params`` shows, and what a config's `parameters` does to a training."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, cast

import pytest
import torch
from torch import Tensor, nn

from treenail.adapters.cli import main
from treenail.adapters.loops import EpochLoop
from treenail.adapters.optim import layer_decay, parameter_groups
from treenail.adapters.runtime import open_checkpoint, train
from treenail.contracts import Data, Run
from treenail.contracts.parameters import ParameterGroups
from treenail.kernel import ConfigError, Late, TreenailError, late, spec

CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"


class Points:
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        point = torch.tensor([index / 8, 1.0])
        return point, point.sum(0, keepdim=True)


class Scaled(nn.Module):
    """A loss with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs * self.scale - targets).square().mean()


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def run(parameters: Late[nn.Module, ParameterGroups] | None) -> Run:
    return Run(
        model=spec(network)(),
        loss=spec(Scaled)(),
        optimizer=late(torch.optim.SGD)(lr=0.1, weight_decay=0.01),
        train=Data(dataset=spec(Points)(), batch_size=4),
        loop=late(EpochLoop)(max_epochs=2),
        parameters=parameters,
        hooks={"progress": None},
    )


class Saved(NamedTuple):
    model: dict[str, Tensor]
    groups: list[dict[str, object]]


def saved(work_dir: Path) -> Saved:
    store, name = open_checkpoint(work_dir / "checkpoints" / "latest")
    parts = store.load(name)[1]
    model, optimizer = cast("dict[str, Tensor]", parts["model"]), cast("dict[str, object]", parts["optimizer"])
    return Saved(model, cast("list[dict[str, object]]", optimizer["param_groups"]))


def test_a_run_trains_in_its_groups_and_leaves_what_is_frozen(tmp_path: Path) -> None:
    chosen = late(parameter_groups)(
        norm_decay_mult=0.0, freeze=("0",), custom_keys={"loss.scale": {"lr_mult": 0.0}}, eval_frozen=True
    )
    train(run(None), tmp_path / "plain")
    train(run(chosen), tmp_path / "grouped")
    plain, grouped = saved(tmp_path / "plain"), saved(tmp_path / "grouped")
    assert [(each["name"], each["lr"], each["weight_decay"]) for each in grouped.groups] == [
        ("norm", 0.1, 0.0),
        ("default", 0.1, 0.01),
        ("loss.scale", 0.0, 0.01),
    ]
    assert len(plain.groups) == 1
    assert not torch.equal(plain.model["0.weight"], grouped.model["0.weight"])
    untrained = run(late(parameter_groups)(freeze=("[0-2]",)))
    train(untrained, tmp_path / "untrained")
    initial = saved(tmp_path / "untrained").model
    assert torch.equal(grouped.model["0.weight"], initial["0.weight"])
    assert not torch.equal(grouped.model["2.weight"], initial["2.weight"])


def test_a_resumed_run_with_groups_goes_on_exactly(tmp_path: Path) -> None:
    chosen = late(layer_decay)(layers=("0", "2"), decay=0.5, groups=late(parameter_groups)(norm_decay_mult=0.0))
    train(run(chosen), tmp_path / "whole")
    half = Run(
        **{name: getattr(run(chosen), name) for name in Run.__struct_fields__} | {"loop": late(EpochLoop)(max_epochs=1)}
    )
    train(half, tmp_path / "half")
    train(run(chosen), tmp_path / "half", resume="latest")
    whole, resumed = saved(tmp_path / "whole"), saved(tmp_path / "half")
    assert whole.groups == resumed.groups
    assert all(torch.equal(whole.model[name], resumed.model[name]) for name in whole.model)


def test_a_mistake_in_the_groups_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(TreenailError, match="'head' is part of no parameter's name"):
        train(run(late(parameter_groups)(custom_keys={"head": {"lr_mult": 0.1}})), tmp_path / "a")
    with pytest.raises(ConfigError, match="no parameter is left to train"):
        train(run(late(parameter_groups)(freeze=("*",))), tmp_path / "b")


class Checked(NamedTuple):
    code: int
    lines: list[str]
    errors: list[str]


def check(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Checked:
    capsys.readouterr()
    code = main(["check", *map(str, arguments), "--params"])
    out, err = capsys.readouterr()
    return Checked(code, out.splitlines(), err.splitlines())


def config(directory: Path, parameters: str) -> Path:
    path = directory / "config.yaml"
    path.write_text(f"{parameters}\n{CONFIG.read_text()}")
    return path


def test_the_table_shows_what_each_group_gets_and_what_is_frozen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(
        tmp_path,
        "parameters: {type: parameter_groups, norm_decay_mult: 0.0, freeze: ['0'], "
        "custom_keys: {'9.': {lr_mult: 0.1, decay_mult: 0.5, options: {betas: [0.8, 0.9]}}}}",
    )
    code, lines, errors = check(capsys, path)
    assert (code, errors) == (0, [])
    assert lines == [
        f"{path}: right",
        "group                    lr  weight_decay  tensors  numbers  parameters",
        "norm                  0.002             0        4      192  1.weight, 1.bias, 4.weight …",
        "default               0.002          0.01        2   18,496  3.weight, 3.bias",
        "9. betas=(0.8, 0.9)  0.0002         0.005        2   10,250  9.weight, 9.bias",
        "frozen                                           2      320  0.weight, 0.bias",
    ]


def test_the_table_is_shown_without_groups_too(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, _ = check(capsys, CONFIG)
    assert code == 0
    assert lines[1:] == [
        "group       lr  weight_decay  tensors  numbers  parameters",
        "group 0  0.002          0.01       10   29,258  0.weight, 0.bias, 1.weight …",
    ]


PAIR = f"""
import sys

sys.path.insert(0, {str(CONFIG.parent)!r})
import msgspec
from gan import run as gan

from treenail.adapters.optim import parameter_groups
from treenail.kernel import late

groups = late(parameter_groups)(flat_decay_mult=0.0, freeze=("generator.0",))
run = msgspec.structs.replace(gan, parameters=groups)
"""


def test_the_groups_of_several_optimizers_have_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pair.py"
    path.write_text(PAIR)
    several = "optimizer={generator: {type: SGD, lr: 0.1}, discriminator: {type: Rprop, lr: 0.2}}"
    code, lines, errors = check(capsys, path, "--set", several)
    assert code == 2
    message = "parameters: Rprop has no weight_decay for the decay_mult of 0 of the group 'flat'"
    assert errors[0].startswith(f"{path}: {message}; ")
    code, lines, _ = check(capsys, path, "--set", several, "--set", "parameters.flat_decay_mult=null")
    assert code == 0
    assert [line.split()[:4] for line in lines[2:]] == [
        ["generator:", "default", "0.1", "0"],
        ["discriminator:", "default", "0.2", "6"],
        ["frozen", "2", "8,448", "generator.0.weight,"],
    ]


def test_an_optimizer_of_no_part_of_the_model_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    gan = CONFIG.with_name("gan.py")
    found = check(capsys, gan, "--set", "optimizer={generater: {type: SGD, lr: 0.1}}")
    assert found.code == 2
    assert found.errors[0] == f"{gan}: optimizer.generater: Gan has no part 'generater'; did you mean 'generator'?"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            "{type: parameter_groups, norm_decay_mul: 0}",
            "1:38: parameters.norm_decay_mul: parameter_groups takes no 'norm_decay_mul'; did you mean 'norm_decay_mult'?",
        ),
        (
            "{type: parameter_groups, custom_keys: {'9.': {lr_mult: -1}}}",
            "1:68: parameters.custom_keys.9..lr_mult: expected 'float' >= 0.0, got -1",
        ),
        ("{type: layer_decay, decay: 1.5}", "1:40: parameters.decay: expected 'float' <= 1.0, got 1.5"),
        (
            "{type: parameter_groups, freeze: ['conv*']}",
            "1:13: parameters: treenail.adapters.optim.parameters:parameter_groups could not be built: ValueError: 'conv*' …",
        ),
    ],
)
def test_mistakes_are_told_with_their_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], parameters: str, message: str
) -> None:
    path = config(tmp_path, f"parameters: {parameters}")
    found = check(capsys, path, CONFIG)
    assert found.code == 2
    start, ellipsis, _ = f"{path}:{message}".partition("…")
    assert found.errors[0].startswith(start)
    assert ellipsis or found.errors[0] == start
    assert found.lines[0] == f"{CONFIG}: right", "the other config is shown"
