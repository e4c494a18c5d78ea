"""Averages of a model's weights, kept beside the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from treenail.adapters.averaging.batchnorm import update_bn
from treenail.adapters.averaging.passes import FusedLerp, dtype_of_average, is_spread, local, part_of, spread_like
from treenail.adapters.averaging.state import check_fit, read_averages
from treenail.adapters.averaging.tensors import ModelTensors, Watch, is_averageable, tensors_of
from treenail.adapters.averaging.views import copy_of, fill
from treenail.kernel import StateError, TrainingError

Buffers = Literal["copy", "average", "ignore"]
Rule = Callable[[int, int], float]
"""(updates so far, averages so far; both at least 1) → weight of the new weights in the average, from 0 to 1."""


class WeightAverages:
    """Averages of a model's weights, kept beside the model; a `treenail.contracts.averaging.Averager`.

    The first average is the weights as they are at the first update; each further one goes a part of the way from it to the
    weights of its time. Averaged are parameters that require a gradient, or once did; shared ones once. All others the
    averages have in common with the model. Weights of 16 bits and less are averaged in float32, and a view has them
    rounded to the model's dtype. Of weights that are spread over ranks (DTensors, as FSDP2 has) each rank averages its part.

    Parameters may be replaced, moved, converted, unfrozen and added meanwhile; those that join begin with their weights of then.
    Averages stay on the device of the weights.

    Args:
        model: The model without what makes it parallel; it is only read.
        rule: How far each average goes.
        interval: Average at every so many updates.
        begin_step: The first training step, from 1, that is an update; 0 and 1 both mean the first of all.
        begin_epoch: The first epoch, from 1, whose steps are updates.
        buffers: What a view has for buffers. ``copy``: the model's at the time. ``average``: averages of those
            floating-point buffers that a state_dict holds, the model's of all others. ``ignore``: own ones, as they were at
            the first update, which only running a view in train mode changes (`measure`, `update_bn`) and which are saved.
        device: Where the averages are kept, in place of the device of the weights: ``cpu`` saves memory of a GPU, and each
            average takes a copy of the weights there.

    Attributes:
        updates: How many there were since averaging began.
        averaged: How often the averages took part of the weights.
        measured: What `averaged` was when statistics were measured for the averages, where they have buffers of their own.

    Raises:
        ValueError: interval is no whole number from 1, both a step and an epoch to begin at are given, a parameter has no shape
            yet, a buffer to average is infinite somewhere, or weights that are spread over ranks shall be kept elsewhere.
    """

    def __init__(
        self,
        model: nn.Module,
        rule: Rule,
        *,
        interval: int = 1,
        begin_step: int = 0,
        begin_epoch: int = 0,
        buffers: Buffers = "copy",
        device: torch.device | str | None = None,
    ) -> None:
        counts = interval, begin_step, begin_epoch  # Python takes anything where no config was checked
        if not all(isinstance(count, int) for count in counts) or interval < 1 or min(counts) < 0:
            raise ValueError(f"{interval=} must be a whole number from 1, {begin_step=} and {begin_epoch=} from 0")
        if begin_step and begin_epoch:
            raise ValueError(f"{begin_step=} and {begin_epoch=} exclude each other; leave out one of them")
        if buffers not in ("copy", "average", "ignore"):
            raise ValueError(f"buffers is {buffers!r}, must be 'copy', 'average' or 'ignore'")
        self.interval = interval
        self.begin_step = begin_step
        self.begin_epoch = begin_epoch
        self.buffers: Buffers = buffers
        self.updates = 0
        self.averaged = self.measured = 0
        self._model = model
        self._rule = rule
        self._device = None if device is None else torch.device(device)
        self._weights: dict[str, Tensor] = {}  # by the names of parameters; plain tensors, of shards where those are
        self._buffers: dict[str, Tensor] = {}  # averages, or the averages' own
        self._watch: Watch | None = None
        self._prepare()
        if buffers == "ignore":
            self._buffers = _copies(tensors_of(model).buffers)

    def update(self, step: int, epoch: int = 1) -> None:
        """Look at the model's weights after a step of its optimizer; one that was skipped is no update.

        Args:
            step: Number of the training step, from 1.
            epoch: Number of its epoch, from 1.

        Raises:
            TrainingError: The model no longer has a parameter or buffer that is averaged, or has it in another shape.
            ValueError: A tensor that joined cannot be averaged; see the class.
        """
        if step < self.begin_step or epoch < self.begin_epoch:
            return
        if self.updates % self.interval == 0:
            if self._watch is None or not self._watch.holds():
                self._prepare()
            if self.averaged == 0:
                self._begin()
            else:
                self._pass.move(self._rule(self.updates, self.averaged))
            self.averaged += 1
        self.updates += 1

    def _begin(self) -> None:
        self._pass.copy()
        if self.buffers == "ignore":
            self._buffers = _copies(tensors_of(self._model).buffers)

    def _prepare(self) -> None:
        """Find the model's tensors, begin averages of those that have none, and make the lists of the pass."""
        tensors = tensors_of(self._model)
        if self.averaged == 0:  # there is nothing to keep, so the model may still change its shapes
            self._weights, self._buffers = {}, self._buffers if self.buffers == "ignore" else {}
        sources: dict[str, Tensor] = {
            name: parameter
            for name, parameter in tensors.parameters.items()
            if name in self._weights or (parameter.requires_grad and is_averageable(parameter))
        }
        self._weights = self._beside(self._weights, sources)
        pairs = [(self._weights[name], source) for name, source in sources.items()]
        if self.buffers == "average":
            found = self._averaged_buffers(tensors)
            self._buffers = self._beside(self._buffers, found)
            pairs += [(self._buffers[name], source) for name, source in found.items()]
            sources |= found
        self._pass = FusedLerp(pairs)
        self._watch = Watch(self._model, sources.values())

    def _averaged_buffers(self, tensors: ModelTensors) -> dict[str, Tensor]:
        persistent = ((name, tensors.buffers[name]) for name in tensors.buffers if name in tensors.persistent)
        found = {name: buffer for name, buffer in persistent if is_averageable(buffer)}
        for name, buffer in found.items():
            if name not in self._buffers and bool(torch.isinf(local(buffer)).any()):
                raise ValueError(
                    f"the buffer '{name}' is infinite somewhere, which has no average; "
                    "register it with persistent=False, or let buffers be 'copy'"
                )
        return found

    def _beside(self, kept: Mapping[str, Tensor], sources: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return averages of these tensors where they belong now; those that there are not yet begin with the tensors."""
        for name in kept:
            if name not in sources:
                raise TrainingError(f"'{name}' is averaged, and the model has it no more", mend=_ANEW)
        averages: dict[str, Tensor] = {}
        for name, source in sources.items():
            part, average = local(source.detach()), kept.get(name)
            device, dtype = self._home(name, source), dtype_of_average(part.dtype)
            if average is None:
                averages[name] = part.to(device, dtype, copy=True)
            elif average.shape != part.shape:
                was, now = list(average.shape), list(part.shape)
                raise TrainingError(f"'{name}' is averaged in the shape {was}, and has become {now}", mend=_ANEW)
            else:
                averages[name] = average.to(device, dtype)
        return averages

    def _home(self, name: str, source: Tensor) -> torch.device:
        if self._device is not None and is_spread(source) and self._device.type != source.device.type:
            raise ValueError(
                f"'{name}' is spread over ranks, and its parts are averaged where they are: give no device"
            )
        return self._device or source.device

    def view(self, into: nn.Module | None = None) -> nn.Module:
        """Return a module in eval mode with the averages for weights; the model is left as it is.

        Parameters that are as large and lie where the averages do share their memory, and go on with the next update; those
        that are not averaged share the model's. Attributes that are no modules, parameters or buffers are copied; hooks are
        the model's.

        Args:
            into: A second module built and parallelised as the model was, which takes the averages and is returned: for
                models that FSDP2 has sharded, since torch cannot copy those. None copies the model's structure.

        Raises:
            TrainingError: The model cannot be copied, `into` is built otherwise, or has tensors of the model.
        """
        tensors = tensors_of(self._model)
        weights = {name: self._shown(name, parameter.detach()) for name, parameter in tensors.parameters.items()}
        buffers = {name: self._shown_buffer(name, buffer.detach()) for name, buffer in tensors.buffers.items()}
        if into is None:
            return copy_of(self._model, tensors, weights, buffers).eval()
        return fill(into, tensors, weights, buffers).eval()

    def _shown(self, name: str, source: Tensor) -> Tensor:
        average = self._weights.get(name) if self.averaged else None
        if average is None:
            return source
        part = local(source)
        return spread_like(average.to(part.device, part.dtype), source)

    def _shown_buffer(self, name: str, source: Tensor) -> Tensor:
        own = self._buffers.get(name) if self.averaged else None
        if own is None:
            return source.clone()
        if self.buffers == "ignore":  # the view's are the averages', so that update_bn lasts
            self._buffers[name] = own = own.to(source.device)
            return own
        return spread_like(own.to(source.device, source.dtype, copy=True), source)

    def measure(self, batches: Iterable[object], device: torch.device | str | None = None) -> None:
        """Compute anew the statistics of batch normalisation that averages with buffers of their own (``ignore``) have.

        Args:
            batches: As `update_bn` takes them.
            device: Where the model is, if the batches are elsewhere.

        Raises:
            TrainingError: There is no batch, one is something else, or torch cannot copy the model.
        """
        update_bn(batches, self.view(), device)
        self.measured = self.averaged

    def state_dict(self) -> dict[str, object]:
        """Return counts, names and averages, sharing their memory; of weights that are spread over ranks, this rank's parts."""
        tensors = tensors_of(self._model)
        return {
            "updates": self.updates,
            "averaged": self.averaged,
            "measured": self.measured if self.buffers == "ignore" else None,
            "names": sorted((*self._weights, *self._buffers)),  # so that a state that lost some is not taken for whole
            "weights": _spread(self._weights, tensors.parameters),
            "buffers": _spread(self._buffers, tensors.buffers),
        }

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take a state: its averages, whichever parameters require a gradient now.

        Raises:
            StateError: It is none of averages, lacks some, or is of another model or of another policy for buffers.
        """
        saved, tensors = read_averages(state_dict), tensors_of(self._model)
        check_fit(saved.weights, tensors.parameters, "weights")
        check_fit(saved.buffers, tensors.buffers, "buffers")
        if saved.buffers.keys() != self._buffers.keys():
            raise StateError(
                f"the state has {len(saved.buffers)} buffers, these averages have {len(self._buffers)} of their own",
                where="buffers",
                mend=f"were the averages begun with buffers: {self.buffers}?",
            )
        self._weights = {name: self._taken(each, tensors.parameters[name]) for name, each in saved.weights.items()}
        self._buffers = {name: self._taken(each, tensors.buffers[name]) for name, each in saved.buffers.items()}
        self.updates, self.averaged, self.measured = saved.updates, saved.averaged, saved.measured or 0
        self._watch = None  # the lists of the pass are of other tensors now

    def _taken(self, saved: Tensor, source: Tensor) -> Tensor:
        part = local(source.detach())
        own = self.buffers == "ignore" and not isinstance(source, nn.Parameter)
        device = part.device if own else self._device or part.device
        average = torch.empty_like(part, device=device, dtype=part.dtype if own else dtype_of_average(part.dtype))
        return average.copy_(part_of(saved, source))  # it lies in memory as the weights do


_ANEW = "make the averages anew for a model that has changed"


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _spread(parts: Mapping[str, Tensor], wholes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: spread_like(part, wholes[name].detach()) if name in wholes else part for name, part in parts.items()}
