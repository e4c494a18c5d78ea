"""The laws of an `Averager`."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from treenail.contracts.averaging import Averager
from treenail.contracts.laws._averaged import (
    Net,
    Untouched,
    assert_same,
    averaged_names,
    difference,
    replace_tensors,
    set_weights,
    shortened,
    stored,
    tensors_of,
    through_storage,
)
from treenail.contracts.laws._support import accepted, examples, refused
from treenail.kernel import StateError, TrainingError

EPOCH = 3  # steps
SEEDS = st.integers(0, 2**16)
STEPS = st.integers(0, 12)


class Training:
    """A model, its averager, and what its averages are by the formula, in float64.

    Args:
        laws: Whose averagers these are.
        seed: The weights of each step follow from it.
        dtype: Of the model.
    """

    def __init__(self, laws: AveragerLaws, seed: int, dtype: torch.dtype = torch.float32) -> None:
        self.laws = laws
        self.seed = seed
        self.model = Net(dtype)
        self.averages = laws.make(self.model)
        self.step = self.updates = self.averaged = 0
        self.expected: dict[str, Tensor] = {}

    def go(self, steps: int) -> None:
        """Train on, with an update after each step."""
        for _ in range(steps):
            self.step += 1
            set_weights(self.model, self.seed, self.step)
            self.update()

    def update(self) -> None:
        """Update averages and expectation with the weights as they are."""
        epoch = (self.step - 1) // EPOCH + 1
        self.averages.update(self.step, epoch)
        if self.step < self.laws.begin_step or epoch < self.laws.begin_epoch:
            return
        if self.updates % self.laws.interval == 0:
            weight = self.laws.weight(self.updates, self.averaged) if self.averaged else 1.0
            for name in averaged_names(self.model):
                new = self.model.get_parameter(name).detach().double()
                self.expected[name] = self.expected.get(name, new).lerp(new, weight)
            self.averaged += 1
        self.updates += 1

    def assert_expected(self) -> None:
        """Check that a view has the averages that the formula gives, or else the model's weights."""
        view, what = self.averages.view(), f"after {self.step} steps"
        if not self.averaged:
            assert_same(tensors_of(view), tensors_of(self.model), f"{what}, none of them an update, view and model")
        for name, expected in self.expected.items():
            found = view.get_parameter(name).detach().double()
            error = float((found - expected).abs().amax()) if expected.numel() else 0.0
            assert error < 1e-5, f"{what} the average of '{name}' is off by {error:.3g}"


class AveragerLaws(ABC):
    """What every averager obeys: subclass it, define `make` and `weight`, and let pytest collect the subclass.

    Attributes:
        interval: The averagers that `make` makes average at every so many updates.
        begin_step: The first training step that is an update; 0 and 1 are the first of all.
        begin_epoch: The first epoch whose steps are updates.
    """

    interval: int = 1
    begin_step: int = 0
    begin_epoch: int = 0

    @abstractmethod
    def make(self, model: nn.Module) -> Averager:
        """Return an averager of a model, always of the same kind."""

    @abstractmethod
    def weight(self, updates: int, averaged: int) -> float:
        """Return how far an average goes from the last one (0) to the weights of its time (1).

        Args:
            updates: How many there were since averaging began, at least 1.
            averaged: How many of them gave an average, at least 1.
        """

    def begun(self, averages: int = 3, dtype: torch.dtype = torch.float32) -> Training:
        """Return a training with so many averages, whose last update gave one."""
        training = Training(self, seed=3, dtype=dtype)
        while training.averaged < averages:
            training.go(1)
        return training

    @given(seed=SEEDS, steps=STEPS)
    @examples(30)
    def test_averages_are_those_of_the_formula(self, seed: int, steps: int) -> None:
        """The first average is the weights at the first update; each further one goes its part of the way to the new ones."""
        training = Training(self, seed)
        training.go(steps)
        training.assert_expected()

    def test_before_the_first_update_a_view_is_of_the_model(self) -> None:
        """As long as nothing is averaged a view has the weights that the model has then; the first average, too, has them."""
        training = Training(self, seed=1)
        while not training.averaged:
            training.assert_expected()
            training.go(1)
        view = training.averages.view()
        for name in averaged_names(training.model):
            own = training.model.get_parameter(name)
            assert torch.equal(view.get_parameter(name), own), f"the first average of '{name}' is not the weights"

    def test_only_every_so_many_updates_give_an_average(self) -> None:
        """Between two of them averages stay as they are, and each of them changes the averages."""
        training = self.begun()
        for _ in range(2 * self.interval):
            before, averaged = tensors_of(training.averages.view()), training.averaged
            training.go(1)
            after, moves = tensors_of(training.averages.view()), training.averaged > averaged
            for name in averaged_names(training.model):
                moved = not torch.equal(before[name], after[name])
                message = f"the update {training.updates} {'changed' if moved else 'did not change'} '{name}'"
                assert moved == (moves and before[name].numel() > 0), message

    @given(seed=SEEDS, steps=STEPS)
    @examples(15)
    def test_equal_updates_give_equal_averages(self, seed: int, steps: int) -> None:
        """Two averagers of equal models have equal states and views, bit for bit; neither disturbs the other."""
        one, other = Training(self, seed), Training(self, seed)
        other.model.load_state_dict(one.model.state_dict())
        one.go(steps)
        other.go(steps)
        assert_same(tensors_of(other.averages.view()), tensors_of(one.averages.view()), f"views after {steps} steps")
        if one.averaged:
            assert_same(stored(other.averages), stored(one.averages), f"states after {steps} steps")

    @given(seed=SEEDS, steps=STEPS, more=st.integers(0, 6), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
    @examples(40)
    def test_resume_equals_going_on(self, seed: int, steps: int, more: int, dtype: torch.dtype) -> None:
        """An averager that is given a stored state, at any step, has the averages of one that was never stopped, bit for bit."""
        whole, resumed = Training(self, seed, dtype), Training(self, seed, dtype)
        resumed.go(seed % 3)  # what it has seen itself does not count
        whole.go(steps)
        resumed.model.load_state_dict(whole.model.state_dict())
        with accepted(f"the state after {steps} steps"):
            resumed.averages.load_state_dict(stored(whole.averages))
        resumed.step = whole.step
        what = f"after {steps} steps, a resume and {more} steps"
        assert_same(stored(resumed.averages), stored(whole.averages), f"states after {steps} steps and a resume")
        for training in (whole, resumed):
            training.go(more)
        assert_same(tensors_of(resumed.averages.view()), tensors_of(whole.averages.view()), f"views {what}")
        assert_same(stored(resumed.averages), stored(whole.averages), f"states {what}")

    def test_a_state_is_a_plain_tree_and_stays_its_owners(self) -> None:
        """A state holds dicts, lists, tensors and scalars; an averager that loaded it does not write to its tensors."""
        state, training = stored(self.begun().averages), Training(self, seed=5)
        before = through_storage(state)
        training.averages.load_state_dict(state)
        training.go(2 * self.interval)
        assert_same(state, before, "a loaded state after further updates")

    def test_a_wrong_state_is_refused(self) -> None:
        """A state of another model or none at all, or one that lacks an entry anywhere, raises StateError and changes nothing."""
        whole = stored(self.begun().averages)
        wrong: list[tuple[str, dict[str, object]]] = [("an empty state", {}), *shortened(whole)]
        other = self.make(nn.Sequential(nn.Linear(4, 6)))
        for step in range(1, self.begin_step + self.begin_epoch + 2):
            other.update(step, epoch=step)
        wrong.append(("the state of another model", stored(other)))
        for what, state in wrong:
            training = self.begun(averages=2)
            before = stored(training.averages), tensors_of(training.averages.view())
            with refused(what, StateError):
                training.averages.load_state_dict(state)
            after = stored(training.averages), tensors_of(training.averages.view())
            for found, expected in zip(after, before, strict=True):
                assert_same(found, expected, f"the averages after {what} was refused")

    def test_the_model_is_only_read(self) -> None:
        """Updates, views, saving and loading leave weights, buffers, gradients, modes and random numbers alone."""
        training = self.begun()
        training.model.norm.eval()  # a mode that is not the model's must stay, too
        training.model(torch.ones(2, 4)).sum().backward()
        untouched = Untouched(training.model)
        for _ in range(self.interval):
            training.update()
        untouched.check("updates")
        training.averages.view()
        untouched.check("view()")
        state = stored(training.averages)
        untouched.check("state_dict()")
        training.averages.load_state_dict(state)
        untouched.check("load_state_dict()")
        training.averages.view()
        untouched.check("view() of a loaded state")

    def test_a_view_is_in_eval_mode(self) -> None:
        """Each module of a view is in eval mode, whatever the modes of the model's, before averaging begins and after it."""
        for training in (Training(self, seed=1), self.begun()):
            training.model.norm.eval()
            wrong = [name or "itself" for name, each in training.averages.view().named_modules() if each.training]
            assert not wrong, f"of a view in train mode is {', '.join(wrong)}"

    def test_a_view_computes_with_the_averages(self) -> None:
        """It gives what another module with its weights gives, has the model's dtypes, and keeps shared parameters shared."""
        for dtype in (torch.float32, torch.bfloat16):
            training, other = self.begun(dtype=dtype), Net(dtype).eval()
            view, x = training.averages.view(), torch.randn(8, 4, generator=torch.Generator().manual_seed(1)).to(dtype)
            other.load_state_dict(view.state_dict())
            with torch.no_grad(), accepted(f"a batch of {dtype} by a view of such a model"):
                outputs = view(x)
            assert_same(outputs, other(x).detach(), "what a view computes and what its weights give")
            shared = view.get_parameter("shared.weight") is view.get_parameter("second.weight")
            assert shared, "a parameter that modules share has become two"

    def test_nothing_done_to_a_view_reaches_the_model(self) -> None:
        """Running a view in train mode, converting it or asking it for gradients changes neither the model nor later views."""
        for training in (Training(self, seed=1), self.begun()):
            x, names = torch.ones(8, 4), averaged_names(training.model)
            before = tensors_of(training.averages.view())
            view = training.averages.view()
            untouched = Untouched(training.model)
            for name in names:
                view.get_parameter(name).requires_grad_()
            with torch.random.fork_rng(devices=()):
                view.train()(x).sum().backward()
            view.double()
            untouched.check("a view was trained and converted")
            after = tensors_of(training.averages.view())
            for name in names:
                assert_same(after[name], before[name], f"'{name}' in a view, after another one was converted")

    def test_a_view_does_not_follow_the_model(self) -> None:
        """Weights that change without an update do not change the averages in a view."""
        for count in (1, 2, 3):
            training = self.begun(count)
            view = training.averages.view()
            before = tensors_of(view)
            set_weights(training.model, seed=9, step=99)
            after = tensors_of(view)
            for name in averaged_names(training.model):
                assert_same(after[name], before[name], f"'{name}' in a view, after the model's weights changed")

    def test_a_second_module_takes_the_averages(self) -> None:
        """view(into) returns that module in eval mode, equal to view(), also where the model cannot be copied."""
        for training in (Training(self, seed=1), self.begun()):
            expected, second = tensors_of(training.averages.view()), Net()
            training.model.lock = threading.Lock()  # type: ignore[assignment]  # modules take anything for an attribute
            untouched = Untouched(training.model)
            with accepted("a second module"):
                view = training.averages.view(second)
            assert view is second, "view(into) returned another module"
            assert not any(module.training for module in view.modules()), "view(into) is in train mode"
            assert_same(tensors_of(view), expected, "view(into) and view()")
            untouched.check("view(into)")
            try:
                assert_same(tensors_of(training.averages.view()), expected, "view() of a model with a lock")
            except TrainingError:
                pass  # such a model need not be copied
            except TypeError as error:
                raise AssertionError(f"view() of a model with a lock raised {error!r}, not TrainingError") from error
            untouched.check("view() of a model with a lock")

    def test_a_wrong_second_module_is_refused(self) -> None:
        """A module that is built otherwise, or has tensors of the model, raises TrainingError; no weight changes."""
        training, partly = self.begun(), Net()
        narrow = Net()
        narrow.first = nn.Linear(4, 6)
        partly.first = training.model.first
        wrong: dict[str, nn.Module] = {"another kind of module": nn.Linear(4, 5), "one of other shapes": narrow}
        wrong |= {"the model itself": training.model, "a module with a layer of the model": partly}
        for what, into in wrong.items():
            before, untouched = tensors_of(into), Untouched(training.model)
            with refused(f"view(into) {what}", TrainingError):
                training.averages.view(into)
            assert_same(tensors_of(into), before, f"{what} after view(into) refused it")
            untouched.check(f"view(into) {what}")

    def test_buffers_are_the_models_or_averages(self) -> None:
        """Integers in a view are numbers that the model had; floats lie between those that it had; a mask stays."""
        training = Training(self, seed=4)
        seen: list[dict[str, Tensor]] = []
        for _ in range(4 * self.interval + self.begin_step + EPOCH * self.begin_epoch):
            training.go(1)
            seen.append(tensors_of(training.model))
            found = tensors_of(training.averages.view())
            for name in ("norm.num_batches_tracked", "codes", "mask"):
                had = any(difference(found[name], each[name], name) is None for each in seen)
                assert had, f"'{name}' is {found[name].tolist()} in a view, which it never was in the model"
            for name in ("norm.running_mean", "norm.running_var", "scale"):
                values = torch.stack([each[name] for each in seen])
                low, high = values.amin(0) - 1e-6, values.amax(0) + 1e-6
                within = bool(((low <= found[name]) & (found[name] <= high)).all())
                assert within, f"'{name}' of a view is not between what it was in the model"

    def test_small_steps_of_16_bit_weights_add_up(self) -> None:
        """Averages of bfloat16 weights are those of the formula to the nearest bfloat16, or the next, after many updates."""
        model = nn.Linear(2, 2).bfloat16()
        nn.init.constant_(model.weight, 1.0)
        averages, expected, averaged, updates, step = self.make(model), 1.0, 0, 0, 0
        while averaged < 300:
            step += 1
            averages.update(step, step)
            if step >= max(self.begin_step, self.begin_epoch):
                if updates % self.interval == 0:
                    weight = self.weight(updates, averaged) if averaged else 1.0
                    expected += weight * (float(model.weight.detach()[0, 0]) - expected)
                    averaged += 1
                updates += 1
            if averaged:
                nn.init.constant_(model.weight, 2.0)
        found = float(averages.view().get_parameter("weight").detach()[0, 0])
        assert abs(found - expected) < 0.01, f"the average of bfloat16 weights is {found}, must be {expected:.4f}"

    def test_replaced_tensors_are_followed(self) -> None:
        """Tensors that load_state_dict(assign=True), `.data`, a new module or a conversion put into a model are averaged."""
        for how in ("assign", "data", "module", "convert"):
            training = self.begun()
            replace_tensors(training.model, how)
            training.go(self.interval)
            replace_tensors(training.model, how)
            training.go(self.interval)
            with accepted(f"a view after tensors were replaced ({how})"):
                training.assert_expected()
