"""Where data is, and bringing it elsewhere; the meta device stands for a second one."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from tests.comm.worlds import on_ranks
from treenail.adapters.comm import SingleProcess
from treenail.adapters.comm.devices import cast_data_device, get_comm_device, get_data_device

CPU, META = torch.device("cpu"), torch.device("meta")


class Pair(NamedTuple):
    first: Tensor
    second: list[Tensor]


def test_the_device_of_data() -> None:
    ones = torch.ones(1)
    assert get_data_device(ones) == CPU
    assert get_data_device([ones, (ones, {"a": ones})]) == CPU
    assert get_data_device({"a": torch.ones(1, device="meta")}) == META


def test_data_without_one_device_is_refused() -> None:
    ones = torch.ones(1)
    with pytest.raises(ValueError, match="different types: cpu and meta"):
        get_data_device([ones, ones.to("meta")])
    nothing: tuple[object, ...] = ([], {}, [{}])
    for empty in nothing:
        with pytest.raises(ValueError, match="no tensor"):
            get_data_device(empty)
    with pytest.raises(TypeError, match=r"data\['a'\]\[1\] is a str"):
        get_data_device({"a": [ones, "x"]})


def test_what_is_on_the_device_stays_as_it_is() -> None:
    data: dict[str, Any] = {"a": [torch.ones(1)], "b": Pair(torch.ones(2), [torch.ones(3)])}
    cast = cast_data_device(data, CPU)
    assert cast["a"][0] is data["a"][0]
    assert isinstance(cast["b"], Pair)
    assert cast["b"].first is data["b"].first
    moved = cast_data_device(data, "meta")
    assert get_data_device(moved) == META
    assert list(moved) == ["a", "b"]
    assert isinstance(moved["b"], Pair)


def test_out_is_filled_in_place() -> None:
    data = {"a": [torch.ones(2), torch.tensor(3)]}
    out = {"a": [torch.zeros(2), torch.tensor(0)]}
    inner = out["a"][0]
    assert cast_data_device(data, CPU, out) is out
    assert out["a"][0] is inner
    assert inner.tolist() == [1, 1]
    assert int(out["a"][1]) == 3
    alone = torch.zeros(2)
    assert cast_data_device(torch.ones(2), CPU, alone) is alone
    assert alone.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("out", "error", "told"),
    [
        ({"a": torch.ones(2)}, TypeError, "out is a dict, data a list"),
        ([torch.ones(2)], ValueError, "out has 1 items, data 2"),
        ([torch.ones(2), torch.ones(2)], TypeError, r"out\[1\] is a Tensor, data\[1\] a dict"),
        ([torch.ones(2), {"b": torch.ones(1)}], ValueError, r"out\[1\] has the keys \['b'\]"),
        ([torch.ones(3), {"a": torch.ones(1)}], ValueError, r"out\[0\] has the shape \[3\], data\[0\] \[2\]"),
        ([2, {"a": torch.ones(1)}], TypeError, r"out\[0\] is a int"),
    ],
)
def test_out_of_another_structure_is_refused_before_anything_is_filled(
    out: object, error: type[Exception], told: str
) -> None:
    data = [torch.zeros(2), {"a": torch.zeros(1)}]
    with pytest.raises(error, match=told):
        cast_data_device(data, CPU, out)
    if isinstance(out, list) and isinstance(out[0], Tensor):
        assert out[0].all()


def test_other_things_are_on_no_device() -> None:
    for wrong in (3, "x", [torch.ones(1), None]):
        with pytest.raises(TypeError):
            cast_data_device(wrong, CPU)


def test_threads_and_one_process_communicate_through_the_cpu() -> None:
    assert get_comm_device(SingleProcess()) == CPU
    assert on_ranks(2, get_comm_device) == [CPU, CPU]
