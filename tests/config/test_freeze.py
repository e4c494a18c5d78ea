"""`treenail freeze`: the Python config says what the YAML says, mypy accepts it, and it trains to the same bits."""

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from itertools import count
from pathlib import Path
from types import FunctionType

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.config import Catalog, InvalidConfigError, Source, describe, load_run
from treenail.adapters.config.freezing import check_types, freeze
from treenail.adapters.files import LocalFiles
from treenail.adapters.runtime import train
from treenail.contracts import Run
from treenail.kernel import ConfigError, Late

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".mypy_cache" / "home"
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
PARTS = Path(__file__).with_name("freeze_parts.py")
SMALL = """\
seed: 0
model: {type: Sequential, args: [{type: Flatten}, {type: Linear, in_features: 64, out_features: 10}]}
loss: {type: cross_entropy}
optimizer: {type: SGD, lr: 1e-1}
train: {dataset: {type: digits, split: train}, batch_size: 64}
loop: {type: epochs, max_epochs: 1}
"""


@pytest.fixture(autouse=True)
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the components beside the configs, as a user has them; let mypy's cache be that of the checkout."""
    shutil.copy(PARTS, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, PARTS.stem, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let the workers of pytest-xdist share mypy's cache with its check of the project, one after the other.

    So torch, which takes half a minute, is read once.
    """
    (CACHE / "treenail").mkdir(parents=True, exist_ok=True)
    with (CACHE.parent / "typing.lock").open("w") as lock:
        if os.name == "posix":
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
            with suppress(FileExistsError):
                (CACHE / "treenail" / "mypy").symlink_to(CACHE.parent, target_is_directory=True)
        yield


def written(folder: Path, text: str, name: str = "run.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def frozen(path: Path, *overrides: str) -> str:
    return freeze(Source(path, overrides), Catalog())


def both(path: Path, *overrides: str) -> tuple[Run, Run, str]:
    """Return the run of a config, that of its Python, and the Python."""
    text = frozen(path, *overrides)
    python = written(path.parent, text, f"{path.stem}_frozen.py")
    return load_run(path, overrides), load_run(python), text


def is_formatted(text: str, *ignored: str) -> None:
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    assert ruff, "the tests need ruff"
    options = ["--no-cache", f"--config={ROOT / 'pyproject.toml'}", "--stdin-filename=configs/frozen.py", "-"]
    for command in (["format", "--diff"], ["check", *ignored]):
        done = subprocess.run(
            [ruff, *command, *options], input=text, capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def contents(value: object) -> object:
    """Return all that a built object holds, so that two can be compared."""
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), value.tolist())
    if isinstance(value, dict):
        return {key: contents(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return (type(value).__name__, [contents(item) for item in value])
    if isinstance(value, functools.partial):
        return (value.func, contents(value.args), contents(value.keywords))
    if isinstance(value, type | FunctionType | Enum) or not hasattr(value, "__dict__"):
        return value
    return (type(value).__name__, {key: contents(item) for key, item in vars(value).items()})


def built(run: Run) -> object:
    torch.manual_seed(0)
    model = contents(run.model.build())
    weights = torch.nn.Parameter(torch.zeros(1))
    assert isinstance(run.optimizer, Late)
    optimizer = run.optimizer.build([weights])
    schedules = [each.scheduler.build(optimizer) for each in run.schedules]
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for schedule in schedules:
            schedule.step()
    return model, contents(optimizer.defaults), rates, contents(run.train.dataset.build())


def assert_same(first: object, second: object) -> None:
    """Compare two descriptions but for the components that the second one builds in a function."""
    if isinstance(second, dict) and str(second.get("type", "")).startswith("treenail_config_"):
        assert isinstance(first, dict)
        assert set(second) == {"type"}
    elif isinstance(first, dict) and isinstance(second, dict):
        assert set(first) == set(second)
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list) and isinstance(second, list):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert type(first) is type(second)
        assert first == second


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_the_python_of_a_shipped_config_describes_the_same_run(config: Path, tmp_path: Path) -> None:
    run, python, text = both(Path(shutil.copy(config, tmp_path)))
    assert_same(describe(run), describe(python))
    assert built(run) == built(python)
    is_formatted(text)


def test_without_nested_components_the_descriptions_are_equal(tmp_path: Path) -> None:
    model = "model={type: Linear, in_features: 64, out_features: 10}"
    run, python, _ = both(
        written(tmp_path, SMALL), model, "hooks.progress=null", "schedules=[{scheduler: {type: LinearLR}}]"
    )
    assert describe(run) == describe(python)


def trained(run: Run, work_dir: Path) -> dict[str, object]:
    work_dir.mkdir()
    train(run, work_dir)
    _, state = CheckpointStore(LocalFiles(work_dir / "checkpoints")).load("latest")
    model = state["model"]
    assert isinstance(model, dict)
    return {name: contents(value) for name, value in model.items()}


def test_the_python_trains_to_the_same_bits_and_resumes_what_the_yaml_began(tmp_path: Path) -> None:
    path = Path(shutil.copy(ROOT / "configs" / "digits.yaml", tmp_path))
    overrides = [
        "train.batch_size=640",
        "loop.max_epochs=1",
        "hooks.best=null",
        "hooks.timer=null",
        "hooks.progress=null",
        "vis.tensorboard=null",
    ]
    run, python, _ = both(path, *overrides)
    assert trained(run, tmp_path / "yaml") == trained(python, tmp_path / "python")
    longer = load_run(tmp_path / "digits_frozen.py", ["loop.max_epochs=2"])
    with pytest.raises(ConfigError, match=r"the config is not the one .* --allow-changes"):
        train(longer, tmp_path / "yaml", resume="latest")
    resumed = train(longer, tmp_path / "yaml", resume="latest", allow_changes=True)
    assert resumed.step == 4


def test_it_reads_as_a_person_writes_it(tmp_path: Path) -> None:
    text = """\
# yaml-language-server: $schema=schema.json
# Digits, small.
seed: 0 # everything random follows from it
model:
  type: Sequential
  args:
    - {type: Flatten}
    # one logit for each digit
    - {type: Linear, in_features: 64, out_features: 10}
loss: {type: cross_entropy, label_smoothing: 5.0e-2}
optimizer: {type: AdamW, lr: 2e-3, betas: [0.9, 0.999]}
schedules:
  - scheduler: {type: SequentialLR, schedulers: [{type: LinearLR}, {type: StepLR, step_size: 1_0}], milestones: [3]}
train: {dataset: {type: digits, split: train}, sampler: {type: random}, batch_size: 64}
loop: {type: epochs, max_epochs: 1}
hooks: {progress: null}
"""
    expected = '''\
"""Digits, small."""

from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LinearLR, SequentialLR, StepLR

from treenail.adapters.data import Digits
from treenail.adapters.loops import EpochLoop
from treenail.adapters.sampling import RandomSampler
from treenail.contracts import Data, Run, Schedule
from treenail.kernel import late, partial, spec


def model() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(),
        # one logit for each digit
        nn.Linear(in_features=64, out_features=10),
    )


def scheduler(optimizer: Optimizer) -> SequentialLR:
    return SequentialLR(optimizer, schedulers=[LinearLR(optimizer), StepLR(optimizer, step_size=1_0)], milestones=[3])


run = Run(
    seed=0,  # everything random follows from it
    model=spec(model)(),
    loss=partial(cross_entropy)(label_smoothing=5.0e-2),
    optimizer=late(AdamW)(lr=2e-3, betas=(0.9, 0.999)),
    schedules=(Schedule(scheduler=late(scheduler)()),),
    train=Data(dataset=spec(Digits)(split="train"), sampler=late(RandomSampler)(), batch_size=64),
    loop=late(EpochLoop)(max_epochs=1),
    hooks={"progress": None},
)
'''
    assert frozen(written(tmp_path, text)) == expected
    is_formatted(expected)


def test_variables_of_the_environment_stay_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREEZE_TOKEN", "hunter2")
    text = SMALL.replace("seed: 0", "seed: ${env:FREEZE_SEED:7}").replace("split: train", "split: train")
    text += (
        "imports: [freeze_parts]\n"
        "hooks:\n"
        "  upload:\n"
        "    type: freeze_parts:Upload\n"
        "    token: ${env:FREEZE_TOKEN}\n"
        "    url: https://${env:FREEZE_HOST:local}/'run'\n"
        "    folder: ${env:FREEZE_FOLDER:out}\n"
        "    rate: ${env:FREEZE_RATE:0.5}\n"
        "    dry: ${env:FREEZE_DRY:true}\n"
    )
    run, python, printed = both(written(tmp_path, text))
    assert describe(run)["hooks"] == describe(python)["hooks"]  # type: ignore[index]  # a described Run is a mapping
    assert "hunter2" not in printed
    assert 'token=os.environ["FREEZE_TOKEN"]' in printed
    assert 'seed=int(os.environ.get("FREEZE_SEED", "7"))' in printed
    monkeypatch.setenv("FREEZE_SEED", "9")
    assert load_run(tmp_path / "run_frozen.py").seed == 9
    is_formatted(printed, "--ignore=I001")  # ruff cannot know that freeze_parts is the user's own


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "train: {dataset: {type: digits, split: '${env:FREEZE_SPLIT:train}'}, batch_size: 64}",
            "run.yaml:6:40: train.dataset.split: ${env:FREEZE_SPLIT:train} can be any text, but only",
        ),
        ("hooks: {a: {type: 'freeze_parts:Loose', class: 3}}", "run.yaml:6:41: hooks.a.class: 'class' is no name in"),
        (
            "hooks: {a: {type: hidden}}",
            "run.yaml:6:12: hooks.a: freeze_parts:_make.<locals>.Hidden has no name that can",
        ),
        (
            "threads: '${env:FREEZE_THREADS:null}'",
            "run.yaml:6:10: threads: how ${env:FREEZE_THREADS:null} becomes None",
        ),
        ("optimizer: {type: '${env:FREEZE_OPTIMIZER:SGD}'}", "optimizer.type: ${env:FREEZE_OPTIMIZER:SGD} can be any"),
        ("model: {type: 'freeze_parts:Net', words: ['${env:FREEZE_WORD:a}']}", "run.yaml:6:43: model.words[0]: ${env:"),
    ],
    ids=["literal", "keyword", "local", "null", "type", "set"],
)
def test_what_typed_python_cannot_say_is_refused_at_its_place(tmp_path: Path, line: str, message: str) -> None:
    section = line.partition(":")[0]
    kept = [each for each in SMALL.splitlines() if not each.startswith(f"{section}:")]
    kept[5:5] = [line]
    path = written(tmp_path, "\n".join([*kept, "imports: [freeze_parts]", "custom_imports: [freeze_parts]"]))
    with pytest.raises(InvalidConfigError) as caught:
        frozen(path)
    assert message in str(caught.value)


def test_numbers_that_have_no_literal(tmp_path: Path) -> None:
    run, python, text = both(
        written(tmp_path, SMALL), "optimizer={type: SGD, lr: .inf, momentum: 1e+22}", "threads=0x10"
    )
    assert describe(run)["optimizer"] == describe(python)["optimizer"]  # type: ignore[index]  # a mapping, as above
    assert 'late(SGD)(lr=float("inf"), momentum=1e22)' in text
    assert "threads=16," in text
    is_formatted(text)


def test_two_components_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / f"{name}.py").write_text("from torch import nn\n\n\nclass Linear(nn.Linear):\n    pass\n")
    parts = "[{type: 'ours:Linear', in_features: 64, out_features: 8}, {type: 'theirs:Linear', in_features: 8, out_features: 10}]"
    overrides = ["imports=[ours, theirs]", f"model={{type: Sequential, args: {parts}}}"]
    run, python, text = both(written(tmp_path, SMALL), *overrides)
    assert [type(each).__module__ for each in run.model.build().children()] == ["ours", "theirs"]
    assert [type(each).__module__ for each in python.model.build().children()] == ["ours", "theirs"]
    assert "Linear(in_features=64" in text
    assert "theirs.Linear(in_features=8" in text


def test_python_cannot_be_frozen(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this config is Python already; use it as it is"):
        frozen(written(tmp_path, "run = 1", "run.py"))


modules = st.recursive(
    st.sampled_from([{"type": "ReLU"}, {"type": "Linear", "in_features": 2, "out_features": 3, "dtype": "float64"}]),
    lambda inner: st.lists(inner, max_size=3).map(lambda args: {"type": "Sequential", "args": args}),
    max_leaves=4,
)
texts = st.text("aZ'\"\\ {}é#\n", max_size=5)
floats = st.floats(allow_nan=False, allow_infinity=False)
point = st.fixed_dictionaries({"x": st.integers(-3, 3)}, optional={"y": floats})
arguments = {
    "block": modules,
    "blocks": st.lists(modules, max_size=2),
    "named": st.dictionaries(st.text("ab-1", min_size=1, max_size=3), modules, max_size=2),
    "sizes": st.lists(st.integers(), max_size=3),
    "pair": st.tuples(st.integers(), floats).map(list),
    "shape": st.one_of(st.integers(), st.lists(st.integers(), max_size=3)),
    "mode": st.sampled_from(["fast", "exact"]),
    "colour": st.sampled_from(["r", "g"]),
    "title": st.one_of(st.none(), texts),
    "folder": st.sampled_from(["out", "a b/c"]),
    "dtype": st.sampled_from(["float32", "bfloat16"]),
    "device": st.sampled_from(["cpu", "cuda:1"]),
    "words": st.lists(st.sampled_from(["one", "two", "three"]), max_size=3),
    "point": point,
    "span": point,
    "box": point,
    "head": st.fixed_dictionaries({"type": st.just("freeze_parts:Head"), "classes": st.integers()}),
    "initialise": st.sampled_from(["torch.nn.init:zeros_", {"type": "torch.nn.init:constant_", "val": 0.5}]),
    "anything": st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), floats, texts),
        lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(["a", "b c"]), inner)),
        max_leaves=4,
    ),
    "part": st.recursive(
        st.sampled_from([{"type": "ReLU"}, {"type": "no component", "_scope_": "shop"}, {"type": 3}]),
        lambda inner: st.one_of(
            st.fixed_dictionaries({"type": st.just("Net"), "layers": st.lists(inner, max_size=2)}),
            st.dictionaries(st.sampled_from(["a", "b c"]), inner, max_size=2),
        ),
        max_leaves=3,
    ),
    "extra": floats,
}
nets = st.fixed_dictionaries(
    {"type": st.just("freeze_parts:Net")},
    optional={**arguments, "stages": st.lists(st.integers(), max_size=3)},
)
simple: st.SearchStrategy[dict[str, object]] = st.sampled_from(
    [{"type": "LinearLR"}, {"type": "StepLR", "step_size": 2, "gamma": 0.5}]
)
chained: st.SearchStrategy[dict[str, object]] = st.lists(
    st.deferred(lambda: st.one_of(simple, chained)), min_size=1, max_size=2
).map(lambda found: {"type": "ChainedScheduler", "schedulers": found})
sequential = st.tuples(simple, simple).map(  # torch cannot begin with a chained one in the middle
    lambda found: {"type": "SequentialLR", "schedulers": list(found), "milestones": [2]}
)
tuned = {"type": "freeze_parts:Tuned", "by": {"type": "ReLU"}}
weighted = {"type": "freeze_parts:Weighted", "by": {"type": "ReLU"}}
lines = {"type": "freeze_parts:Lines"}
hooks = {"timer": st.none(), "checkpoint": st.just({"type": "checkpoint", "interval": 2})}
schedule = st.fixed_dictionaries(
    {"scheduler": st.one_of(simple, chained, sequential), "every": st.sampled_from(["step", "epoch"])}
)
configs = st.fixed_dictionaries(
    {
        "imports": st.just(["freeze_parts", "torch.nn.init"]),
        "model": st.one_of(nets, modules),
        "loss": st.sampled_from([{"type": "cross_entropy", "ignore_index": 3}, {"type": "MSELoss"}]),
        "optimizer": st.sampled_from([{"type": "SGD", "lr": 0.5}, {"type": "AdamW", "betas": [0.5, 0.75]}, tuned]),
        "train": st.sampled_from(
            [
                {"dataset": {"type": "digits", "split": "train"}, "batch_size": 8, "sampler": {"type": "random"}},
                {"dataset": lines | {"transform": {"type": "ReLU"}}, "batch_size": 2},
                {"dataset": lines, "batch_size": 2, "sampler": weighted},
                {"dataset": lines, "batch_size": 2, "sampler": weighted | {"seed": 4}},
            ]
        ),
        "loop": st.just({"type": "epochs", "max_epochs": 1}),
    },
    optional={
        "hooks": st.fixed_dictionaries({}, optional=hooks),
        "checkpoints": st.sampled_from([{"keep_last": None}, {"keep_last": 2}]),
        "schedules": st.lists(schedule, max_size=2),
        "device": st.sampled_from(["cpu", "auto"]),
    },
)


def test_frozen_configs_are_the_same_runs_and_mypy_accepts_them(tmp_path: Path) -> None:
    numbers = count()

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
    @given(configs)
    def check(config: dict[str, object]) -> None:
        path = written(tmp_path, json.dumps(config), f"run{next(numbers)}.json")
        run, python, text = both(path)
        assert_same(describe(run), describe(python))
        assert built(run) == built(python)
        compile(text, path.stem, "exec")
        if run.train.sampler is not None:
            sampler, other = (each.train.sampler.filled(seed=5) for each in (run, python) if each.train.sampler)
            assert contents(vars(sampler.build(range(9)))) == contents(vars(other.build(range(9))))

    check()
    pythons = sorted(tmp_path.glob("run*_frozen.py"))
    assert len(pythons) >= 60
    ruff = [sys.executable, "-m", "ruff", "format", "--no-cache", "--diff", f"--config={ROOT / 'pyproject.toml'}"]
    done = subprocess.run([*ruff, *pythons], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with one_at_a_time():
        found = check_types(pythons)
    assert [str(each) for each in found.mistakes] == []
    assert list(found.right) == pythons
