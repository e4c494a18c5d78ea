"""Below a bare `dict`, or a mapping of anything, a config is data: a ``type`` in it is left to the component that gets it."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from torch import nn

from treenail.adapters.config import Catalog, ConfigChecker, InvalidConfigError, Source, convert, describe, load_run
from treenail.adapters.config.candidates import Candidates
from treenail.adapters.config.complete import complete_override
from treenail.adapters.config.freezing import freeze
from treenail.adapters.config.jsonschema import json_schema
from treenail.adapters.config.template import template
from treenail.adapters.documents import Document
from treenail.contracts import Run
from treenail.kernel import Spec


class Detector(nn.Module):
    """Builds its parts itself.

    Args:
        backbone: A config.
        necks: One config, or several.
        by_stage: A config of each stage.
        heads: Ready-made.
        extra: Whatever comes.
    """

    def __init__(
        self,
        backbone: dict,  # type: ignore[type-arg]  # as OpenMMLab writes it
        necks: Mapping[str, Any] | Sequence[Mapping[str, object]] | None = None,
        by_stage: dict[int, Any] | None = None,
        heads: dict[str, nn.Module] | None = None,
        extra: Any = None,
    ) -> None:
        super().__init__()
        self.given = {"backbone": backbone, "necks": necks, "by_stage": by_stage, "extra": extra}
        self.heads = heads


class Mixed(nn.Module):
    """Takes a module or the config of one.

    Args:
        part: Either.
    """

    def __init__(self, part: nn.Module | Mapping[str, Any]) -> None:
        super().__init__()
        self.part = [part]


class Holder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    it: Spec[nn.Module]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    found = Catalog(described=True)
    found.derivation.record(Run)
    for target in (Detector, Mixed):
        found.registry("module").register(target)
    return found


def built(catalog: Catalog, kind: str, **arguments: object) -> Any:
    return convert(Document("x.yaml", {"it": {"type": kind, **arguments}}), Holder, catalog).it.build()


DEEP = {"type": "ResNet", "_scope_": "mmdet", "norm_cfg": {"type": "BN"}, "stages": [{"type": "ReLU"}, {"type": 3}, []]}


@pytest.mark.parametrize(
    "given",
    [
        {"backbone": DEEP},
        {"backbone": {}, "necks": DEEP},
        {"backbone": {"a": {"type": "Linear"}}, "necks": [DEEP, {"type": "ReLU", "inplace": "maybe"}]},
        {"backbone": {1: {"type": "ReLU"}}, "by_stage": {3: {"type": "ReLU"}, 4: [{"type": "ReLU"}]}},
    ],
    ids=["bare dict", "mapping", "one of several", "keys that are numbers"],
)
def test_what_is_below_stays_as_it_is_written(catalog: Catalog, given: dict[str, object]) -> None:
    found = built(catalog, "Detector", **given).given
    assert {name: value for name, value in found.items() if value is not None} == given


def test_keys_are_still_checked(catalog: Catalog) -> None:
    with pytest.raises(InvalidConfigError, match=r"it\.by_stage\.first: expected 'int', got 'str' \('first'\)"):
        built(catalog, "Detector", backbone={}, by_stage={"first": {"type": "ReLU"}})


def test_beside_it_components_are_built_as_ever(catalog: Catalog) -> None:
    found = built(
        catalog, "Detector", backbone={}, heads={"a": {"type": "ReLU"}}, extra={"b": [{"type": "ReLU"}], "c": 1}
    )
    assert isinstance(found.heads["a"], nn.ReLU)
    assert isinstance(found.given["extra"]["b"][0], nn.ReLU)
    with pytest.raises(
        InvalidConfigError, match=r"unknown component 'BN'; a parameter annotated as `dict` gets such a"
    ):
        built(catalog, "Detector", backbone={}, extra={"type": "BN"})


def test_a_module_or_a_config_is_a_module_where_its_type_is_known(catalog: Catalog) -> None:
    assert isinstance(built(catalog, "Mixed", part={"type": "ReLU"}).part[0], nn.ReLU)
    unknown = {"type": "MyPart", "sizes": [{"type": "ReLU"}]}
    assert built(catalog, "Mixed", part=unknown).part == [unknown]
    with pytest.raises(InvalidConfigError, match=r"it\.part\.inplac: ReLU takes no 'inplac'; did you mean 'inplace'"):
        built(catalog, "Mixed", part={"type": "ReLU", "inplac": True})


def test_editors_and_skeletons_say_the_same(catalog: Catalog) -> None:
    validator = jsonschema.Draft7Validator(json_schema(catalog, component="Detector"))
    right = {"type": "Detector", "backbone": DEEP, "necks": [DEEP], "heads": {"a": {"type": "ReLU"}}}
    validator.validate(right)
    assert not validator.is_valid({**right, "heads": {"a": {"type": "BN"}}})
    assert not validator.is_valid({**right, "backbone": [DEEP]})
    text = template(catalog, "Detector")
    assert "# A config.\n# Takes mapping of plain data; required.\nbackbone: !required\n" in text
    assert "# Takes mapping of plain data or list of mapping of plain data or null.\n#necks: null\n" in text


MODULE = '''
from typing import Any
from torch import nn


class Wrapper(nn.Module):
    """Builds its part itself.

    Args:
        part: A config.
    """

    def __init__(self, part: dict[str, Any]) -> None:
        super().__init__()
        self.part = part
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        return self.linear(x.flatten(1))
'''
CONFIG = """
imports: [plain_mapping_parts]
model:
  type: plain_mapping_parts:Wrapper
  part: {type: ResNet, depth: "${env:TREENAIL_TEST_DEPTH:50}", stem: {type: Conv, sizes: [{type: BN}]}}
loss: {type: cross_entropy}
optimizer: {type: SGD, lr: 0.1}
train: {dataset: {type: digits, split: train}, batch_size: 64}
loop: {type: epochs, max_epochs: 1}
"""
PART = {"type": "ResNet", "depth": 50, "stem": {"type": "Conv", "sizes": [{"type": "BN"}]}}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "plain_mapping_parts.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "plain_mapping_parts", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


def part_of(path: Path, *overrides: str) -> object:
    return vars(load_run(path, overrides).model.build())["part"]


def test_a_file_is_checked_loaded_and_overridden_so(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):  # with schemas derived now, and with stored ones
        ConfigChecker().check(Source(config))
    assert part_of(config) == PART
    monkeypatch.setenv("TREENAIL_TEST_DEPTH", "18")
    assert part_of(config) == PART | {"depth": 18}
    assert part_of(config, "model.part.depth=34", "+model.part.stem.act.type=GELU!") == PART | {
        "depth": 34,
        "stem": PART["stem"] | {"act": {"type": "GELU!"}},  # type: ignore[operator]  # it is a dict
    }
    with pytest.raises(InvalidConfigError, match=r"'model\.part\.stem' has no 'siezs'"):
        part_of(config, "model.part.stem.siezs=3")


def test_words_are_completed_by_what_is_there(config: Path, catalog: Catalog) -> None:
    data = {"model": {"type": "Detector", "backbone": PART}}
    found = complete_override(Candidates(catalog), data, "model.backbone.")
    assert found == ["model.backbone.depth=", "model.backbone.stem.", "model.backbone.stem=", "model.backbone.type="]


def test_its_python_says_the_same_and_overrides_lead_through_it(config: Path) -> None:
    text = freeze(Source(config), Catalog())
    python = config.with_name("frozen.py")
    python.write_text(text)
    assert '"type": "ResNet"' in text
    assert describe(load_run(python)) == describe(load_run(config))
    assert part_of(python, "model.part.stem.sizes.0.type=LN") == PART | {
        "stem": {"type": "Conv", "sizes": [{"type": "LN"}]}
    }


def test_an_init_cfg_with_overrides_is_written_as_in_python(catalog: Catalog) -> None:
    from treenail.adapters.models import Sequential

    catalog.registry("module").register(Sequential, "Initialised", force=True)
    net = built(
        catalog,
        "Initialised",
        args=[
            {"type": "Linear", "in_features": 2, "out_features": 2},
            {"type": "Linear", "in_features": 2, "out_features": 1},
        ],
        init_cfg={
            "type": "Constant",
            "layer": "Linear",
            "val": 1,
            "override": {"type": "Constant", "name": "1", "val": 2},
        },
    )
    net.init_weights()
    assert [layer.weight.mean().item() for layer in net] == [1.0, 2.0]
