"""The root registries, their build functions, and what is counted in them."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from treenail.adapters.config import Catalog
from treenail.adapters.hooks.compat import CheckpointHook
from treenail.adapters.registries import RegisteredTwiceError, registry_table
from treenail.adapters.registries.helios import Registry as HeliosRegistry
from treenail.adapters.registries.mmengine import (
    Registry,
    RootRegistries,
    build_runner_from_cfg,
    build_scheduler_from_cfg,
    count_registered_modules,
    traverse_registry_tree,
)
from treenail.kernel import Adapter, FileError, RegistryError, SpecError
from treenail.kernel import Registry as Core

ROOTS = [
    "RUNNERS",
    "RUNNER_CONSTRUCTORS",
    "LOOPS",
    "HOOKS",
    "DATASETS",
    "DATA_SAMPLERS",
    "TRANSFORMS",
    "MODELS",
    "MODEL_WRAPPERS",
    "WEIGHT_INITIALIZERS",
    "OPTIMIZERS",
    "OPTIM_WRAPPER",
    "OPTIM_WRAPPER_CONSTRUCTORS",
    "PARAM_SCHEDULERS",
    "METRICS",
    "EVALUATOR",
    "TASK_UTILS",
    "VISUALIZERS",
    "VISBACKENDS",
    "LOG_PROCESSORS",
]


@pytest.fixture
def roots() -> RootRegistries:
    return RootRegistries()


def test_there_are_twenty_of_one_scope(roots: RootRegistries) -> None:
    assert list(roots.by_name()) == ROOTS
    assert {root.scope for root in roots.by_name().values()} == {"mmengine"}
    assert roots.OPTIM_WRAPPERS is roots.OPTIM_WRAPPER


def test_all_of_torchs_optimizers_are_there(roots: RootRegistries) -> None:
    optimizers = {
        name: kind
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
    }
    assert len(optimizers) > 10
    assert {name: roots.OPTIMIZERS.get(name) for name in optimizers} == optimizers
    weight = nn.Parameter(torch.ones(1))
    assert roots.OPTIMIZERS.build({"type": "SGD", "params": [weight], "lr": 0.1}).defaults["lr"] == 0.1


def test_what_configs_can_name_is_there_under_the_documented_names(roots: RootRegistries) -> None:
    assert roots.HOOKS.get("CheckpointHook") is CheckpointHook
    for root, name in (
        (roots.LOOPS, "EpochBasedTrainLoop"),
        (roots.HOOKS, "ParamSchedulerHook"),
        (roots.DATA_SAMPLERS, "DefaultSampler"),
        (roots.MODELS, "Linear"),
        (roots.PARAM_SCHEDULERS, "MultiStepLR"),
        (roots.METRICS, "Accuracy"),
        (roots.VISBACKENDS, "LocalVisBackend"),
        (roots.VISBACKENDS, "TensorboardVisBackend"),
    ):
        assert name in root.module_dict
        assert root.get(name) is not None
        assert root.get(f"mmengine.{name}") is root.get(name)


def test_what_is_registered_can_be_named_by_configs_of_the_same_catalog() -> None:
    catalog = Catalog()
    roots = RootRegistries(catalog)
    models = Registry("model", parent=roots.MODELS, scope="mmalpha")

    @models.register_module
    class Mine(nn.Module):
        pass

    @roots.MODELS.register_module
    class RReLU(nn.Module):
        pass

    module = catalog.registry("module")
    assert (module.resolve("mmalpha:Mine"), module.resolve("RReLU")) == (Mine, RReLU)
    assert models.core.port == "module"
    assert nn.RReLU is RootRegistries().MODELS.get("RReLU")


def test_a_declared_name_is_replaced_by_force_only(roots: RootRegistries) -> None:
    with pytest.raises(RegisteredTwiceError, match="the hook 'CheckpointHook' is registered twice"):
        roots.HOOKS.register_module(name="CheckpointHook", module=dict)
    roots.HOOKS.register_module(name="CheckpointHook", module=dict, force=True)
    assert roots.HOOKS.get("CheckpointHook") is dict


def test_a_declared_name_that_leads_nowhere_is_an_error_and_not_none() -> None:
    core: Core[object] = Core("hook")
    core.declare(Adapter("hook", "broken", "no_such_module:x"))
    with pytest.raises(RegistryError, match="'no_such_module:x': No module named"):
        Registry("hook", core=core).get("broken")


class Runner:
    def __init__(self, model: object, work_dir: str = ".") -> None:
        self.model, self.work_dir = model, work_dir


class FromConfig(Runner):
    @classmethod
    def from_cfg(cls, cfg: dict[str, object]) -> "FromConfig":
        return cls(cfg["model"], f"{cfg['name']}/")


def test_a_runner_is_chosen_by_its_type() -> None:
    runners: Registry[Runner] = Registry("runners", build_func=build_runner_from_cfg)
    runners.register_module(module=Runner)
    runners.register_module("CustomRunner", module=FromConfig)
    cfg = {"runner_type": "CustomRunner", "model": "m", "name": "n"}
    custom = runners.build(cfg)
    assert type(custom) is FromConfig
    assert custom.work_dir == "n/"
    assert "runner_type" in cfg
    assert type(runners.build({"model": "m"})) is Runner
    assert type(runners.build({"runner_type": "Runner", "model": "m"})) is Runner
    with pytest.raises(KeyError, match=r"knows no 'CustomRuner'; did you mean 'CustomRunner'\?"):
        runners.build({"runner_type": "CustomRuner"})
    with pytest.raises(SpecError, match="takes no 'modle'"):
        runners.build({"modle": "m"})


def test_without_a_default_runner_one_must_be_named(roots: RootRegistries) -> None:
    with pytest.raises(KeyError, match="the registry 'runner' of the scope 'mmengine' knows no 'Runner'"):
        roots.RUNNERS.build({"model": "m"})


class Steps:
    """A schedule in iterations that can be given in epochs."""

    def __init__(self, optimizer: object, milestones: list[int], by_epoch: bool = True) -> None:
        self.optimizer, self.milestones, self.by_epoch = optimizer, milestones, by_epoch

    @classmethod
    def build_iter_from_epoch(
        cls, optimizer: object, milestones: list[int], epoch_length: int, by_epoch: bool = True
    ) -> "Steps":
        return cls(optimizer, [each * epoch_length for each in milestones], by_epoch=False)


def test_a_schedule_in_epochs_is_converted_to_iterations() -> None:
    schedulers: Registry[Steps] = Registry("schedulers", build_func=build_scheduler_from_cfg)
    schedulers.register_module(module=Steps)
    cfg = {"type": "Steps", "milestones": [1, 2]}
    given = {"optimizer": "o", "epoch_length": 10}
    plain = schedulers.build(cfg, default_args=given)
    assert (plain.milestones, plain.optimizer) == ([1, 2], "o")
    converted = schedulers.build({**cfg, "convert_to_iter_based": True}, default_args=given)
    assert (converted.milestones, converted.by_epoch) == ([10, 20], False)
    with pytest.raises(SpecError, match="a scheduler needs 'optimizer'"):
        schedulers.build(cfg)
    with pytest.raises(SpecError, match="a scheduler needs 'epoch_length'"):
        schedulers.build({**cfg, "convert_to_iter_based": True}, default_args={"optimizer": "o"})
    with pytest.raises(SpecError, match="has no epochs to convert"):
        schedulers.build({**cfg, "convert_to_iter_based": True, "by_epoch": False}, default_args=given)


def test_torchs_schedules_are_built_and_cannot_be_converted(roots: RootRegistries) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    cfg = {"type": "MultiStepLR", "milestones": [1, 2]}
    built = roots.PARAM_SCHEDULERS.build(cfg, default_args={"optimizer": optimizer, "epoch_length": 10})
    assert isinstance(built, torch.optim.lr_scheduler.MultiStepLR)
    with pytest.raises(RegistryError, match="'MultiStepLR' cannot convert epochs to iterations"):
        roots.PARAM_SCHEDULERS.build(
            {**cfg, "convert_to_iter_based": True}, default_args={"optimizer": optimizer, "epoch_length": 10}
        )


class Head:
    pass


class Neck:
    pass


def models() -> Registry[object]:
    """Return a child of a small tree."""
    root: Registry[object] = Registry("model", scope="mmengine")
    child = Registry("model", parent=root, scope="mmalpha")
    Registry("model", parent=child, scope="deep")
    root.register_module(module=Head)
    child.register_module("neck", module=Neck)
    return child


TABLE = f"""\
registry   scope     name       target
model      mmengine  Head       {__name__}:Head
  model    mmalpha   neck       {__name__}:Neck
    model  deep      (nothing)
"""


def test_a_tree_is_counted_and_printed_from_any_of_its_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    child = models()
    counted = traverse_registry_tree(child)
    assert capsys.readouterr().out == TABLE
    assert counted == [
        {"name": "model", "scope": "mmengine", "num_modules": 1, "modules": {"Head": f"{__name__}:Head"}},
        {
            "name": "model",
            "scope": "mmalpha",
            "parent": "mmengine",
            "num_modules": 1,
            "modules": {"neck": f"{__name__}:Neck"},
        },
        {"name": "model", "scope": "deep", "parent": "mmalpha", "num_modules": 0, "modules": {}},
    ]
    assert traverse_registry_tree(child.root, verbose=False) == counted
    assert capsys.readouterr().out == ""


def test_all_trees_are_counted_and_saved(
    roots: RootRegistries, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Registry("model", parent=roots.MODELS, scope="mmalpha").register_module(module=Head)
    file = tmp_path / "count.json"
    counted = count_registered_modules(roots, file)
    assert json.loads(file.read_text()) == counted
    assert list(counted) == ROOTS
    assert [node["scope"] for node in counted["MODELS"]] == ["mmengine", "mmalpha"]
    assert counted["OPTIMIZERS"][0]["modules"]["AdamW"] == "torch.optim:AdamW"
    printed = capsys.readouterr().out
    assert "mmalpha" in printed
    assert count_registered_modules({"MODELS": models()}, verbose=False)["MODELS"][0]["num_modules"] == 1
    assert capsys.readouterr().out == ""
    with pytest.raises(FileError, match=f"^{tmp_path}: the file cannot be written"):
        count_registered_modules(roots, tmp_path, verbose=False)


def test_any_registry_is_listed_without_importing_what_it_declares() -> None:
    core: Core[object] = Core("hook")
    core.declare(Adapter("hook", "ema", "no_such_module:Ema", aliases=("EMAHook",)), "one")
    core.declare(Adapter("hook", "ema", "another:Ema"), "two")
    core.register(Head)
    helios = HeliosRegistry("sampler")
    helios.register(Neck)
    assert [line.split(maxsplit=2) for line in registry_table(core, helios).splitlines()[1:]] == [
        ["hook", "Head", f"{__name__}:Head"],
        ["hook", "ema", "no_such_module:Ema or another:Ema"],
        ["hook", "EMAHook", "no_such_module:Ema"],
        ["sampler", "Neck", f"{__name__}:Neck"],
    ]
