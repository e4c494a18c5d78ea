"""Averaged models under mmengine's names: modules of their own, updated by hand.

Weights and buffers are those of mmengine 0.10.7, step for step, but for three errors of its: where buffers are averaged, integers
follow the model (there `num_batches_tracked` stays at what it was first) and shared weights are averaged once (there as often as
they have names); and weights of 16 bits are averaged in float32 (there small steps are rounded away).
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from treenail.adapters.averaging.kinds import exponential, hyperbolic, uniform_rule
from treenail.adapters.averaging.passes import FusedLerp, dtype_of_average
from treenail.adapters.averaging.tensors import Watch, is_averageable, tensors_of
from treenail.kernel import StateError


class _Prepared(NamedTuple):
    """The lists of an update, made for one model and used as long as its tensors are the same."""

    model: nn.Module
    watches: tuple[Watch, Watch]
    pairs: list[tuple[Tensor, Tensor]]
    averaging: FusedLerp
    rounding: FusedLerp
    following: FusedLerp


class BaseAveragedModel(nn.Module):
    """A copy of a model, whose weights are averages.

    Args:
        model: Copied.
        interval: Average at every so many updates.
        device: Where the copy is; None: with the model.
        update_buffers: Average those buffers that a state_dict holds, too; else they follow the model's.

    Attributes:
        module: The copy. Weights of 16 bits have their averages in float32 beside it, under ``float32_0`` and so on.
        steps: How many updates there were, int64 [].

    Raises:
        ValueError: interval is less than 1.
    """

    steps: Tensor

    def __init__(
        self,
        model: nn.Module,
        interval: int = 1,
        device: torch.device | str | None = None,
        update_buffers: bool = False,
    ) -> None:
        if interval < 1:
            raise ValueError(f"interval is {interval}, must be at least 1")
        super().__init__()
        self.module = copy.deepcopy(model).requires_grad_(requires_grad=False)
        if device is not None:
            self.module.to(device)
        self.interval = interval
        self.update_buffers = update_buffers
        self.register_buffer("steps", torch.tensor(0, dtype=torch.long, device=device))
        self._wide: dict[str, str] = {}  # names of tensors of 16 bits → of their averages
        for name, tensor in self._averaged(self.module).items():
            if (dtype := dtype_of_average(tensor.dtype)) != tensor.dtype:
                self._wide[name] = f"float32_{len(self._wide)}"
                self.register_buffer(self._wide[name], tensor.detach().to(dtype))
        self._prepared: _Prepared | None = None

    @abstractmethod
    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
        """Average one tensor in place.

        Args:
            averaged_param: The average.
            source_param: The model's tensor, of the average's dtype and device.
            steps: How many updates there were.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it averages; define avg_func")

    def forward(self, *args: object, **kwargs: object) -> object:
        """Call the averaged copy."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: nn.Module) -> None:
        """Look at the model's weights: the first time take them, then average at every `interval`-th time.

        Raises:
            StateError: It is another model than the one that was copied.
        """
        lists = self._prepare(model)
        steps = int(self.steps)
        if steps == 0:
            lists.averaging.copy()
        elif steps % self.interval == 0:
            self._average(lists, steps)
        if steps % self.interval == 0:
            lists.rounding.copy()
        lists.following.copy()
        self.steps += 1

    def _average(self, lists: _Prepared, steps: int) -> None:
        with torch.no_grad():
            for average, source in lists.pairs:
                self.avg_func(average, source.detach().to(average.device, average.dtype), steps)

    def _averaged(self, module: nn.Module) -> dict[str, Tensor]:
        """Return what is averaged of a model, by name."""
        tensors = tensors_of(module)
        found: dict[str, Tensor] = dict(tensors.parameters)
        if self.update_buffers:
            found |= {name: tensor for name, tensor in tensors.buffers.items() if name in tensors.persistent}
        return {name: tensor for name, tensor in found.items() if is_averageable(tensor)}

    def _prepare(self, model: nn.Module) -> _Prepared:
        known = self._prepared
        if known is not None and known.model is model and all(watch.holds() for watch in known.watches):
            return known
        own, others = tensors_of(self), tensors_of(model)
        held: dict[str, Tensor] = {**own.parameters, **own.buffers}
        given: dict[str, Tensor] = {**others.parameters, **others.buffers}
        copied = {name.removeprefix("module."): each for name, each in held.items() if name.startswith("module.")}
        if wrong := copied.keys() ^ given.keys() or {name for name in given if given[name].shape != copied[name].shape}:
            raise StateError(f"the averaged model and this one differ in '{min(wrong)}'", mend="average one model")
        averaged = self._averaged(model)
        wide = {name: held[beside] for name, beside in self._wide.items()}
        pairs = [(wide.get(name, copied[name]), source) for name, source in averaged.items()]
        self._prepared = _Prepared(
            model,
            (Watch(model, given.values()), Watch(self, held.values())),
            pairs,
            averaging=FusedLerp(pairs),
            rounding=FusedLerp((copied[name], average) for name, average in wide.items()),
            following=FusedLerp((copied[name], given[name]) for name in given.keys() - averaged.keys()),
        )
        return self._prepared

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_prepared": None}  # a copy is not one of the model, too

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        for name, beside in self._wide.items():  # mmengine's states have no such averages
            if f"{prefix}{beside}" not in state_dict and f"{prefix}module.{name}" in state_dict:
                state_dict[f"{prefix}{beside}"] = state_dict[f"{prefix}module.{name}"].to(self.get_buffer(beside).dtype)
        super()._load_from_state_dict(state_dict, prefix, *args)


class _WeightedAverage(BaseAveragedModel):
    """Averages whose every step goes a part of the way, the same for all tensors: they take one fused pass."""

    @abstractmethod
    def _weight(self, steps: int) -> float: ...

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
        """Average one tensor in place."""
        averaged_param.lerp_(source_param, self._weight(steps))

    def _average(self, lists: _Prepared, steps: int) -> None:
        if type(self).avg_func is _WeightedAverage.avg_func:
            lists.averaging.move(self._weight(steps))
        else:  # a subclass averages in a way of its own
            super()._average(lists, steps)


class StochasticWeightAverage(_WeightedAverage):
    """Weights averaged with equal weight (Izmailov et al. 2018)."""

    def _weight(self, steps: int) -> float:
        return uniform_rule(steps, steps // self.interval)


class ExponentialMovingAverage(_WeightedAverage):
    """Weights averaged exponentially: average ← (1 - momentum) · average + momentum · weights.

    Args:
        momentum: Weight of the new weights.

    Raises:
        ValueError: The momentum is not between 0 and 1.
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 0.0002,
        interval: int = 1,
        device: torch.device | str | None = None,
        update_buffers: bool = False,
    ) -> None:
        if not 0 < momentum < 1:
            raise ValueError(f"momentum is {momentum}, must be between 0 and 1")
        super().__init__(model, interval, device, update_buffers)
        self.momentum = momentum

    def _weight(self, steps: int) -> float:
        return self.momentum


class MomentumAnnealingEMA(ExponentialMovingAverage):
    """Exponential averages with the momentum max(momentum, gamma / (gamma + steps)).

    Args:
        momentum: Weight of the new weights in the end.
        gamma: How slowly the momentum falls.

    Raises:
        ValueError: The momentum is not between 0 and 1, or gamma is not positive.
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 0.0002,
        gamma: float = 100,
        interval: int = 1,
        device: torch.device | str | None = None,
        update_buffers: bool = False,
    ) -> None:
        if not gamma > 0:
            raise ValueError(f"gamma is {gamma}, must be positive")
        super().__init__(model, momentum, interval, device, update_buffers)
        self.gamma = gamma

    def _weight(self, steps: int) -> float:
        return hyperbolic(self.momentum, self.gamma, 1.0, steps, steps // self.interval)


class ExpMomentumEMA(MomentumAnnealingEMA):
    """Exponential averages with the momentum (1 - momentum) · exp(-(1 + steps) / gamma) + momentum, as mmdetection has them.

    Raises:
        ValueError: The momentum is not between 0 and 1, or gamma is not positive.
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 0.0002,
        gamma: float = 2000,
        interval: int = 1,
        device: torch.device | str | None = None,
        update_buffers: bool = False,
    ) -> None:
        super().__init__(model, momentum, gamma, interval, device, update_buffers)

    def _weight(self, steps: int) -> float:
        return exponential(self.momentum, self.gamma, steps, steps // self.interval)
