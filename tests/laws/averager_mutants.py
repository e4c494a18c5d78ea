"""An honest averager, and averagers each of which is wrong in one way."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from treenail.kernel import StateError, TrainingError

MOMENTUM, INTERVAL, BEGIN = 0.25, 2, 3


class PlainAverages:
    """An honest averager: float32 averages by name, given to a copy of the model."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.updates = self.averaged = 0
        self.kept: dict[str, Tensor] = {}

    def sources(self) -> Iterable[tuple[str, Tensor]]:
        return [(name, each) for name, each in self.model.named_parameters() if each.requires_grad]

    def taken(self, source: Tensor) -> Tensor:
        return source.detach().float().contiguous().clone()

    @torch.no_grad()
    def update(self, step: int, epoch: int = 1) -> None:
        if step < BEGIN:
            return
        if self.updates % INTERVAL == 0:
            self.average()
            self.averaged += 1
        self.updates += 1

    def average(self) -> None:
        for name, source in self.sources():
            if self.averaged:
                self.kept[name].lerp_(self.taken(source), MOMENTUM)
            else:
                self.kept[name] = self.taken(source)

    def view(self, into: nn.Module | None = None) -> nn.Module:
        if into is None:
            view = self.copied()
        else:
            self.check(into)
            view = self.filled(into)
        self.give(view)
        return view.eval()

    def copied(self) -> nn.Module:
        try:
            return copy.deepcopy(self.model)
        except TypeError as error:
            raise TrainingError(str(error)) from error

    @torch.no_grad()
    def give(self, view: nn.Module) -> None:
        for name, kept in self.kept.items():
            view.get_parameter(name).copy_(kept)

    def check(self, into: nn.Module) -> None:
        theirs, own = _tensors(into), _tensors(self.model)
        alike = theirs.keys() == own.keys() and all(own[name].shape == theirs[name].shape for name in own)
        if not alike or any(theirs[name] is own[name] for name in own):
            raise TrainingError("this is no second module")

    @torch.no_grad()
    def filled(self, into: nn.Module) -> nn.Module:
        for name, each in _tensors(self.model).items():
            _tensors(into)[name].copy_(each)
        return into

    def state_dict(self) -> dict[str, object]:
        return {"updates": self.updates, "averaged": self.averaged, "kept": dict(self.kept)}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        updates, averaged, kept = (state_dict.get(name) for name in ("updates", "averaged", "kept"))
        if not isinstance(updates, int) or not isinstance(averaged, int) or not isinstance(kept, dict):
            raise StateError("this is no state of averages")
        if averaged and kept.keys() != {name for name, _ in self.sources()}:
            raise StateError("these are averages of another model")
        self.updates, self.averaged, self.kept = updates, averaged, self.loaded(kept)

    def loaded(self, kept: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: each.clone() for name, each in kept.items()}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


class TakesTheDecayForTheMomentum(PlainAverages):
    def average(self) -> None:
        for name, source in self.sources():
            old = self.kept.get(name, self.taken(source))
            self.kept[name] = old.lerp(self.taken(source), 1 - MOMENTUM)


class AveragesSharedWeightsTwice(PlainAverages):
    def average(self) -> None:
        super().average()
        if self.averaged:
            self.kept["second.weight"].lerp_(self.taken(self.model.get_parameter("shared.weight")), MOMENTUM)


class BeginsWithTheInitialWeights(PlainAverages):
    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.initial = {name: self.taken(source) for name, source in self.sources()}

    def average(self) -> None:
        if not self.averaged:
            self.kept = self.initial
        for name, source in self.sources():
            self.kept[name].lerp_(self.taken(source), MOMENTUM)


class ViewsTheInitialWeights(PlainAverages):
    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.kept = {name: self.taken(source) for name, source in self.sources()}


class BeginsAtOnce(PlainAverages):
    def update(self, step: int, epoch: int = 1) -> None:
        super().update(BEGIN, epoch)


class BeginsAStepLate(PlainAverages):
    def update(self, step: int, epoch: int = 1) -> None:
        super().update(step - 1, epoch)


class AveragesAtEveryUpdate(PlainAverages):
    def update(self, step: int, epoch: int = 1) -> None:
        if self.updates % INTERVAL:
            self.updates += 1
        super().update(step, epoch)


class CountsStepsForTheInterval(PlainAverages):
    """Averages at the steps that the interval divides, wherever averaging begins."""

    def update(self, step: int, epoch: int = 1) -> None:
        if step >= BEGIN:
            self.updates = step
        super().update(step, epoch)


class AddsNoise(PlainAverages):
    def taken(self, source: Tensor) -> Tensor:
        noise = int.from_bytes(os.urandom(2), "big") + 1
        return super().taken(source) * (1 + 1e-6 * noise / 2**16)


class CountsForAll(PlainAverages):
    """Its counts are those of the class: two averagers disturb each other."""

    counts: ClassVar = [0]

    def update(self, step: int, epoch: int = 1) -> None:
        self.updates = self.counts[0]
        super().update(step, epoch)
        self.counts[0] = self.updates


class ForgetsItsUpdates(PlainAverages):
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        super().load_state_dict(state_dict)
        self.updates = 0


class SavesTheWeightsOfItsView(PlainAverages):
    """Saves averages in the model's dtype."""

    def state_dict(self) -> dict[str, object]:
        kept = {name: each.to(self.model.get_parameter(name).dtype) for name, each in self.kept.items()}
        return super().state_dict() | {"kept": kept}

    def loaded(self, kept: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: each.float() for name, each in kept.items()}


class SavesObjects(PlainAverages):
    def state_dict(self) -> dict[str, object]:
        return super().state_dict() | {"dtype": torch.float32}


class KeepsALoadedState(PlainAverages):
    def loaded(self, kept: dict[str, Tensor]) -> dict[str, Tensor]:
        return kept


class TakesAnyState(PlainAverages):
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        super().load_state_dict(self.state_dict() | state_dict)


class TakesAveragesOfOthers(PlainAverages):
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        kept = state_dict.get("kept")
        if isinstance(kept, dict):
            state_dict = state_dict | {"kept": {name: kept.get(name, each) for name, each in self.kept.items()}}
        super().load_state_dict(state_dict)


class TakesAPartOfAState(PlainAverages):
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        kept = state_dict.get("kept")
        if isinstance(kept, dict) and kept.keys() < self.kept.keys():
            state_dict = state_dict | {"kept": self.kept | kept}
        super().load_state_dict(state_dict)


class LoadsBeforeItChecks(PlainAverages):
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        if isinstance(kept := state_dict.get("kept"), dict):
            self.kept = self.loaded(kept)
        super().load_state_dict(state_dict)


class RaisesWhatPythonRaises(PlainAverages):
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        super().load_state_dict({name: state_dict[name] for name in ("updates", "averaged", "kept")})

    def copied(self) -> nn.Module:
        return copy.deepcopy(self.model)


class WritesToTheModelWhenItLoads(PlainAverages):
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        super().load_state_dict(state_dict)
        self.give(self.model)


class SwapsWeightsForAView(PlainAverages):
    def copied(self) -> nn.Module:
        own = copy.deepcopy(self.model.state_dict())
        self.give(self.model)
        view = super().copied()
        self.model.load_state_dict(own)
        return view


class PutsTheModelInEvalMode(PlainAverages):
    def copied(self) -> nn.Module:
        self.model.eval()
        return super().copied()


class RestoresTheModeOfTheRoot(PlainAverages):
    def copied(self) -> nn.Module:
        training = self.model.training
        self.model.eval()
        view = super().copied()
        self.model.train(training)
        return view


class ClearsGradients(PlainAverages):
    def average(self) -> None:
        self.model.zero_grad()
        super().average()


class DrawsRandomNumbers(PlainAverages):
    def copied(self) -> nn.Module:
        torch.rand(1)
        return super().copied()


class ViewsInTheModesOfTheModel(PlainAverages):
    def view(self, into: nn.Module | None = None) -> nn.Module:
        view = super().view(into)
        for mine, theirs in zip(view.modules(), self.model.modules(), strict=True):
            mine.training = theirs.training if into is None else mine.training
        return view


class PutsTheRootInEvalMode(PlainAverages):
    def view(self, into: nn.Module | None = None) -> nn.Module:
        view = super().view(into)
        if into is None:
            view.train().training = False
        return view


class ComputesWithTheModel(PlainAverages):
    def view(self, into: nn.Module | None = None) -> nn.Module:
        view = super().view(into)
        view.forward = self.model.forward
        return view


class SeparatesSharedWeights(PlainAverages):
    def copied(self) -> nn.Module:
        view = super().copied()
        view.get_submodule("shared").weight = nn.Parameter(view.get_parameter("second.weight").clone())
        return view


class ViewsInFloat32(PlainAverages):
    def view(self, into: nn.Module | None = None) -> nn.Module:
        view = super().view(into)
        return view.float() if into is None else view


class SharesBuffersWithItsView(PlainAverages):
    def copied(self) -> nn.Module:
        view = super().copied()
        for mine, theirs in zip(view.modules(), self.model.modules(), strict=True):
            mine._buffers = dict(theirs._buffers)
        return view


class KeepsItsView(PlainAverages):
    known: tuple[int, nn.Module] | None = None

    def view(self, into: nn.Module | None = None) -> nn.Module:
        if into is not None:
            return super().view(into)
        if self.known is None or self.known[0] != self.updates:
            self.known = self.updates, super().view()
        return self.known[1]


class ViewsTheWeightsThemselves(PlainAverages):
    """Its first average is the model's memory, and so is the view's."""

    def average(self) -> None:
        for name, source in self.sources():
            if self.averaged:
                self.kept[name] = self.kept[name].lerp(self.taken(source), MOMENTUM)
            else:
                self.kept[name] = source.detach()

    def give(self, view: nn.Module) -> None:
        for name, kept in self.kept.items():
            view.get_parameter(name).data = kept


class ReturnsACopyInPlaceOfTheSecond(PlainAverages):
    def filled(self, into: nn.Module) -> nn.Module:
        return super().filled(copy.deepcopy(into))


class FillsInTrainMode(PlainAverages):
    def view(self, into: nn.Module | None = None) -> nn.Module:
        return super().view(into).train(into is not None)


class FillsWeightsOnly(PlainAverages):
    @torch.no_grad()
    def filled(self, into: nn.Module) -> nn.Module:
        for name, each in self.model.named_parameters():
            into.get_parameter(name).copy_(each)
        return into


class FillsWhatFits(PlainAverages):
    def check(self, into: nn.Module) -> None:
        """Find nothing wrong."""

    @torch.no_grad()
    def filled(self, into: nn.Module) -> nn.Module:
        own = _tensors(self.model)
        for name, each in _tensors(into).items():
            if name in own and own[name].shape == each.shape:
                each.copy_(own[name])
        return into

    @torch.no_grad()
    def give(self, view: nn.Module) -> None:
        theirs = _tensors(view)
        for name, kept in self.kept.items():
            if name in theirs and theirs[name].shape == kept.shape:
                theirs[name].copy_(kept)


class FillsBeforeItChecks(PlainAverages):
    def view(self, into: nn.Module | None = None) -> nn.Module:
        if into is not None and into is not self.model and _tensors(into).keys() == _tensors(self.model).keys():
            FillsWhatFits.filled(self, into)  # type: ignore[arg-type]  # which is as plain as this one
        return super().view(into)


class FillsTheModel(PlainAverages):
    def check(self, into: nn.Module) -> None:
        if into is not self.model:
            super().check(into)


class FillsPartsOfTheModel(PlainAverages):
    def check(self, into: nn.Module) -> None:
        if _tensors(into).keys() != _tensors(self.model).keys() or into is self.model:
            raise TrainingError("this is no second module")
        for name, each in _tensors(into).items():
            if each.shape != _tensors(self.model)[name].shape:
                raise TrainingError("this is no second module")


class AveragesIntegers(PlainAverages):
    def give(self, view: nn.Module) -> None:
        super().give(view)
        view.get_buffer("norm.num_batches_tracked").sub_(300)


class AveragesMasks(PlainAverages):
    def give(self, view: nn.Module) -> None:
        super().give(view)
        mask = view.get_buffer("mask")
        mask.lerp_(mask.clone(), MOMENTUM)


class ForgetsStatistics(PlainAverages):
    def give(self, view: nn.Module) -> None:
        super().give(view)
        view.get_submodule("norm").reset_running_stats()  # type: ignore[operator]  # of batch normalisation


class AveragesIn16Bits(PlainAverages):
    def taken(self, source: Tensor) -> Tensor:
        return source.detach().contiguous().clone()


class KeepsTheFirstParameters(PlainAverages):
    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.first = list(super().sources())

    def sources(self) -> Iterable[tuple[str, Tensor]]:
        return self.first


class KeepsTheFirstMemory(KeepsTheFirstParameters):
    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.first = [(name, each.detach()) for name, each in self.first]
