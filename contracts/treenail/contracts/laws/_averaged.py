"""A model that has everything averages meet, and what the laws of an `Averager` note of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from treenail.contracts.averaging import Averager


class Net(nn.Module):
    """Batch norm and dropout; weights that are shared, frozen, transposed and empty; integers, a state, and a mask that is none.

    Args:
        dtype: Of all that is of floating point.
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.drop = nn.Dropout(0.5)
        self.second = nn.Linear(5, 4, bias=False)
        self.shared = nn.Linear(5, 4)
        self.shared.weight = self.second.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(requires_grad=False)
        self.transposed = nn.Parameter(torch.zeros(4, 3).t())
        self.empty = nn.Parameter(torch.zeros(0, 2))
        self.codes = nn.Parameter(torch.arange(3), requires_grad=False)
        self.register_buffer("scale", torch.ones(4))
        self.register_buffer("mask", torch.tensor([0.0, float("-inf"), 0.0, 0.0]), persistent=False)
        self.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """float[batch, 4] → float[batch, 4]."""
        hidden: Tensor = self.drop(self.norm(self.first(x)).relu())
        outputs: Tensor = self.frozen(self.second(hidden) + self.shared(hidden)) * self.get_buffer("scale")
        return outputs


def averaged_names(model: nn.Module) -> list[str]:
    """Return the names of what is averaged of a model, buffers apart."""
    return [name for name, each in model.named_parameters() if each.requires_grad]


@torch.no_grad()
def set_weights(model: nn.Module, seed: int, step: int) -> None:
    """Set what training changes, floats to random numbers and integers to 1000 · step; it follows from the arguments alone."""
    generator = torch.Generator().manual_seed(1000 * seed + step)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not tensor.is_floating_point():
            tensor.fill_(1000 * step)
        elif not name.startswith(("frozen", "mask")):  # from 0.1, so that it may be a variance
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 2 + 0.1)


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of a module's parameters and buffers, under all their names."""
    named = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    return {name: tensor.detach().clone() for name, tensor in named}


def through_storage(value: object, where: str = "the state") -> object:
    """Return what becomes of a plain tree that is stored: contiguous tensors, and what JSON has.

    Raises:
        AssertionError: It holds something else.
    """
    if isinstance(value, Tensor):
        return value.detach().contiguous().clone()
    if isinstance(value, Mapping):
        assert all(type(key) is str for key in value), f"{where} has keys that are no strings: {list(value)}"
        return {key: through_storage(each, f"{where}[{key!r}]") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [through_storage(each, f"{where}[{index}]") for index, each in enumerate(value)]
    plain = value is None or type(value) in (bool, int, float, str)
    assert plain, f"{where} is a {type(value).__name__}, which no plain tree holds"
    return value


def stored(averages: Averager) -> dict[str, object]:
    """Return the state of averages as a checkpoint gives it back."""
    state = through_storage(averages.state_dict())
    assert isinstance(state, dict), f"state_dict() is a {type(state).__name__}"
    return state


def shortened(state: Mapping[str, object], where: str = "a state") -> Iterator[tuple[str, dict[str, object]]]:
    """Yield (what it is, a state that lacks one entry) for each entry of a state and of the mappings in it."""
    for key, value in state.items():
        yield f"{where} without '{key}'", {each: state[each] for each in state if each != key}
        if isinstance(value, Mapping):
            for what, shorter in shortened(value, f"{where}[{key!r}]"):
                yield what, {**state, key: shorter}


def difference(found: object, expected: object, where: str) -> str | None:
    """Say where two trees differ in a bit or a dtype; None where they do not."""
    if isinstance(expected, Tensor):
        same = isinstance(found, Tensor) and found.dtype == expected.dtype and torch.equal(found, expected)
        return None if same else where
    if isinstance(expected, dict):
        if not isinstance(found, dict) or found.keys() != expected.keys():
            return where
        parts = (difference(found[key], expected[key], f"{where}[{key!r}]") for key in expected)
        return next((part for part in parts if part), None)
    return None if type(found) is type(expected) and found == expected else where


def assert_same(found: object, expected: object, what: str) -> None:
    """Check that two trees are equal, bit for bit."""
    wrong = difference(found, expected, "")
    assert wrong is None, f"{what}: {wrong} differs"


class Untouched:
    """Notes everything about a model, and checks that it is the same."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._random = torch.get_rng_state()
        self._tensors = tensors_of(model)
        self._gradients = self._of_gradients()
        self._facts = self._seen()

    def _of_gradients(self) -> dict[str, object]:
        parameters = self._model.named_parameters()
        return {name: None if each.grad is None else each.grad.clone() for name, each in parameters}

    def _seen(self) -> dict[str, object]:
        tensors = (*self._model.named_parameters(), *self._model.named_buffers())
        seen: dict[str, object] = {
            f"the tensor {name}": (id(each), each.data_ptr(), each._version, each.requires_grad, each.dtype)
            for name, each in tensors
        }
        modes = {f"the mode of {name}": (id(each), each.training) for name, each in self._model.named_modules()}
        return seen | modes

    def check(self, after: str) -> None:
        """Check it all."""
        assert_same(tensors_of(self._model), self._tensors, f"the model after {after}")
        assert_same(self._of_gradients(), self._gradients, f"gradients after {after}")
        assert_same(self._seen(), self._facts, f"the model after {after}")
        assert torch.equal(torch.get_rng_state(), self._random), f"{after} drew random numbers"


def replace_tensors(model: Net, how: str) -> None:
    """Give a model other tensors of the same values."""
    if how == "assign":
        model.load_state_dict({name: each.clone() for name, each in model.state_dict().items()}, assign=True)
        model.shared.weight = model.second.weight
    elif how == "data":
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    elif how == "module":
        first = nn.Linear(4, 5)
        first.load_state_dict(model.first.state_dict())
        model.first = first
    else:
        model.double().float()
