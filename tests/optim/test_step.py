"""The training steps: batches split into micro-batches, sums with weights, models with a step of their own."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.optim.test_wrapper import assert_equal, assert_near, gradients, network, samples, sgd
from treenail.adapters.optim import (
    OptimWrapper,
    OptimWrapperDict,
    OwnStep,
    SupervisedStep,
    TokenCrossEntropy,
    moved,
)
from treenail.contracts import Loss, TrainsItself
from treenail.kernel import Meters, TrainingError


class Tokens(nn.Module):
    """Scores of 5 classes for each of some tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 5))

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.head(inputs)
        return scores


@settings(deadline=None, max_examples=200)
@given(
    size=st.integers(1, 40),
    counts=st.integers(1, 12),
    seed=st.integers(0, 9),
    precise=st.booleans(),
)
def test_a_batch_has_its_gradient_however_it_is_split(size: int, counts: int, seed: int, precise: bool) -> None:
    inputs, targets = samples(size, seed)
    model = network(seed)
    if precise:  # what remains in float32 is rounding
        inputs, model = inputs.double(), model.double()
    loss = nn.functional.cross_entropy(model(inputs), targets)
    torch.autograd.backward(loss)
    whole = gradients(model)
    output = SupervisedStep(model, nn.CrossEntropyLoss(), OptimWrapper(sgd(model), counts))((inputs, targets))
    # The step leaves its gradients for hooks to look at.
    assert_near(gradients(model), whole, 1e-14 if precise else 1e-6)
    assert output.loss == pytest.approx(loss.item(), rel=1e-6)
    assert output.weight == size


@settings(deadline=None, max_examples=200)
@given(size=st.integers(1, 12), length=st.integers(1, 6), counts=st.integers(1, 5), data=st.data())
def test_every_token_counts_alike_however_a_batch_is_split(
    size: int, length: int, counts: int, data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(size, length, 4, generator=generator)
    classes = st.lists(st.sampled_from([-100, 0, 1, 2, 3, 4]), min_size=size * length, max_size=size * length)
    targets = torch.tensor(data.draw(classes)).reshape(size, length)
    model = Tokens()
    counted = int((targets != -100).sum())
    output = SupervisedStep(model, TokenCrossEntropy(), OptimWrapper(sgd(model), counts))((inputs, targets))
    found = gradients(model)
    if not counted:
        assert all(not gradient.any() for gradient in found)
        return
    model = Tokens()
    expected = nn.functional.cross_entropy(model(inputs).flatten(end_dim=1), targets.flatten(), ignore_index=-100)
    torch.autograd.backward(expected)
    assert_near(found, gradients(model))
    assert output.loss == pytest.approx(expected.item(), rel=1e-5)
    assert output.weight == counted


def test_a_sum_of_torch_stays_a_sum() -> None:
    inputs, targets = samples(10)
    model = network()
    loss = nn.functional.cross_entropy(model(inputs), targets, reduction="sum")
    torch.autograd.backward(loss)
    whole = gradients(model)
    model.zero_grad()
    step = SupervisedStep(model, nn.CrossEntropyLoss(reduction="sum"), OptimWrapper(sgd(model), 3))
    assert step((inputs, targets)).loss == pytest.approx(loss.item(), rel=1e-6)
    assert_near(gradients(model), whole)


def test_without_accumulation_it_is_the_loop_one_would_write() -> None:
    ours, theirs = network(), network()
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.01)
    step = SupervisedStep(ours, nn.CrossEntropyLoss(), torch.optim.AdamW(ours.parameters(), lr=0.01))
    for seed in range(5):
        inputs, targets = samples(8, seed)
        step((inputs, targets))
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(theirs(inputs), targets))
        optimizer.step()
    assert_equal(ours, theirs)


def test_a_skipped_step_is_told_and_the_norm_is_logged() -> None:
    model = network()
    step = SupervisedStep(model, nn.CrossEntropyLoss(), OptimWrapper(sgd(model), skip_nonfinite=True))
    inputs, targets = samples(4)
    good = step((inputs, targets))
    norm = good.logs["grad_norm"]
    assert good.stepped
    assert float(norm) > 0
    bad = step((inputs * torch.inf, targets))
    assert not bad.stepped
    assert not bad.logs


def test_what_cannot_be_split_alike_is_named() -> None:
    model = network()
    step = SupervisedStep(model, lambda outputs, targets: outputs.sum() + targets, OptimWrapper(sgd(model), 2))
    with pytest.raises(TrainingError, match=r"inputs of shape \[4, 6\] and targets of shape \[\] cannot be split"):
        step((samples(4)[0], torch.tensor(1.0)))


def test_meters_take_weights_that_are_tensors() -> None:
    meters = Meters()
    meters.add("loss", 1.0, 3)
    meters.add("loss", 2.0, torch.tensor(1.0))
    meters.add("loss", torch.tensor(4.0), torch.tensor(4))
    assert meters.drain()["loss"] == (3 + 2 + 16) / 8


def test_a_sum_with_its_weight_is_a_mean_for_an_optimizer_that_evaluates_it_often() -> None:
    inputs, targets = torch.randn(4, 5, 4), torch.randint(0, 5, (4, 5))
    targets[0, :3] = -100
    ours, theirs = Tokens(), Tokens()

    def mean(outputs: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs.flatten(end_dim=1), labels.flatten(), ignore_index=-100)

    losses: list[Loss] = [TokenCrossEntropy(), mean]
    for model, loss in zip((ours, theirs), losses, strict=True):
        optim = OptimWrapper(torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=3))
        SupervisedStep(model, loss, optim)((inputs, targets))
        assert (optim.steps, optim.state_dict()) == (1, {"skipped": 0})
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("counts", [1, 2])
@pytest.mark.parametrize("returned", [None, (torch.ones(()), 1), {"loss": 1}], ids=["none", "tuple", "dict"])
def test_what_is_no_loss_is_named(counts: int, returned: object) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return returned  # type: ignore[return-value]  # wrong on purpose

    model = network()
    step = SupervisedStep(model, loss, OptimWrapper(sgd(model), counts))
    with pytest.raises(TrainingError, match=r"the loss is a (NoneType|tuple|dict)"):
        step(samples(4))


def test_a_batch_without_samples_is_named() -> None:
    model = network()
    step = SupervisedStep(model, nn.CrossEntropyLoss(), OptimWrapper(sgd(model), 2))
    with pytest.raises(TrainingError, match="a batch without samples"):
        step(samples(0))


# A step of the model's own


class Two(nn.Module):
    """Two parts that chase each other, each with its optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(1, 1, bias=False)
        self.right = nn.Linear(1, 1, bias=False)

    def train_step(self, data: Tensor, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        losses = {}
        for name, part, other in (("left", self.left, self.right), ("right", self.right, self.left)):
            with optim_wrapper[name].optim_context(part):
                loss = (part(data) - other(data).detach()).square().mean()
            optim_wrapper[name].update_params(loss)
            losses[f"loss_{name}"] = loss
        return {**losses, "distance": (self.left.weight - self.right.weight).abs()}


def test_a_model_may_say_what_each_optimizer_does() -> None:
    model = Two()
    assert isinstance(model, TrainsItself)
    updaters = OptimWrapperDict(
        left=OptimWrapper(torch.optim.SGD(model.left.parameters(), lr=0.1)),
        right=OptimWrapper(torch.optim.SGD(model.right.parameters(), lr=0.1)),
    )
    step = OwnStep(model, updaters)
    outputs = [step(torch.ones(4, 1)) for _ in range(30)]
    first, last = outputs[0], outputs[-1]
    assert first.loss == pytest.approx(float(first.logs["loss_left"]) + float(first.logs["loss_right"]))
    assert last.weight == 4
    assert float(last.logs["distance"]) < 0.1 * float(first.logs["distance"])
    assert updaters.steps == 60


def test_the_norms_of_its_gradients_are_logged_by_name() -> None:
    model = Two()
    updaters = OptimWrapperDict(
        left=OptimWrapper(torch.optim.SGD(model.left.parameters(), lr=0.1), measure_norm=True),
        right=OptimWrapper(torch.optim.SGD(model.right.parameters(), lr=0.1)),
    )
    output = OwnStep(model, updaters)(torch.ones(4, 1))
    assert set(output.logs) == {"loss_left", "loss_right", "distance", "grad_norm_left"}


def test_a_step_of_its_own_has_equal_shares_and_one_optimizer_as_many_micro_batches_as_another() -> None:
    model = Two()
    with pytest.raises(ValueError, match="accumulative_counts are 1 and 2: a train_step gets the same micro-batches"):
        OwnStep(model, OptimWrapperDict(left=OptimWrapper(sgd(model.left), 2), right=OptimWrapper(sgd(model.right))))
    with pytest.raises(ValueError, match="LBFGS evaluates the loss several times"):
        OwnStep(model, OptimWrapper(torch.optim.LBFGS(model.parameters())))
    says = Says({"loss": 1.0})
    step = OwnStep(says, OptimWrapper(sgd(says)), share=lambda: (2, 3), world_size=2)
    with pytest.raises(TrainingError, match="3 samples of a batch are no equal shares of 2 ranks"):
        step(torch.ones(2))
    even = OwnStep(says, OptimWrapper(sgd(says)), share=lambda: (2, 4), world_size=2)
    assert even(torch.ones(2)).loss == 1.0


def test_a_step_in_which_all_were_skipped_is_told() -> None:
    model = Two()
    parts = {"left": model.left, "right": model.right}
    updaters = OptimWrapperDict(
        **{
            name: OptimWrapper(torch.optim.SGD(part.parameters(), lr=0.1), skip_nonfinite=True)
            for name, part in parts.items()
        }
    )
    step = OwnStep(model, updaters)
    assert step(torch.ones(4, 1)).stepped
    assert not step(torch.full((4, 1), torch.inf)).stepped


def test_parameters_that_the_loss_does_not_depend_on_are_named_once() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            scores: Tensor = self.used(inputs)
            return scores

    model = Spare()
    optim = OptimWrapper(sgd(model))
    step = SupervisedStep(model, nn.CrossEntropyLoss(), optim, detect_anomalous_params=True)
    with pytest.warns(UserWarning, match=r"does not depend on spare.weight, spare.bias$"):
        step(samples(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(samples(4))
    wrong = SupervisedStep(model, lambda outputs, targets: (outputs, 1), optim, detect_anomalous_params=True)  # type: ignore[arg-type,return-value]  # wrong on purpose
    with pytest.raises(TrainingError, match="the loss is a tuple"):
        wrong(samples(4))


class Says(nn.Module):
    def __init__(self, answer: object) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.answer = answer

    def train_step(self, data: object, optim_wrapper: OptimWrapper) -> Mapping[str, Tensor]:
        return self.answer  # type: ignore[return-value]  # wrong on purpose


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "train_step of Says returned a NoneType"),
        ({}, "returned nothing, no loss"),
        ({"accuracy": 1.0}, "returned accuracy, no loss"),
        ({"loss": torch.ones(2)}, "returned a Tensor as 'loss'"),
        ({"loss": "low"}, "returned a str as 'loss'"),
        ({0: torch.ones(())}, "returned 0, no loss"),
    ],
)
def test_what_is_no_result_of_a_step_is_named(answer: object, message: str) -> None:
    model = Says(answer)
    with pytest.raises(TrainingError, match=message):
        OwnStep(model, OptimWrapper(sgd(model)))(torch.ones(1))


def test_a_total_loss_is_taken_as_it_is() -> None:
    model = Says({"loss": torch.tensor([3.0]), "loss_part": 2.0, "accuracy": 1})
    output = OwnStep(model, OptimWrapper(sgd(model)))({"inputs": torch.ones(7, 2)})
    assert (output.loss, output.weight, dict(output.logs)) == (3.0, 7, {"loss_part": 2.0, "accuracy": 1.0})


class Pair(NamedTuple):
    inputs: Tensor
    names: list[str]


def test_batches_move_as_a_whole() -> None:
    batch = {"pair": Pair(torch.ones(2), ["a"]), "list": [torch.zeros(1), 3], "tuple": (torch.ones(1),), "text": "b"}
    found = moved(batch, torch.device("meta"))
    assert isinstance(found, dict)
    assert isinstance(found["pair"], Pair)
    assert found["pair"].inputs.device.type == found["list"][0].device.type == found["tuple"][0].device.type == "meta"
    assert (found["pair"].names, found["list"][1], found["text"]) == (["a"], 3, "b")
