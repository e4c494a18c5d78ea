"""State trees: what is frozen comes back as it was, or is refused by its path."""

import json
import math
from collections import Counter, OrderedDict, defaultdict
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor, nn

from treenail.adapters.checkpoint import Snapshot, freeze, thaw
from treenail.kernel import CheckpointError

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.uint8, torch.complex64]).map(
        lambda dtype: torch.ones(2, 3).to(dtype)
    ),
)
KEYS = st.one_of(st.text("ab/~$", max_size=4), st.integers(), st.sampled_from(["$tensor", "$map", "__metadata__"]))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(KEYS, inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3).map(OrderedDict),
        st.dictionaries(KEYS, inner, max_size=3).map(Counter),
    ),
    max_leaves=12,
)


def same(ours: object, theirs: object) -> bool:
    """Compare by type and value; NaN equals NaN, tensors are equal bit for bit."""
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, float) and isinstance(theirs, float):
        return ours == theirs or (math.isnan(ours) and math.isnan(theirs))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs


def through_files(snapshot: Snapshot) -> Snapshot:
    return Snapshot(json.loads(json.dumps(snapshot.tree, allow_nan=False)), load(save(snapshot.tensors)))


def again(tree: object) -> dict[str, Tensor]:
    found = thaw(through_files(freeze(tree)))
    assert isinstance(found, dict)
    return found


@given(TREES)
def test_a_state_tree_comes_back_as_it_was(tree: object) -> None:
    assert same(thaw(through_files(freeze(tree))), tree)


def test_a_snapshot_shares_nothing_with_the_training() -> None:
    weight = torch.zeros(3)
    snapshot = freeze({"weight": weight})
    weight += 1
    assert same(thaw(snapshot), {"weight": torch.zeros(3)})


def test_views_and_tied_tensors_are_kept_right() -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    tree = {"whole": whole, "again": whole, "column": whole[:, 1], "turned": whole.T, "empty": torch.empty(0, 3)}
    snapshot = freeze(tree)
    assert len(snapshot.tensors) == 4
    found = again(tree)
    assert same(found, tree)
    assert found["whole"] is found["again"]


def test_tied_tensors_of_another_memory_order_stay_tied() -> None:
    turned = torch.arange(12.0).reshape(3, 4).T
    found = again({"a": turned, "b": turned})
    assert found["a"] is found["b"]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.rand(2, 1, 4, 5).to(memory_format=torch.channels_last),
        torch.rand(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d),
        torch.rand(2, 3, 4).permute(1, 2, 0),
        torch.rand(2, 3, dtype=torch.complex128).T,
        torch.tensor(1.0),
    ],
)
def test_a_tensor_that_fills_its_memory_keeps_its_strides(tensor: Tensor) -> None:
    snapshot = freeze({"a": tensor})
    assert all(each.is_contiguous() for each in snapshot.tensors.values())
    found = again({"a": tensor})["a"]
    assert torch.equal(found, tensor)
    assert found.stride() == tensor.stride()


def test_of_a_view_into_a_larger_memory_only_the_elements_are_kept() -> None:
    found = again({"column": torch.rand(1000, 4)[:, 1], "wide": torch.ones(1, 4).expand(3, 4)})
    assert found["column"].stride() == (1,)
    assert found["wide"].stride() == (4, 1)
    assert found["column"].untyped_storage().nbytes() == 4000


@pytest.mark.parametrize(
    "form",
    [{"strides": [2**40, 1]}, {"strides": [1, 1]}, {"strides": [3]}, {"strides": "31"}, {"strides": [-3, 1]}, {"x": 1}],
)
def test_a_form_that_does_not_fit_its_tensor_is_refused(form: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match="malformed"):
        thaw(Snapshot({"$tensor": {"name": "a", **form}}, {"a": torch.ones(2, 3)}))
    with pytest.raises(CheckpointError, match="malformed"):
        thaw(Snapshot({"$tensor": {"name": "a", "complex": True}}, {"a": torch.ones(2, 3)}))


@pytest.mark.parametrize(
    "tree",
    [
        {"a/b": torch.ones(2), "a": {"b": torch.zeros(2)}},
        {"a": {"b": torch.zeros(2)}, "a/b": torch.ones(2), "a/b~2": torch.full((2,), 2.0)},
        {"a/b~2": torch.full((2,), 2.0), "a": {"b": torch.zeros(2)}, "a/b": torch.ones(2)},
        {"/a": torch.ones(2), "a": torch.zeros(2)},
        {math.nan: torch.ones(2), float("nan"): torch.zeros(2)},
        {"__metadata__": torch.ones(2), "": torch.zeros(2)},
    ],
)
def test_tensors_whose_paths_look_alike_stay_apart(tree: dict[object, object]) -> None:
    found = thaw(through_files(freeze(tree)))
    assert isinstance(found, dict)
    assert same(list(found.values()), list(tree.values()))


def test_views_of_one_memory_that_read_it_differently_stay_apart() -> None:
    numbers = torch.complex(torch.ones(2), torch.ones(2))
    imaginary = numbers.conj().imag  # the lazily negated view
    assert imaginary.is_neg()
    tree = {"a": numbers, "b": numbers.conj(), "c": numbers.imag, "d": imaginary}
    found = again(tree)
    assert all(torch.equal(found[name], tensor) for name, tensor in tree.items())


@pytest.mark.parametrize("dtype", [torch.complex32, torch.complex64, torch.complex128])
@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_complex_tensors_come_back_bit_for_bit(dtype: torch.dtype) -> None:
    tensor = torch.view_as_complex(torch.tensor([[1.5, -0.0], [math.inf, 2.0]], dtype=dtype.to_real()))
    found = again({"a": tensor, "empty": tensor[:0], "scalar": tensor[0]})
    assert found["a"].dtype == dtype
    assert torch.equal(torch.view_as_real(found["a"]).signbit(), torch.view_as_real(tensor).signbit())
    assert torch.equal(torch.view_as_real(found["a"]), torch.view_as_real(tensor))
    assert found["empty"].shape == (0,)
    assert found["scalar"].shape == ()


class Colour(IntEnum):
    RED = 1


class Word(StrEnum):
    HERE = "here"


class Point(NamedTuple):
    x: int


class Ours(Tensor):
    pass


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Colour.RED, r"test_state_tree\.Colour"),
        (Word.HERE, r"test_state_tree\.Word"),
        (Point(1), r"test_state_tree\.Point"),
        (torch.Size([1]), r"torch\.Size"),
        (np.int64(1), r"numpy\.int64"),
        (np.float32(1), r"numpy\.float32"),
        (np.str_("a"), r"numpy\.str_"),
        (np.bytes_(b"a"), r"numpy\.bytes_"),
        (np.True_, r"numpy\.bool"),
        (np.ones(2), r"numpy\.ndarray"),
        (defaultdict(list, a=[1]), r"collections\.defaultdict"),
        (MappingProxyType({"a": 1}), r"builtins\.mappingproxy"),
        ({Word.HERE: 1}, r"test_state_tree\.Word"),
        ({1, 2}, r"builtins\.set"),
        (same, r"builtins\.function"),
        (torch.eye(3).to_sparse(), "layout torch.sparse_coo"),
        (torch.ones(2).as_subclass(Ours), r"the class .*test_state_tree\.Ours"),
        (nn.UninitializedParameter(), r"the class torch\.nn\.parameter\.UninitializedParameter"),
        (torch.ones(2, device="meta"), "device 'meta'"),
        (torch.empty(2, dtype=torch.float8_e8m0fnu), r"dtype torch\.float8_e8m0fnu"),
    ],
)
def test_what_would_not_come_back_as_it_is_is_refused_by_its_path(value: object, kind: str) -> None:
    with pytest.raises(CheckpointError, match=f"^/model/0/a.*{kind}"):
        freeze({"model": [{"a": value}]})


def test_a_float_of_numpy_becomes_a_float() -> None:
    assert same(thaw(freeze([np.float64(0.1), np.float64("nan")])), [0.1, math.nan])


@pytest.mark.parametrize(
    "tree", [{"$counter": [1]}, {"$ordered": 1}, {"$state_dict": [{}]}, {"$tensor": 1}, {"$tensor": {}}, {"$x": 1}]
)
def test_a_mark_with_a_wrong_content_is_refused(tree: object) -> None:
    with pytest.raises(CheckpointError, match="malformed"):
        thaw(Snapshot(tree, {}))


def test_parameters_come_back_as_plain_tensors() -> None:
    found = again({"a": nn.Parameter(torch.ones(2)), "b": nn.Buffer(torch.ones(2))})
    assert [type(each) for each in found.values()] == [Tensor, Tensor]
