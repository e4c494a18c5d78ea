"""Models as OpenMMLab's repositories write them, named by a config: their registries, and what the config builds before them."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from treenail.adapters.config import load_run
from treenail.adapters.models import ConstantInit, PretrainedInit, Sequential
from treenail.adapters.registries import KindError
from treenail.adapters.registries.mmengine import Registry, RootRegistries, build_from_cfg
from treenail.kernel import RegistryError

MODULE = '''
import torch
from torch import nn
from treenail.adapters.models import BaseDataPreprocessor, BaseModel, BaseTTAModel
from treenail.adapters.registries.mmengine import Registry, RootRegistries

MODELS = Registry("model", parent=RootRegistries().MODELS, scope="shop")


@MODELS.register_module()
class ShopPreprocessor(BaseDataPreprocessor):
    """One of the user's own."""


@MODELS.register_module()
class Block(BaseModel):
    def __init__(self, data_preprocessor=None, init_cfg=None, norm_cfg=None):
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.linear = nn.Linear(2, 1)
        self.norm_cfg = norm_cfg

    def forward(self, inputs, data_samples=None, mode="tensor"):
        return self.linear(inputs)


@MODELS.register_module()
class Detector(BaseModel):
    def __init__(self, backbone: dict, data_preprocessor: dict | None = None, init_cfg: dict | list | None = None):
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)

    def forward(self, inputs, data_samples=None, mode="tensor"):
        return self.backbone(inputs)


@MODELS.register_module()
class Unannotated(Detector):
    def __init__(self, backbone=None, **kwargs):
        super().__init__(backbone, **kwargs)


@MODELS.register_module()
class Views(BaseTTAModel):
    def __init__(self, module: dict):
        super().__init__(module)

    def merge_preds(self, data_samples_list):
        return data_samples_list
'''
REST = """
optimizer: {type: SGD, lr: 0.1}
train: {dataset: {type: digits, split: train}, batch_size: 64}
loop: {type: epochs, max_epochs: 1}
imports: [shop_models]
custom_imports: [shop_models]
"""
CONSTANT = "{type: Constant, layer: Linear, val: 3.0, bias: 1.0}"

OVERRIDE = "{type: Constant, layer: Linear, val: 9, override: {type: Constant, name: backbone, val: 3, bias: 1}}"


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_models.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "shop_models", raising=False)


def built(tmp_path: Path, model: str) -> Any:
    path = tmp_path / "config.yaml"
    path.write_text(f"model: {model}\n{REST}")
    return load_run(path).model.build()


def means(module: nn.Module) -> list[float]:
    return [each.mean().item() for each in module.parameters()]


@pytest.mark.parametrize(
    "model",
    [
        f"{{type: Block, init_cfg: {CONSTANT}}}",
        f"{{type: Block, init_cfg: [{CONSTANT}]}}",
        f"{{type: Unannotated, backbone: {{type: Block}}, init_cfg: {CONSTANT}}}",
        f"{{type: Unannotated, backbone: {{type: Block, init_cfg: {CONSTANT}}}}}",
        f"{{type: Detector, backbone: {{type: Block}}, init_cfg: {CONSTANT}}}",
        f"{{type: Detector, backbone: {{type: Block, init_cfg: {CONSTANT}}}}}",
        f"{{type: Detector, backbone: {{type: Block}}, init_cfg: {OVERRIDE}}}",
    ],
    ids=["ready", "a list of ready ones", "by kwargs", "in a built part", "config", "config of a part", "override"],
)
def test_weights_are_initialised_by_configs_and_by_what_was_built_of_them(tmp_path: Path, model: str) -> None:
    found = built(tmp_path, model)
    found.init_weights()
    assert means(found) == [3.0, 1.0]


def test_what_the_model_builds_itself_gets_its_config_whole(tmp_path: Path) -> None:
    found = built(tmp_path, "{type: Detector, backbone: {type: Block, norm_cfg: {type: BN, list: [{type: ReLU}]}}}")
    assert found.backbone.norm_cfg == {"type": "BN", "list": [{"type": "ReLU"}]}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("{type: Detector, backbone: {type: Block}, data_preprocessor: {type: ShopPreprocessor}}", "ShopPreprocessor"),
        (
            "{type: Detector, backbone: {type: Block}, data_preprocessor: {type: shop.ShopPreprocessor}}",
            "ShopPreprocessor",
        ),
        (
            "{type: Detector, backbone: {type: Block}, data_preprocessor: {type: ImgDataPreprocessor}}",
            "ImgDataPreprocessor",
        ),
        ("{type: Block, data_preprocessor: {type: ShopPreprocessor}}", "ShopPreprocessor"),
    ],
    ids=["own", "own, with its scope", "ours", "built by the config"],
)
def test_a_preprocessor_is_found_where_its_model_is_registered(tmp_path: Path, model: str, name: str) -> None:
    assert type(built(tmp_path, model).data_preprocessor).__name__ == name


def test_what_views_are_predicted_by_is_found_there_too(tmp_path: Path) -> None:
    assert type(built(tmp_path, "{type: Views, module: {type: Block}}").module).__name__ == "Block"


def test_a_preprocessor_of_no_registry_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"the registry 'model' of the scope 'mmengine' knows no 'ShopPreprocesor'"):
        built(tmp_path, "{type: Detector, backbone: {type: Block}, data_preprocessor: {type: ShopPreprocesor}}")


def test_what_is_built_already_comes_back_as_it_is() -> None:
    models = Registry("model", parent=RootRegistries().MODELS, scope="shop")
    for module in (nn.Linear(1, 1), nn.ModuleDict({"a": nn.ReLU()}), nn.ModuleList()):
        assert models.build(module) is module
        assert build_from_cfg(module, models) is module
    first, second = models.build([nn.ReLU(), {"type": "Identity"}])
    assert (type(first), type(second)) == (nn.ReLU, nn.Identity)


@pytest.mark.parametrize("wrong", [3, "ReLU", None, nn.ReLU, [3], len, Path("ReLU")], ids=repr)
def test_what_is_neither_built_nor_a_config_is_refused(wrong: object) -> None:
    with pytest.raises(KindError, match="a config is a mapping, not"):
        RootRegistries().MODELS.build(wrong)


def test_defaults_do_not_reach_what_is_built_already() -> None:
    with pytest.raises(KindError, match=r"a config is a mapping, not ReLU\(\)"):
        RootRegistries().MODELS.build(nn.ReLU(), default_args={"inplace": True})


def test_ready_initialisers_stand_beside_configs(tmp_path: Path) -> None:
    net = Sequential(
        nn.Linear(2, 2),
        nn.BatchNorm1d(2),
        init_cfg=[ConstantInit(3, layer="Linear"), {"type": "Constant", "layer": "BatchNorm1d", "val": 4}],
    )
    net.init_weights()
    assert means(net) == [3.0, 0.0, 4.0, 0.0]
    torch.save({"0.weight": torch.full((2, 2), 5.0)}, tmp_path / "weights.pth")
    pretrained = PretrainedInit(str(tmp_path / "weights.pth"))
    net = Sequential(nn.Linear(2, 2), init_cfg=[pretrained, ConstantInit(3, layer="Linear", bias=1)])
    net.init_weights()
    assert means(net) == [5.0, 1.0]  # what is pretrained comes last, wherever it is written
    with pytest.raises(TypeError, match="must be a config with a 'type', or a list of such, or initialisers"):
        Sequential(init_cfg=ConstantInit).init_weights()  # type: ignore[arg-type]  # the class: wrong on purpose
