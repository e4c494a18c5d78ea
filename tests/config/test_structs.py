"""A callable's parameters as a msgspec Struct."""

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta
from torch import nn

from treenail.adapters.config import Catalog, Document, InvalidConfigError, convert
from treenail.adapters.config.structs import component_hook, struct_of
from treenail.kernel import Late, Spec


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


def paint(
    canvas: nn.Module,
    width: Annotated[int, Meta(ge=1)],
    mode: Literal["fast", "exact"] = "fast",
    colour: Colour = Colour.RED,
    size: int | tuple[int, int] = 3,
    layers: Sequence[nn.Module] = (),
    named: Mapping[str, nn.Module] | None = None,
    path: Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Paint.

    Args:
        canvas: Where to paint.
        width: How wide.
            In pixels.
    """


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog()


def test_names_types_defaults_and_descriptions_come_from_the_signature() -> None:
    struct = struct_of(paint)
    fields = {each.name: each for each in msgspec.structs.fields(struct)}
    assert [each.name for each in fields.values() if each.required] == ["canvas", "width"]
    assert fields["mode"].default == "fast"
    schema = msgspec.json.schema(struct_of(torch.optim.SGD, awaited=1))["$defs"]["SGD"]
    assert schema["properties"]["momentum"] == {
        "description": "momentum factor (default: 0)",
        "type": "number",
        "default": 0,
    }
    assert schema["additionalProperties"] is False
    assert get_args(fields["width"].type)[-1].description == "How wide. In pixels."


def test_it_decodes_with_nested_components(catalog: Catalog) -> None:
    struct = struct_of(paint, derivation=catalog.derivation)
    data = {
        "canvas": {"type": "Linear", "in_features": 1, "out_features": 2},
        "width": 3,
        "colour": "blue",
        "size": [1, 2],
        "layers": [{"type": "ReLU"}],
        "named": {"a": {"type": "ReLU"}},
        "path": "here",
        "dtype": "bfloat16",
    }
    found = msgspec.structs.asdict(msgspec.convert(data, struct, dec_hook=component_hook(catalog)))
    assert isinstance(found["canvas"], Spec)
    assert isinstance(found["canvas"].build(), nn.Linear)
    assert (found["width"], found["colour"], found["size"]) == (3, Colour.BLUE, (1, 2))
    assert isinstance(found["layers"][0].build(), nn.ReLU)
    assert isinstance(found["named"]["a"].build(), nn.ReLU)
    assert (found["path"], found["dtype"]) == (Path("here"), torch.bfloat16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widht": 1}, "Object contains unknown field `widht`"),
        ({"width": "x"}, "Expected `int`, got `str` - at `$.width`"),
        ({"width": 0}, "Expected `int` >= 1 - at `$.width`"),
        ({"mode": "slow"}, "Invalid enum value 'slow' - at `$.mode`"),
        ({"canvas": {"type": "Relu"}}, "unknown module 'Relu'; did you mean 'ReLU'? - at `$.canvas`"),
        ({"canvas": {"type": "AdamW"}}, "'AdamW' is an optimizer, here a module is needed"),
        ({"layers": [{"type": "ReLU", "inplce": True}]}, "did you mean 'inplace'? - at `$.layers[0]`"),
    ],
)
def test_a_mistake_is_msgspecs_own_error(catalog: Catalog, change: dict[str, object], message: str) -> None:
    data = {"canvas": {"type": "ReLU"}, "width": 1} | change
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(data, struct_of(paint, derivation=catalog.derivation), dec_hook=component_hook(catalog))
    assert message in str(caught.value)


def test_what_comes_later_is_left_out_and_further_keys_are_let_in() -> None:
    def further(first: int, **options: float) -> None: ...

    assert next(each.name for each in msgspec.structs.fields(struct_of(torch.optim.AdamW, awaited=1))) == "lr"
    assert getattr(msgspec.convert({"first": 1, "anything": 2.0}, struct_of(further)), "first") == 1  # noqa: B009 - made at run time


class Holder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    call: Spec[object]
    late: Late[int, object] | None = None


def flat(
    a: int,
    b: float = 1.0,
    c: Literal["x", "y"] = "x",
    d: bool = False,
    e: tuple[int, str] = (1, ""),
    f: Sequence[int] = (),
) -> None: ...


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(-2, 2),
    st.sampled_from(["x", "y", "z"]),
    st.lists(st.integers(0, 2), max_size=3),
    st.tuples(st.integers(), st.text(max_size=2)).map(list),
)


@given(st.dictionaries(st.sampled_from("abcdefg"), VALUES, max_size=4))
def test_the_struct_and_the_checker_agree(arguments: dict[str, object]) -> None:
    catalog = Catalog()
    catalog.registries["module"].register(flat, "flat", force=True)
    struct = struct_of(flat)
    try:
        msgspec.convert(arguments, struct)
        by_struct = True
    except msgspec.ValidationError:
        by_struct = False
    try:
        convert(Document("x", {"call": {"type": "flat", **arguments}}), Holder, catalog)
        by_checker = True
    except InvalidConfigError:
        by_checker = False
    assert by_struct == by_checker
