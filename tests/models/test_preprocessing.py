"""Preprocessors: values are mmengine's to the bit, data is moved whatever its structure, and wrong images are named."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.model import ImgDataPreprocessor as TheirPreprocessor
from mmengine.model import stack_batch as their_stack_batch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from treenail.adapters.models import BaseDataPreprocessor, ImgDataPreprocessor, Preprocessed, stack_batch
from treenail.kernel import TrainingError

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
DTYPES = [torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64, torch.bool]


def image(channels: int, height: int, width: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    return torch.randint(0, 2 if dtype is torch.bool else 256, (channels, height, width)).to(dtype)


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
    normalise=st.sampled_from([None, 1, 3]),
    dtype=st.sampled_from(DTYPES),
    channels=st.sampled_from([1, 3]),
    divisor=st.integers(1, 5),
    pad_value=st.sampled_from([0, 7, -0.5]),
    flip=st.sampled_from(["bgr_to_rgb", "rgb_to_bgr", None]),
    stacked=st.booleans(),
)
def test_images_are_those_of_mmengine_to_the_bit(
    sizes: list[tuple[int, int]],
    normalise: int | None,
    dtype: torch.dtype,
    channels: int,
    divisor: int,
    pad_value: float,
    flip: str | None,
    stacked: bool,
) -> None:
    if flip or normalise == 3:
        channels = 3
    arguments: dict[str, Any] = {"pad_size_divisor": divisor, "pad_value": pad_value}
    if normalise:
        arguments |= {"mean": MEAN[:normalise], "std": STD[:normalise]}
    if flip:
        arguments[flip] = True
    images = [image(channels, *(sizes[0] if stacked else size), dtype) for size in sizes]
    inputs: object = torch.stack(images) if stacked else images
    data = {"inputs": inputs, "data_samples": ["a"] * len(images)}
    before = copy.deepcopy(data)
    found, expected = ImgDataPreprocessor(**arguments)(data), TheirPreprocessor(**arguments)(data)
    assert found["inputs"].dtype == torch.float32
    assert torch.equal(found["inputs"], expected["inputs"])
    assert found["data_samples"] == expected["data_samples"]
    unchanged = [torch.equal(now, then) for now, then in zip(data["inputs"], before["inputs"], strict=True)]  # type: ignore[call-overload]  # tensors
    assert all(unchanged), "the loader's batch was changed"


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4),
    divisor=st.integers(1, 4),
    value=st.sampled_from([0, 3]),
    dtype=st.sampled_from([torch.uint8, torch.float32]),
)
def test_stacking_pads_as_mmengine_does(
    sizes: list[tuple[int, int]], divisor: int, value: int, dtype: torch.dtype
) -> None:
    images = [image(2, *size, dtype) for size in sizes]
    found, expected = stack_batch(images, divisor, value), their_stack_batch(images, divisor, value)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


def test_stacking_takes_any_dimensions_and_refuses_unlike_ones() -> None:
    clips = [torch.ones(3, 2, 4, 5), torch.ones(3, 1, 6, 5)]
    assert stack_batch(clips, 4).shape == (2, 3, 4, 8, 8)
    assert stack_batch([torch.ones(3, 5)], 0).shape == (1, 3, 5)
    for wrong, message in (
        ([], "no tensor to stack"),
        (torch.ones(2, 3), "a list of tensors is stacked, not a Tensor"),
        ([torch.ones(3, 2), torch.ones(3, 2, 2)], r"tensor 1 has the shape \[3, 2, 2\], tensor 0 \[3, 2\]"),
        ([torch.ones(3, 2), torch.ones(1, 2)], "as many dimensions, and channels"),
        ([torch.ones(())], "tensor 0 has the shape"),
    ):
        with pytest.raises(ValueError, match=message):
            stack_batch(wrong)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="pad_size_divisor is -1"):
        stack_batch([torch.ones(3, 2)], -1)


def test_images_may_be_differentiated() -> None:
    preprocess = ImgDataPreprocessor(MEAN, STD, pad_size_divisor=4, bgr_to_rgb=True)
    for sizes in ([(3, 5), (4, 2)], [(3, 5), (3, 5)]):
        images = [torch.rand(3, *size).requires_grad_() for size in sizes]
        torch.autograd.backward(preprocess({"inputs": images})["inputs"].sum())
        for each in images:
            slope = torch.tensor(STD).flip(0).reciprocal().view(3, 1, 1).expand_as(each)
            torch.testing.assert_close(each.grad, slope)


class Pair(NamedTuple):
    inputs: Any
    labels: Any


def test_a_batch_keeps_its_form() -> None:
    preprocess = ImgDataPreprocessor([1.0], [2.0])
    images, labels = torch.ones(2, 3, 4, 4), torch.tensor([0, 1])
    tensor = preprocess(images)
    assert torch.equal(tensor, torch.zeros(2, 3, 4, 4))
    mapping = preprocess({"inputs": images, "labels": labels})
    assert list(mapping) == ["data_samples", "inputs", "labels"]
    assert mapping["data_samples"] is None
    for batch in ((images, labels), [images, labels], Pair(images, labels)):
        found = preprocess(batch)
        assert type(found) is type(batch)
        assert torch.equal(found[0], tensor)
        assert torch.equal(found[1], labels)


@pytest.mark.parametrize(
    ("arguments", "batch", "message"),
    [
        ({}, {"imgs": 1}, "a batch is a dict with imgs, in which no inputs are found"),
        ({}, {}, "a batch is a dict with nothing"),
        ({}, 3, "a batch is a int"),
        ({}, {"inputs": "x"}, "the inputs are a str"),
        ({}, {"inputs": []}, "a batch has no image"),
        ({}, {"inputs": [torch.ones(3, 2, 2), 1]}, "image 1 of a batch is a int"),
        ({}, {"inputs": torch.ones(3, 2, 2)}, r"has the shape \[3, 2, 2\], must be \[batch, channels, height, width\]"),
        ({}, {"inputs": [torch.ones(2, 2)]}, r"image 0 of a batch has the shape \[2, 2\]"),
        ({}, {"inputs": [torch.ones(3, 2, 2), torch.ones(1, 2, 2)]}, r"tensor 1 has the shape \[1, 2, 2\]"),
        # mmengine takes these three: it makes three channels of one, fails with an IndexError, and drops a fourth.
        (
            {"mean": MEAN, "std": STD},
            {"inputs": torch.ones(1, 1, 2, 2)},
            "mean and std have 3 values, and an image has 1",
        ),
        (
            {"bgr_to_rgb": True},
            {"inputs": [torch.ones(1, 2, 2)]},
            "RGB and BGR have three channels, and an image has 1",
        ),
        (
            {"rgb_to_bgr": True},
            {"inputs": torch.ones(1, 4, 2, 2)},
            "RGB and BGR have three channels, and an image has 4",
        ),
    ],
)
def test_what_is_no_batch_of_images_is_named(arguments: dict[str, Any], batch: object, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        ImgDataPreprocessor(**arguments)(batch)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": MEAN}, "mean is given alone"),
        ({"std": STD}, "std is given alone"),
        ({"mean": MEAN[:2], "std": STD[:2]}, "mean is .* must be 1 or 3 finite numbers"),
        ({"mean": [0.0], "std": []}, r"std is \[\], must be 1 or 3"),
        ({"mean": [float("nan")], "std": [1.0]}, "finite numbers"),
        ({"mean": [0], "std": [0]}, "must be positive"),
        ({"bgr_to_rgb": True, "rgb_to_bgr": True}, "not by both"),
        ({"pad_size_divisor": 0}, "pad_size_divisor is 0, must be a whole number of at least 1"),
        ({"pad_size_divisor": 1.5}, "pad_size_divisor is 1.5"),
    ],
)
def test_settings_that_mean_nothing_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImgDataPreprocessor(**arguments)


# Moving


def test_data_of_any_structure_is_moved() -> None:
    preprocess = BaseDataPreprocessor(non_blocking=True).to("meta")
    element = BaseDataElement(bboxes=torch.ones(2, 4), metainfo={"scale": 2})
    words = ["a", b"b", None, 3]
    data = {
        "inputs": [torch.ones(2), (torch.ones(1), Pair(torch.ones(3), "label"))],
        "ordered": OrderedDict(x=torch.ones(1)),
        "element": element,
        "packed": pack_sequence([torch.ones(3)]),
        "words": words,
    }
    moved = preprocess(data, training=True)
    assert isinstance(moved["element"], BaseDataElement)
    assert isinstance(moved["packed"], PackedSequence)
    assert isinstance(moved["inputs"][1][1], Pair)
    tensors = [moved["inputs"][0], moved["inputs"][1][0], moved["inputs"][1][1].inputs, moved["ordered"]["x"]]
    assert {each.device.type for each in [*tensors, moved["element"].bboxes, moved["packed"].data]} == {"meta"}
    assert moved["words"] == words
    assert moved["inputs"][1][1].labels == "label"
    assert element.bboxes.device.type == "cpu", "the loader's batch was changed"


def test_it_is_where_the_module_around_it_is() -> None:
    inner = ImgDataPreprocessor(MEAN, STD)
    outer = nn.Sequential(nn.Sequential(inner), nn.Linear(1, 1))
    assert inner.device.type == "cpu"
    outer.to("meta")
    assert inner.device.type == "meta"
    assert inner.mean is not None
    assert inner.mean.device.type == "meta"


def test_half_precision_leaves_its_numbers_exact() -> None:
    exact, halved = ImgDataPreprocessor(MEAN, STD), ImgDataPreprocessor(MEAN, STD).half()
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    assert torch.equal(exact(images), halved(images))
    assert exact.state_dict() == {}


def test_its_representation_tells_its_settings() -> None:
    text = repr(ImgDataPreprocessor([1], [2], 32, bgr_to_rgb=True))
    assert text == "ImgDataPreprocessor(mean=[1.0], std=[2.0], pad_size_divisor=32, pad_value=0, flips channels)"


# In front of a plain model


class Augment(BaseDataPreprocessor):
    def forward(self, data: Tensor, training: bool = False) -> Tensor:
        moved: Tensor = self.cast_data(data)
        return moved + 100 if training else moved


def test_a_plain_model_hears_of_training() -> None:
    model = Preprocessed(nn.Identity(), Augment())
    assert float(model(torch.ones(1))) == 101
    assert float(model.eval()(torch.ones(1))) == 1
    assert float(Preprocessed(nn.Identity(), nn.Threshold(2, 7))(torch.ones(1))) == 7


def test_it_is_exported_with_the_model() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = Preprocessed(network, ImgDataPreprocessor(MEAN, STD, pad_size_divisor=4, bgr_to_rgb=True)).eval()
    images = torch.randint(0, 256, (3, 3, 6, 6), dtype=torch.uint8)
    program = torch.export.export(model, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(program.module()(images), model(images))
    assert set(model.state_dict()) == {"model.0.weight", "model.0.bias"}
