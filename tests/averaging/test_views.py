"""What evaluation sees: averages in a module of its own, while the training's stays as it is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tests.adapters.test_training import batches
from tests.averaging.models import WeightsOverTime, assert_same, copies, net
from treenail.adapters.averaging import WeightAverages, exponential_average, uniform_average, update_bn
from treenail.adapters.data import Batches
from treenail.adapters.evaluation import Accuracy
from treenail.adapters.loops import EvalLoop
from treenail.kernel import Engine, TrainingError


def averaged(model: nn.Module) -> WeightAverages:
    averages = exponential_average(model, momentum=0.25)
    set_to = WeightsOverTime(model, 3)
    for step in range(3):
        set_to(step)
        averages.update(step + 1)
    return averages


class Untouched:
    """Notes everything about a model's tensors and modes, and checks that it is the same."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.before = self._seen()
        self.values = copies(model)

    def _seen(self) -> list[tuple[object, ...]]:
        tensors = [*self.model.named_parameters(), *self.model.named_buffers()]
        facts: list[tuple[object, ...]] = [(n, id(t), t.data_ptr(), t._version, t.requires_grad) for n, t in tensors]
        return facts + [(name, id(module), module.training) for name, module in self.model.named_modules()]

    def check(self) -> None:
        assert self._seen() == self.before
        assert_same(copies(self.model), self.values)


def test_validation_sees_averages_and_leaves_the_training_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    model[1].eval()  # a mode that is not the model's must come back
    averages = averaged(model)
    with torch.no_grad():
        model[1].running_var.abs_()  # type: ignore[operator]  # of batch normalisation
    untouched = Untouched(model)
    found = []
    for module in (averages.view(), model):
        loop = EvalLoop("val", module, nn.CrossEntropyLoss(), Batches(batches(3)), [Accuracy()])
        Engine().run(loop)
        assert loop.metrics is not None
        found.append(loop.metrics["val/loss"])
    assert found[0] != found[1]
    untouched.check()


def test_an_exception_in_validation_leaves_the_training_as_it_is() -> None:
    model = net()
    averages = averaged(model)
    untouched = Untouched(model)

    def fail(outputs: Tensor, targets: Tensor) -> Tensor:
        raise FloatingPointError("on purpose")

    loop = EvalLoop("val", averages.view(), fail, Batches([(torch.ones(3, 4), torch.ones(3, 4))]))
    with pytest.raises(FloatingPointError, match="on purpose"):
        Engine().run(loop)
    untouched.check()


def test_nothing_that_is_done_to_a_view_reaches_the_model() -> None:
    model = net()
    averages = averaged(model)
    before = copies(averages.view())
    untouched = Untouched(model)
    view = averages.view()
    assert not any(module.training for module in view.modules())
    view.train()
    view(torch.randn(8, 4))  # moves the statistics of batch normalisation
    view.get_parameter("first.weight").requires_grad_()
    view.double()
    untouched.check()
    assert_same(copies(averages.view()), before)


def test_a_view_shares_memory_and_copies_no_weights() -> None:
    model = net()
    averages = averaged(model)
    weights = averages.state_dict()["weights"]
    assert isinstance(weights, dict)
    view = averages.view()
    assert all(view.get_parameter(name).data_ptr() == each.data_ptr() for name, each in weights.items())
    assert view.get_parameter("first.weight").data_ptr() != model.first.weight.data_ptr()


def test_a_view_before_averaging_is_of_the_model_and_safe() -> None:
    model = net()
    untouched = Untouched(model)
    view = exponential_average(model, begin_step=5).view()
    assert view.get_parameter("first.weight").data_ptr() == model.first.weight.data_ptr()
    view.train()(torch.randn(8, 4))
    untouched.check()


class Odd(nn.Module):
    """A recurrent network, hooks, modules in a list, and a tensor that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(3, 4, num_layers=2)
        self.out = nn.Linear(4, 2)
        self.aside = [self.out]
        self.factor = torch.full((), 2.0)
        self.calls = 0
        self.out.register_forward_hook(self._count)

    def _count(self, module: nn.Module, inputs: object, outputs: object) -> None:
        self.calls += 1

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.recurrent(x)[0]
        out: Tensor = self.aside[0](hidden) * self.factor
        return out


def test_a_view_of_a_model_that_keeps_references_computes_with_averages() -> None:
    model = Odd()
    averages = averaged(model)
    x = torch.randn(5, 2, 3)
    plain = Odd()
    plain.load_state_dict(averages.view().state_dict())
    view = averages.view()
    assert torch.equal(view(x), plain(x))
    assert model.calls == 0
    assert view.get_submodule("").calls == 1
    reparametrized = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    averages = averaged(reparametrized)
    expected = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    expected.load_state_dict(averages.view().state_dict())
    assert torch.equal(averages.view()(x), expected(x))


class Calling(nn.Module):
    """Computes by what it has for an attribute."""

    function: Callable[[Tensor], Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def method(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def calling(part: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: part(x) * 1


def calling_what_is_gone() -> Callable[[Tensor], Tensor]:
    part: Callable[[Tensor], Tensor] = torch.relu

    def function(x: Tensor) -> Tensor:
        return part(x)  # noqa: F821  # on purpose

    del part
    return function


@pytest.mark.parametrize(
    "make",
    [
        lambda model: lambda x: model.layer(x) * 1,
        lambda model: calling(model.layer),
        lambda model: calling(calling(model.layer)),
        lambda model: calling(model.method),
        lambda model: calling(partial(nn.functional.linear, weight=model.layer.weight)),
        lambda model: partial(calling(model.layer)),
        lambda model: lambda x, layer=model.layer: layer(x),
        lambda model: lambda x, *, layer=model.layer: layer(x),
        lambda model: [calling(model.layer)],
        lambda model: {"function": calling(model.layer)},
        lambda model: torch.compile(model.method, backend="eager"),
    ],
)
def test_a_function_that_would_compute_with_the_model_is_not_viewed(make: Callable[[Calling], object]) -> None:
    model, second = nn.Sequential(Calling()), nn.Sequential(Calling())
    averages = averaged(model)
    model[0].function = make(model[0])  # type: ignore[assignment,arg-type]  # modules take anything for an attribute
    untouched = Untouched(model)
    with pytest.raises(TrainingError, match=r"'0.function' is a function that has modules or weights.*second module"):
        averages.view()
    untouched.check()
    assert averages.view(second) is second


@pytest.mark.parametrize(
    "make",
    [
        lambda model: model.method,
        lambda model: partial(nn.functional.linear, weight=model.layer.weight, bias=model.layer.bias),
        lambda model: partial(lambda layer, x: layer(x), model.layer),
    ],
)
def test_what_python_copies_with_a_model_computes_with_averages(make: Callable[[Calling], object]) -> None:
    model, x = Calling(), torch.ones(1, 2)
    averages = averaged(model)
    model.function = make(model)  # type: ignore[assignment]  # of (x), too
    model.unused = calling_what_is_gone()  # type: ignore[assignment]  # modules take anything for an attribute
    model.register_forward_hook(lambda module, inputs, outputs: model.method(outputs) * 0 + outputs)
    model.compile(backend="eager")
    view = averages.view()
    assert torch.equal(view(x), view.get_submodule("layer")(x))
    assert not torch.equal(view(x), model.layer(x))


class Listener:
    def __init__(self) -> None:
        self.lock = threading.Lock()  # cannot be copied
        self.heard = 0

    def __call__(self, *_: object) -> None:
        self.heard += 1

    def listen(self, *_: object) -> None:
        self.heard += 1


def test_who_listens_to_the_model_listens_to_its_view_and_is_not_copied() -> None:
    model, listener = net(), Listener()
    model.first.register_forward_hook(listener.listen)
    model.second.register_forward_pre_hook(listener)
    averages = averaged(model)
    averages.view()(torch.ones(1, 4))
    assert listener.heard == 2


class Remembering(nn.Linear):
    """Keeps what it computed last, with its graph, which torch does not copy."""

    def forward(self, x: Tensor) -> Tensor:
        self.last = super().forward(x)
        return self.last


def test_a_model_may_remember_what_it_computed_and_be_listened_to_backwards() -> None:
    model, listener = Remembering(2, 2), Listener()
    model.register_full_backward_hook(listener.listen)
    model.register_full_backward_pre_hook(listener.listen)
    averages = averaged(model)
    model(torch.ones(1, 2, requires_grad=True)).sum().backward()
    untouched = Untouched(model)
    view = averages.view()
    assert isinstance(view, Remembering)
    assert torch.equal(view.last, model.last)
    assert view.last is not model.last
    assert model.last.grad_fn is not None
    assert listener.heard == 2
    untouched.check()


def test_a_second_module_is_none_that_trains() -> None:
    model, second = net(), net()
    second.first = model.first
    averages = averaged(model)
    untouched = Untouched(model)
    for into, name in ((model, "codes"), (second, "first.weight")):
        with pytest.raises(TrainingError, match=f"has '{name}' in common with the model.*build a second module"):
            averages.view(into)
    untouched.check()


def test_a_model_that_cannot_be_copied_takes_a_second_module() -> None:
    model, second = net(), net(3)
    averages = averaged(model)
    model.lock = threading.Lock()  # type: ignore[assignment]  # modules take anything for an attribute
    untouched = Untouched(model)
    with pytest.raises(TrainingError, match=r"Net cannot be copied to evaluate its averages: TypeError.*second module"):
        averages.view()
    view = averages.view(second)
    assert view is second
    assert not second.training
    del model.lock
    assert_same(copies(view), copies(averages.view()))
    untouched.check()
    with pytest.raises(TrainingError, match=r"not built as the model is: '0.bias' is not the same in both"):
        averages.view(nn.Sequential(nn.Linear(4, 5)))


def test_statistics_of_batch_normalisation_are_those_of_torch() -> None:
    ours, torchs = (nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, momentum=0.3), nn.Linear(5, 2)) for _ in range(2))
    torchs.load_state_dict(ours.state_dict())
    generator = torch.Generator().manual_seed(3)
    data = [(torch.randn(6, 4, generator=generator), torch.zeros(6)) for _ in range(4)]
    update_bn(data, ours)
    update_bn([x for x, _ in data], torchs.eval())
    torch.optim.swa_utils.update_bn(data, torchs)
    assert_same(copies(ours), copies(torchs))
    norm = ours[1]
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.momentum == 0.3
    assert int(ours.get_buffer("1.num_batches_tracked")) == 4
    assert ours.training


def test_computing_statistics_restores_every_mode_and_is_without_dropout() -> None:
    model = net()
    model.norm.eval()
    model.first.eval()
    modes = [module.training for module in model.modules()]
    seen: list[bool] = []
    model.drop.register_forward_hook(lambda module, inputs, outputs: seen.append(module.training))
    update_bn([torch.randn(6, 4)] * 2, model)
    assert seen == [False, False]
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "no batch to compute statistics of"),
        ([torch.randn(6, 4), {"x": 1}], "a batch is a dict that begins with no tensor"),
        ([torch.randn(6, 4), torch.randn(6, 3)], "mat1 and mat2"),
    ],
)
def test_statistics_stay_as_they_were_after_an_exception(data: list[object], message: str) -> None:
    model = net()
    model(torch.randn(6, 4))
    untouched = copies(model)
    with pytest.raises((TrainingError, RuntimeError), match=message):
        update_bn(data, model)
    assert_same(copies(model), untouched)
    assert model.norm.momentum == 0.1
    assert all(module.training for module in model.modules())


def test_statistics_computed_on_a_view_last_where_buffers_are_its_own() -> None:
    model = net()
    averages = uniform_average(model, buffers="ignore")
    for step in range(2):
        model(torch.randn(6, 4))
        averages.update(step + 1)
    before = copies(model)
    data = [torch.randn(6, 4) for _ in range(3)]
    view = averages.view()
    update_bn(data, view)
    fresh = net()
    again = uniform_average(fresh, buffers="ignore")
    again.load_state_dict(averages.state_dict())
    assert_same(copies(again.view()), copies(view))
    assert int(again.view().get_buffer("norm.num_batches_tracked")) == 3
    assert_same(copies(model), before)
