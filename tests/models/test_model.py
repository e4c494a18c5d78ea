"""A model with modes trains itself as mmengine's does, to the bit, and says what is wrong with its losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.model import BaseModel as TheirModel
from mmengine.model import ImgDataPreprocessor as TheirPreprocessor
from mmengine.optim import OptimWrapper as TheirWrapper
from torch import Tensor, nn

from treenail.adapters.models import BaseDataPreprocessor, BaseModel, ImgDataPreprocessor, PlainModel
from treenail.adapters.optim import OptimWrapperDict, OwnStep
from treenail.adapters.optim.compat import AmpOptimWrapper, OptimWrapper
from treenail.contracts import HasTestStep, HasValStep, TrainsItself
from treenail.kernel import RegistryError, TrainingError

NUMBERS: dict[str, Any] = {"mean": [100.0], "std": [50.0], "pad_size_divisor": 4}


class _Forward:
    """The same forward for mmengine's model and ours."""

    net: nn.Sequential

    def make(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        scores = self.net(inputs)
        if mode == "tensor":
            return scores
        if mode == "predict":
            return list(scores.argmax(1))
        labels = torch.stack(data_samples)
        losses = nn.functional.cross_entropy(scores, labels, reduction="none")
        return {"loss_cls": losses, "loss_norm": [scores.square() * 0.01, scores.abs() * 0.01], "size": inputs.sum()}


class Ours(_Forward, BaseModel):
    def __init__(self, data_preprocessor: Any = None) -> None:
        BaseModel.__init__(self, data_preprocessor)
        self.make()


class Theirs(_Forward, TheirModel):  # type: ignore[misc]  # mmengine has no types
    def __init__(self, data_preprocessor: Any = None) -> None:
        TheirModel.__init__(self, data_preprocessor)
        self.make()


def batch(seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    images = [torch.randint(0, 256, (1, 5 + i, 6), generator=generator, dtype=torch.uint8) for i in range(3)]
    return {"inputs": images, "data_samples": [torch.tensor(i) for i in range(3)]}


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


@pytest.mark.parametrize("counts", [1, 2])
def test_it_trains_as_mmengines_does_to_the_bit(counts: int) -> None:
    ours, theirs = Ours(ImgDataPreprocessor(**NUMBERS)), Theirs(TheirPreprocessor(**NUMBERS))
    optim, their_optim = OptimWrapper(sgd(ours), counts), TheirWrapper(sgd(theirs), counts)
    for seed in range(4):
        logs, expected = ours.train_step(batch(seed), optim), theirs.train_step(batch(seed), their_optim)
        assert list(logs) == list(expected) == ["loss", "loss_cls", "loss_norm", "size"]
        assert all(torch.equal(logs[name], expected[name]) for name in logs)
        assert not any(value.requires_grad for value in logs.values())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    ours.eval()
    theirs.eval()
    assert ours.val_step(batch(9)) == theirs.val_step(batch(9)) == ours.test_step(batch(9))
    # Either model works with the other's wrapper.
    mixed, their_mixed = Ours(ImgDataPreprocessor(**NUMBERS)), Theirs(TheirPreprocessor(**NUMBERS))
    logs = mixed.train_step(batch(0), TheirWrapper(sgd(mixed)))
    assert torch.equal(logs["loss"], their_mixed.train_step(batch(0), OptimWrapper(sgd(their_mixed)))["loss"])


def test_the_steps_are_what_a_run_asks_for() -> None:
    model = Ours()
    assert isinstance(model, TrainsItself)
    assert isinstance(model, HasValStep)
    assert isinstance(model, HasTestStep)
    output = OwnStep(Ours(ImgDataPreprocessor(**NUMBERS)), OptimWrapper(sgd(model)))(batch(0))
    assert set(output.logs) == {"loss_cls", "loss_norm", "size"}
    assert output.loss == pytest.approx(output.logs["loss_cls"] + output.logs["loss_norm"])


def test_mixed_precision_is_the_wrappers() -> None:
    seen: list[torch.dtype] = []

    class Watched(Ours):
        def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
            seen.append(self.net(inputs).dtype)
            return super().forward(inputs, data_samples, mode)

    model = Watched(ImgDataPreprocessor(**NUMBERS))
    logs = model.train_step(batch(0), AmpOptimWrapper(dtype="bfloat16", optimizer=sgd(model)))
    model.val_step(batch(0))
    assert seen == [torch.bfloat16, torch.float32]
    assert logs["loss"].isfinite()


def test_batches_go_by_name_or_by_position() -> None:
    class Says(BaseModel):
        def forward(self, inputs: Any, data_samples: Any = None, mode: str = "tensor") -> Any:
            return inputs, data_samples, mode

    model = Says()
    assert model.val_step({"inputs": 1, "data_samples": 2}) == (1, 2, "predict")
    assert model.test_step((1,)) == (1, None, "predict")
    assert model.val_step([1, 2]) == (1, 2, "predict")
    assert model(1) == (1, None, "tensor")
    with pytest.raises(TrainingError, match="the data_preprocessor of Says returned a int"):
        model.val_step(3)


def test_preprocessing_knows_training_from_evaluation() -> None:
    class Heard(BaseDataPreprocessor):
        calls: list[bool]

        def forward(self, data: Any, training: bool = False) -> Any:
            self.calls.append(training)
            return super().forward(data, training)

    heard = Heard()
    heard.calls = []
    model = Ours(heard)
    images = {"inputs": torch.ones(1, 1, 4, 4), "data_samples": [torch.tensor(0)]}
    model.train_step(images, OptimWrapper(sgd(model)))
    model.val_step(images)
    model.test_step(images)
    assert heard.calls == [True, False, False]


def test_a_preprocessor_may_be_a_config() -> None:
    model = Ours({"type": "ImgDataPreprocessor", **NUMBERS})
    assert isinstance(model.data_preprocessor, ImgDataPreprocessor)
    assert model.data_preprocessor.pad_size_divisor == 4
    assert type(Ours().data_preprocessor) is BaseDataPreprocessor
    assert isinstance(Ours({"type": "BaseDataPreprocessor"}).data_preprocessor, BaseDataPreprocessor)
    with pytest.raises(RegistryError, match="'ImgDataPreprocesor'; did you mean 'ImgDataPreprocessor'"):
        Ours({"type": "ImgDataPreprocesor"})
    with pytest.raises(TypeError, match="data_preprocessor is a int"):
        Ours(3)


def test_moving_the_model_moves_what_batches_are_moved_to() -> None:
    model = Ours()
    assert isinstance(model.data_preprocessor, BaseDataPreprocessor)
    model.to("meta")
    assert str(model.data_preprocessor.device) == "meta"
    assert model.val_step({"inputs": torch.ones(2, 1, 4, 4)})[0].device.type == "meta"


class Answers(BaseModel):
    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.answer = answer

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = "tensor") -> Any:
        return self.answer(self.weight)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda weight: weight, r'forward\(mode="loss"\) of Answers returned a Parameter; return a dict of tensors'),
        (
            lambda weight: {"loss_a": weight.detach(), "loss_b": torch.ones(1)},
            "'loss_a', 'loss_b' of Answers depend on no",
        ),
        (lambda weight: {"loss": weight.item()}, "'loss' among the losses of Answers is a float"),
        (lambda weight: {"accuracy": weight}, "losses of Answers are accuracy: no name has 'loss' in it"),
    ],
)
def test_losses_that_train_nothing_are_named(answer: Any, message: str) -> None:
    model = Answers(answer)
    optim = OptimWrapper(sgd(model))
    with pytest.raises(TrainingError, match=message):
        model.train_step([torch.ones(1)], optim)
    assert float(model.weight) == 1
    assert optim.steps == 0


def test_losses_may_be_looked_at_without_gradients() -> None:
    model = Answers(lambda weight: {"loss": weight * 2})
    with torch.no_grad():
        total, _ = model.parse_losses(model([torch.ones(1)], mode="loss"))
    assert float(total) == 2


# Several optimizers


class Pair(BaseModel):
    """Two parts that chase each other, as a generator and a discriminator do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right = nn.Linear(1, 1), nn.Linear(1, 1)

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        return {"loss": (self.left(inputs) - self.right(inputs)).square()}

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        if not isinstance(optim_wrapper, OptimWrapperDict):
            return super().train_step(data, optim_wrapper)
        (inputs,) = self.data_preprocessor(data, True)
        logs: dict[str, Tensor] = {}
        for name, part, other in (("left", self.left, self.right), ("right", self.right, self.left)):
            with optim_wrapper[name].optim_context(part):
                loss, parsed = self.parse_losses({f"loss_{name}": (part(inputs) - other(inputs).detach()).square()})
            optim_wrapper[name].update_params(loss)
            logs |= {key: value.detach() for key, value in parsed.items() if key != "loss"}
        return logs


def test_a_model_may_say_what_each_of_several_optimizers_does() -> None:
    model = Pair()
    parts = (("left", model.left), ("right", model.right))
    updaters = OptimWrapperDict(
        **{name: OptimWrapper(torch.optim.SGD(part.parameters(), lr=0.1)) for name, part in parts}
    )
    step = OwnStep(model, updaters)
    outputs = [step([torch.ones(4, 1)]) for _ in range(20)]
    assert set(outputs[0].logs) == {"loss_left", "loss_right"}
    assert outputs[-1].loss < 0.01 * outputs[0].loss
    assert updaters.steps == 40
    with pytest.raises(
        TrainingError, match="Answers has no train_step of its own, and there are the optimizers left, right"
    ):
        Answers(lambda weight: {"loss": weight}).train_step([torch.ones(1)], updaters)


def test_its_preprocessor_goes_with_it_where_it_is_used_as_a_plain_model() -> None:
    model = Ours(ImgDataPreprocessor(**NUMBERS)).eval()
    images = torch.randint(0, 256, (2, 1, 6, 6), dtype=torch.uint8)
    for batch in ({"inputs": images, "data_samples": torch.zeros(2)}, (images, torch.zeros(2))):
        scores = PlainModel(model, batch)(images)
        assert list(scores.argmax(1)) == model.val_step(batch)


def test_forward_must_be_written() -> None:
    with pytest.raises(TypeError, match="abstract"):
        BaseModel()  # type: ignore[abstract]  # on purpose


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"img": torch.ones(1, 1, 5, 6)}, r"does not fit Ours\.forward\(.*missing a required argument: 'inputs'"),
        ({"inputs": torch.ones(1, 1, 5, 6), "mode": "loss"}, "does not fit.*mode"),
        ({3: 4}, "does not fit.*keywords must be strings"),
        ((1, 2, 3, 4), "does not fit.*let the dataset, or the data_preprocessor, give what forward takes"),
    ],
)
def test_a_batch_that_forward_does_not_take_is_named(data: Any, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        Ours().val_step(data)


def test_mistakes_in_forward_itself_stay_what_they_are() -> None:
    with pytest.raises(TypeError, match="conv2d"):
        Ours().val_step({"inputs": "an image"})


def test_a_preprocessor_is_where_the_model_was_made() -> None:
    with torch.device("meta"):
        model = Ours(ImgDataPreprocessor(**NUMBERS))
    assert model.data_preprocessor.device == model.net[0].weight.device == torch.device("meta")
    assert model.val_step(batch(1))[0].device.type == "meta"
