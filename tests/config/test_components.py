"""One signature is the schema: components of any origin, nested, in every kind of parameter."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, NamedTuple

import msgspec
import pytest
import torch
from torch import nn

from treenail.adapters.config import Catalog, Document, InvalidConfigError, apply_overrides, convert, describe, load_run
from treenail.adapters.documents import TreePath
from treenail.kernel import Adapter, ConfigError, Spec, spec


@dataclass
class Head:
    classes: int
    bias: bool = True


class Net:
    def __init__(
        self,
        head: Head,
        *stages: int,
        activation: nn.Module | None = None,
        heads: Sequence[Head] = (),
        named: dict[str, Head] | None = None,
        mode: Literal["fast", "exact"] = "fast",
        size: int | tuple[int, int] = 3,
        dtype: torch.dtype = torch.float32,
        initialise: Callable[[torch.Tensor], object] | None = None,
        **options: float,
    ) -> None:
        self.head, self.stages, self.activation, self.heads = head, stages, activation, heads
        self.named, self.mode, self.size, self.dtype, self.initialise = named, mode, size, dtype, initialise
        self.options = options


class Holder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    net: Spec[Net]
    imports: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    module = ModuleType("mine")
    vars(module).update(Net=Net, Head=Head)
    sys.modules["mine"] = module
    declared = [
        ("mine", Adapter(port="nets", name="net", target="mine:Net")),
        ("mine", Adapter(port="heads", name="head", target="mine:Head")),
    ]
    return Catalog([*[("treenail", each) for each in __import__("treenail.adapters").adapters.ADAPTERS], *declared])


def holder(catalog: Catalog, net: dict[str, object], *imports: str) -> Holder:
    return convert(Document("x.yaml", {"net": net, "imports": list(imports)}), Holder, catalog)


def test_every_kind_of_parameter_can_be_given(catalog: Catalog) -> None:
    net = holder(
        catalog,
        {
            "type": "net",
            "head": {"type": "head", "classes": 3},
            "stages": [1, 2],
            "activation": {"type": "ReLU"},
            "heads": [{"type": "head", "classes": 4, "bias": False}],
            "named": {"a": {"type": "head", "classes": 5}},
            "mode": "exact",
            "size": [1, 2],
            "dtype": "bfloat16",
            "initialise": "torch.nn.init:zeros_",
            "temperature": 0.5,
        },
        "torch.nn",
    ).net.build()
    assert (net.head, net.stages, net.mode, net.size) == (Head(3), (1, 2), "exact", (1, 2))
    assert isinstance(net.activation, nn.ReLU)
    assert (list(net.heads), net.named) == ([Head(4, bias=False)], {"a": Head(5)})
    assert (net.dtype, net.initialise, net.options) == (torch.bfloat16, nn.init.zeros_, {"temperature": 0.5})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": 3}, "net.head: expected a Head as a mapping {type: …}, got int 3"),
        ({"head": {"type": "ReLU"}}, "net.head.type: 'ReLU' is a module, not a Head"),
        ({"head": {"type": "head", "classes": "x"}}, "net.head.classes: expected 'int', got 'str' ('x')"),
        ({"heads": [{"type": "head"}]}, "net.heads[0]: head needs 'classes', which is missing"),
        (
            {"named": {"a": {"type": "head", "classes": 1, "bia": True}}},
            "net.named.a.bia: head takes no 'bia'; did you mean 'bias'?",
        ),
        ({"size": [1, 2, 3]}, "net.size: expected a list of 2, got 3"),
        ({"size": "big"}, "net.size: expected int or list of 2, got 'big'"),
        ({"stages": 3}, "net.stages: expected a list, got int 3"),
        ({"stages": [1, "x"]}, "net.stages[1]: expected 'int', got 'str' ('x')"),
        ({"temperature": "hot"}, "net.temperature: expected 'float', got 'str' ('hot')"),
        ({"dtype": "float31"}, "net.dtype: expected a dtype"),
        ({"initialise": "torch.nn.init:zeros_"}, "would import the module 'torch.nn.init', which is not allowed here"),
        ({"type": "head", "classes": 1}, "net.type: 'head' is a heads, not a Net"),
    ],
)
def test_a_mistake_in_a_parameter_names_its_path(catalog: Catalog, change: dict[str, object], message: str) -> None:
    net: dict[str, object] = {"type": "net", "head": {"type": "head", "classes": 3}}
    with pytest.raises(InvalidConfigError) as caught:
        holder(catalog, net | change if "type" not in change else change)
    assert message in str(caught.value)


def test_a_described_spec_converts_back_to_itself(catalog: Catalog) -> None:
    written = Holder(net=spec(Net)(Head(1), 4, 5, mode="exact", size=(2, 3), temperature=0.5))
    originals: dict[TreePath, object] = {}
    document = Document("x.py", describe(written, originals), originals=originals)
    assert convert(document, Holder, catalog) is written
    apply_overrides(document, ["net.mode=fast"])
    again = convert(document, Holder, catalog).net
    assert vars(again.build()) == vars(written.net.build()) | {"mode": "fast"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run = 3", "has a 'run' that is an int; define run = Run("),
        ("", "has no variable 'run'"),
        ("def f(:", "config.py:1:7: Python syntax"),
        ("x = 1\ny = x / 0", "config.py:2: ZeroDivisionError: division by zero"),
    ],
)
def test_a_python_config_without_a_run_says_so(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.py"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_run(path)
    assert message in str(caught.value)


class Stages:
    def __init__(self, block: Head | None = None, *stages: int) -> None:
        self.block, self.stages = block, stages


class Factory:
    def __init__(self, head: Spec[Head]) -> None:
        self.head = head


class Pair(NamedTuple):
    """Two heads."""

    first: Head
    second: Head


class Paired:
    def __init__(self, pair: Pair) -> None:
        self.pair = pair


class Anyone(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    it: Spec[object]


def anyone(target: type, arguments: dict[str, object]) -> Anyone:
    catalog = Catalog()
    catalog.registry("module").register(target)
    catalog.registry("module").register(Head)
    return convert(Document("x.yaml", {"it": {"type": target.__name__, **arguments}}), Anyone, catalog)


def test_what_python_passes_by_position_must_be_written() -> None:
    with pytest.raises(
        InvalidConfigError, match="Stages takes 'block' before 'stages'; write it, too, for example None"
    ):
        anyone(Stages, {"stages": [1, 2]})
    built = anyone(Stages, {"block": None, "stages": [1, 2]}).it.build()
    assert vars(built) == {"block": None, "stages": (1, 2)}
    assert vars(anyone(Stages, {"stages": []}).it.build()) == {"block": None, "stages": ()}


def test_a_parameter_for_a_spec_is_refused_for_nested_components_are_built() -> None:
    with pytest.raises(InvalidConfigError, match="nested components are built first, so no Spec can be given"):
        anyone(Factory, {"head": {"type": "Head", "classes": 1}})


def test_components_inside_a_record_inside_a_component_are_built() -> None:
    heads = {name: {"type": "Head", "classes": number} for number, name in enumerate(("first", "second"))}
    built = anyone(Paired, {"pair": heads}).it.build()
    assert vars(built) == {"pair": Pair(Head(0), Head(1))}
    with pytest.raises(InvalidConfigError, match="Pair needs 'second', which is missing"):
        anyone(Paired, {"pair": {"first": heads["first"]}})
