"""The laws of an `Updater`."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from treenail.contracts.laws._averaged import through_storage
from treenail.contracts.laws._support import accepted, examples, refused
from treenail.contracts.updates import Skipped, Stepped, Updater
from treenail.kernel import TrainingError

SEEDS = st.integers(0, 2**16)
OPTIMIZERS: tuple[Callable[[nn.Module], Optimizer], ...] = (
    lambda model: SGD(model.parameters(), lr=0.1, momentum=0.9),
    lambda model: AdamW(model.parameters(), lr=0.01, weight_decay=0.1),
)
_optimizers = st.sampled_from(OPTIMIZERS)


class _Case:
    """A model with its updater, and an equal one with the bare optimizer."""

    def __init__(
        self, laws: UpdaterLaws, seed: int, optimizer: Callable[[nn.Module], Optimizer], counts: int = 1
    ) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=self.random))
        self.plain = copy.deepcopy(self.model)
        self.optimizer = optimizer(self.model)
        self.updater = laws.make(self.optimizer, counts)
        self.bare = optimizer(self.plain)
        self.tolerance = laws.tolerance

    def inputs(self) -> Tensor:
        """Draw a batch."""
        return torch.randn(5, 3, generator=self.random)

    def add(self, inputs: Tensor, *, bare: bool = True, last: bool = True) -> None:
        """Add the gradients of a batch, by the updater and without it."""
        with self.updater.optim_context(self.model, last=last):
            loss = self.model(inputs).square().mean()
        self.updater.backward(loss)
        if bare:
            torch.autograd.backward(self.plain(inputs).square().mean())

    def weights(self) -> list[Tensor]:
        """Copy the weights that the updater trains."""
        return [parameter.detach().clone() for parameter in self.model.parameters()]

    def assert_equal(self, what: str) -> None:
        """Check that the updater did to its model what the bare optimizer did to the other."""
        for (name, own), other in zip(self.model.named_parameters(), self.plain.parameters(), strict=True):
            error = float((own - other).detach().abs().max())
            assert error <= self.tolerance, f"{what}: '{name}' differs by {error:.3g} from a bare optimizer's"


class UpdaterLaws(ABC):
    """What every updater obeys: subclass it, define `make`, and let pytest collect the subclass.

    Attributes:
        tolerance: By how much weights may differ from those of a bare optimizer in float32: 0 but for lower precisions.
    """

    tolerance: float = 0.0

    @abstractmethod
    def make(self, optimizer: Optimizer, accumulative_counts: int) -> Updater:
        """Return an updater that clips nothing.

        Args:
            optimizer: What it updates with.
            accumulative_counts: How many micro-batches it shall expect in an update.
        """

    @given(optimizer=_optimizers, counts=st.integers(1, 4))
    @examples(4)
    def test_it_has_the_optimizer_it_was_made_with(
        self, optimizer: Callable[[nn.Module], Optimizer], counts: int
    ) -> None:
        """Schedules and checkpoints find the very optimizer, and steps how many micro-batches to make."""
        case = _Case(self, 0, optimizer, counts)
        assert case.updater.optimizer is case.optimizer, "optimizer is another one"
        found = case.updater.accumulative_counts
        assert found == counts, f"accumulative_counts is {found}, made with {counts}"

    @given(seed=SEEDS, optimizer=_optimizers, steps=st.integers(1, 4))
    @examples(15)
    def test_an_update_is_the_optimizers(
        self, seed: int, optimizer: Callable[[nn.Module], Optimizer], steps: int
    ) -> None:
        """Steps of one batch train as the bare optimizer does."""
        case = _Case(self, seed, optimizer)
        for step in range(steps):
            case.add(case.inputs())
            outcome = case.updater.step()
            assert isinstance(outcome, Stepped), f"a step with finite gradients gave {outcome!r}"
            case.updater.zero_grad()
            case.bare.step()
            case.bare.zero_grad()
            case.assert_equal(f"after {step + 1} steps")

    @given(seed=SEEDS, optimizer=_optimizers, counts=st.integers(2, 4))
    @examples(15)
    def test_gradients_add_up_until_they_are_forgotten(
        self, seed: int, optimizer: Callable[[nn.Module], Optimizer], counts: int
    ) -> None:
        """An update has the gradients of all micro-batches since the last `zero_grad`, and of none before."""
        case = _Case(self, seed, optimizer, counts)
        case.add(case.inputs(), bare=False)
        case.updater.zero_grad()
        for part in range(counts):
            case.add(case.inputs(), last=part == counts - 1)
        case.updater.step()
        case.bare.step()
        case.assert_equal(f"after {counts} micro-batches")

    @given(seed=SEEDS, optimizer=_optimizers, scale=st.sampled_from([0.0, 0.25, 3.0]), as_tensor=st.booleans())
    @examples(15)
    def test_a_scale_multiplies_the_gradients(
        self, seed: int, optimizer: Callable[[nn.Module], Optimizer], scale: float, as_tensor: bool
    ) -> None:
        """What a loss was summed over is often known at the end only: gradients are multiplied before the update."""
        case = _Case(self, seed, optimizer)
        case.add(case.inputs())
        case.updater.step(scale=torch.tensor(scale) if as_tensor else scale)
        for parameter in case.plain.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(scale)
        case.bare.step()
        case.assert_equal(f"with a scale of {scale}")

    @given(seed=SEEDS, optimizer=_optimizers, poison=st.sampled_from([1.0, float("nan"), float("inf")]))
    @examples(15)
    def test_an_outcome_says_what_was_done(
        self, seed: int, optimizer: Callable[[nn.Module], Optimizer], poison: float
    ) -> None:
        """Stepped: the optimizer made its step. Skipped: weights and the optimizer's state are as they were."""
        case = _Case(self, seed, optimizer)
        case.add(case.inputs())
        case.updater.step()
        case.updater.zero_grad()
        case.add(case.inputs() * poison)
        before, state = case.weights(), copy.deepcopy(case.optimizer.state_dict())
        outcome = case.updater.step()
        moved = any(not torch.equal(one, other) for one, other in zip(before, case.weights(), strict=True))
        if isinstance(outcome, Skipped):
            assert not moved, f"{outcome!r}, and the weights moved"
            assert _same(state, case.optimizer.state_dict()), f"{outcome!r}, and the optimizer's state changed"
            assert outcome.reason.strip(), "a skipped step gives no reason"
            assert poison != 1.0, f"a step with finite gradients was skipped: {outcome.reason}"
        else:
            assert isinstance(outcome, Stepped), f"a step gave {outcome!r}"
            assert moved, "the step was made, as it says, and no weight moved"

    @given(seed=SEEDS, which=st.sampled_from(["a vector", "without a gradient", "a number"]))
    @examples(9)
    def test_a_loss_that_is_none_is_refused(self, seed: int, which: str) -> None:
        """What cannot be differentiated is a TrainingError, and the gradients stay as they are."""
        case = _Case(self, seed, OPTIMIZERS[0])
        case.add(case.inputs())
        outputs = case.model(case.inputs())
        losses: dict[str, object] = {
            "a vector": outputs.square().mean(1),
            "without a gradient": outputs.detach().sum(),
            "a number": 0.5,
        }
        before = [None if each.grad is None else each.grad.clone() for each in case.model.parameters()]
        with refused(f"backward of {which}", TrainingError):
            case.updater.backward(losses[which])  # type: ignore[arg-type]  # wrong on purpose
        after = [each.grad for each in case.model.parameters()]
        assert _same(before, after), f"backward of {which} changed the gradients"

    @given(seed=SEEDS)
    @examples(6)
    def test_a_context_ends_with_its_block(self, seed: int) -> None:
        """A forward pass in it can be differentiated, it may be had again and again, and precision is as before afterwards."""
        case = _Case(self, seed, OPTIMIZERS[0])
        inputs = case.inputs()
        for last in (False, True, True):
            with accepted("a context"), case.updater.optim_context(case.model, last=last):
                assert case.model(inputs).requires_grad, "a forward pass in the context cannot be differentiated"
            assert torch.is_grad_enabled(), "gradients are off after a context"
            dtype = case.model(inputs).dtype
            assert dtype == torch.float32, f"a forward pass after a context is {dtype}"

    @given(seed=SEEDS, optimizer=_optimizers, steps=st.integers(0, 3))
    @examples(10)
    def test_a_resumed_updater_goes_on_as_the_first(
        self, seed: int, optimizer: Callable[[nn.Module], Optimizer], steps: int
    ) -> None:
        """Its state, through a checkpoint and with the optimizer's, makes another updater the same."""
        case = _Case(self, seed, optimizer)
        for _ in range(steps):
            _step(case)
        resumed = _Case(self, seed, optimizer)
        state = through_storage(case.updater.state_dict())
        assert isinstance(state, dict), f"state_dict() is a {type(state).__name__}"
        with accepted("loading a state"):
            resumed.model.load_state_dict(case.model.state_dict())
            resumed.optimizer.load_state_dict(copy.deepcopy(case.optimizer.state_dict()))
            resumed.updater.load_state_dict(state)
        resumed.random.set_state(case.random.get_state())
        for _ in range(2):
            _step(case)
            _step(resumed)
        same = all(torch.equal(one, other) for one, other in zip(case.weights(), resumed.weights(), strict=True))
        assert same, f"resumed after {steps} steps, two more gave other weights"


def _step(case: _Case) -> None:
    case.add(case.inputs(), bare=False)
    case.updater.step()
    case.updater.zero_grad()


def _same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other
