"""Configs in YAML: every mistake at once, each with its place."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from treenail.adapters.config import Catalog, InvalidConfigError, load_run, parse_yaml
from treenail.contracts import Run
from treenail.kernel import ConfigError, Late

CONFIGS = Path(__file__).parents[2] / "configs"
DIGITS = CONFIGS / "digits.yaml"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog()


def edited(tmp_path: Path, *edits: tuple[str, str]) -> Path:
    """Return a copy of the digits config with parts of its text replaced."""
    text = DIGITS.read_text()
    for old, new in edits:
        assert text.count(old) >= 1, old
        text = text.replace(old, new, 1)
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "config", sorted(CONFIGS.glob("*.yaml")) + sorted(CONFIGS.glob("*.py")), ids=lambda path: path.name
)
def test_our_configs_are_right(config: Path, catalog: Catalog) -> None:
    assert isinstance(load_run(config, catalog=catalog), Run)


# (text of the config, what stands there instead, the part of it that the message points at, the message)
MISTAKES = [
    ("optimizer: {", "optimiser: {", "optimiser", "optimiser: Run takes no 'optimiser'; did you mean 'optimizer'?"),
    ("lr: 2e-3", "rate: 2e-3", "rate", "optimizer.rate: AdamW takes no 'rate'"),
    ("lr: 2e-3", "lr: fast", "fast", "optimizer.lr: expected float or Tensor, got 'fast'"),
    ("type: AdamW", "type: AdmW", "AdmW", "optimizer.type: unknown optimizer 'AdmW'; did you mean 'AdamW'?"),
    ("type: AdamW", "type: Linear", "Linear", "optimizer.type: 'Linear' is a module, here an optimizer is needed"),
    ("{type: AdamW, ", "{", "{", "optimizer: 'type' is missing; write type: NAME of an optimizer"),
    (
        "kernel_size: 3",
        "kernel_sise: 3",
        "kernel_sise",
        "model.args[0].kernel_sise: Conv2d takes no 'kernel_sise'; did",
    ),
    ("{type: ReLU}", "{type: Linear}", "{", "model.args[2]: Linear needs 'in_features', which is missing"),
    ("max_epochs: 15", "max_epochs: 1.5", "1.5", "loop.max_epochs: expected 'int', got 'float'"),
    ("max_epochs: 15", "max_epochs: true", "true", "loop.max_epochs: expected 'int', got 'bool'"),
    (
        "every: step",
        "every: stpe",
        "stpe",
        "schedules[0].every: expected one of 'step', 'epoch', got 'stpe'; did you mean",
    ),
    (
        "split: train",
        "split: trains",
        "trains",
        "train.dataset.split: expected one of 'train', 'val', 'test', got 'trains'",
    ),
    ("batch_size: 64", "batch_size: 0", "0", "train.batch_size: expected 'int' >= 1"),
    ("[{type: accuracy}]", "{type: accuracy}", "{", "val.metrics: expected a list, got a mapping"),
    ("[{type: accuracy}]", "[accuracy]", "accuracy", "val.metrics[0]: expected a metric as a mapping {type: …}"),
    ("seed: 0", "seed: -1", "-1", "seed: expected 'int' >= 0"),
    ("type: Flatten", "type: os:system", "os:system", "model.args[7].type: 'os:system' would import the module 'os'"),
    ("mode: max", "mode: biggest", "biggest", "hooks.best.mode: expected one of 'max', 'min', got 'biggest'"),
    ("{type: jsonlines}", "{type: timer}", "timer", "vis.jsonlines.type: 'timer' is a hook, here a vis is needed"),
    ("label_smoothing", "smoothing", "smoothing", "loss.smoothing: cross_entropy takes no 'smoothing'; did you mean"),
    (
        "T_max: 300",
        "T_max: 300, T_max: 3",
        "T_max: 3}",
        "schedules[0].scheduler.T_max: this key occurs twice, first in",
    ),
]


@pytest.mark.parametrize(("old", "new", "part", "message"), MISTAKES, ids=[new for _, new, _, _ in MISTAKES])
def test_a_mistake_is_found_before_anything_is_built(
    tmp_path: Path, catalog: Catalog, old: str, new: str, part: str, message: str
) -> None:
    before = DIGITS.read_text().partition(old)[0]
    path = edited(tmp_path, (old, new))
    start = path.read_text().index(part, len(before))
    text = path.read_text()[:start]
    place = f"{path}:{text.count(chr(10)) + 1}:{start - text.rfind(chr(10))}"
    with pytest.raises(InvalidConfigError) as caught:
        load_run(path, catalog=catalog)
    assert f"{place}: {message}" in str(caught.value)


def test_all_mistakes_are_reported_at_once(tmp_path: Path, catalog: Catalog) -> None:
    edits = {old: new for old, new, _, _ in MISTAKES if old in ("lr: 2e-3", "seed: 0", "mode: max", "every: step")}
    path = edited(tmp_path, *edits.items())
    with pytest.raises(InvalidConfigError) as caught:
        load_run(path, catalog=catalog)
    assert len(caught.value.mistakes) == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lrr=1", "override 'optimizer.lrr=1': optimizer.lrr: AdamW takes no 'lrr'; did you mean 'lr'?"),
        ("optimizr.lr=1", "optimizr: Run takes no 'optimizr'; did you mean 'optimizer'?"),
        ("model.args.99.p=1", "'model.args' is a list of 10; '99' is not one of its numbers"),
        ("model.args.²=1", "'²' is not one of its numbers"),
        ("seed.x=1", "'seed' is neither a mapping nor a list, it has no 'x'"),
        ("seed", "write key=value"),
        ("optimizer.lr=[", "YAML syntax"),
        ("seed=", "seed: expected 'int', got 'str'"),
    ],
)
def test_an_override_that_cannot_be_meant_is_an_error(catalog: Catalog, override: str, message: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        load_run(DIGITS, [override], catalog)
    assert message in str(caught.value)


def test_overrides_replace_values_lists_and_components(catalog: Catalog) -> None:
    overrides = [
        "optimizer={type: SGD, lr: 3e-4}",
        "optimizer.momentum=0.9",
        "model.args.8.p=0.5",
        "hooks.best=null",
        "seed=3",
    ]
    run = load_run(DIGITS, overrides, catalog)
    assert isinstance(run.optimizer, Late)
    optimizer = run.optimizer.build(nn.Linear(2, 2).parameters())
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (3e-4, 0.9)
    model = run.model.build()
    assert isinstance(model, nn.Sequential)
    assert isinstance(model[8], nn.Dropout)
    assert model[8].p == 0.5
    assert (run.hooks["best"], run.seed) == (None, 3)


SYNTAX = [
    ("", "the file is empty"),
    ("a: [1", "run.yaml:1:6: YAML syntax"),
    ("a: 1\na: 2", "run.yaml:2:1: a: this key occurs twice, first in line 1"),
    ("a: !!python/object/apply:os.system [true]", "the tag !!python/object/apply:os.system is not allowed"),
    ("? [1, 2]\n: 3", "a key must be a word or a whole number"),
    ("a: &x [*x]", "nested too deeply"),
    ("a: " + "[" * 5000, "nested too deeply"),
    ("a: 1\n---\nb: 2", "another document"),
    ("a: \x07", "unacceptable character"),
    (
        "x0: &x0 [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"x{i}: &x{i} [{','.join([f'*x{i - 1}'] * 10)}]\n" for i in range(1, 9)),
        "expands to more",
    ),
]


@pytest.mark.parametrize(("text", "message"), SYNTAX, ids=[message for _, message in SYNTAX])
def test_yaml_that_cannot_be_read_is_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "run.yaml")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["a: &a {x: 1}\nb:\n  <<: *a\n  y: 2", "a: {<<: [{x: 1}]}", "a: <<"])
def test_a_merge_key_is_one_mistake(text: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        parse_yaml(text, "run.yaml")
    (mistake,) = caught.value.mistakes
    assert mistake.message == "merge keys (<<) are not supported; write the fields out"


def test_a_refused_key_is_one_mistake() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        parse_yaml("!!binary x: 1", "run.yaml")
    assert len(caught.value.mistakes) == 1


@given(st.text(alphabet=st.sampled_from("ab:{}[]-,&*!|>'\"#%@ \n\t?0.1~"), max_size=60))
def test_reading_arbitrary_text_raises_no_error_but_ours(text: str) -> None:
    try:
        parse_yaml(text, "run.yaml")
    except ConfigError as error:
        where = str(error)
    else:
        where = "run.yaml"
    assert where.startswith("run.yaml")


def test_scalars_are_those_of_yaml_1_2() -> None:
    data = parse_yaml("{a: 1e-3, b: yes, c: 0x10, d: ~, e: 2020-01-01, f: 'no', g: .inf, h: true}", "x").data
    assert data == {
        "a": 1e-3,
        "b": "yes",
        "c": 16,
        "d": None,
        "e": "2020-01-01",
        "f": "no",
        "g": float("inf"),
        "h": True,
    }
