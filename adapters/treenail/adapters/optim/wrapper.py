"""An optimizer, and how gradients come to it: precision, accumulation, scaling of the loss, clipping."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Annotated, Literal, cast

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from treenail.adapters.optim.accumulation import Counts, Window
from treenail.adapters.optim.batches import describe
from treenail.adapters.optim.precision import Precision, ScalerSettings, autocast_dtype, grad_scaler
from treenail.adapters.parallel import clip_grad_norm, clip_grad_value, needs_closure, without_gradient_sync
from treenail.contracts.updates import LossSum, Outcome, Skipped, Stepped
from treenail.kernel import Communicator, StateError, TrainingError

_NOTHING = nullcontext()
_STEPPED = Stepped()
_ZERO_GRAD = Optimizer.zero_grad

_LEAST_SCALE = 2.0**-24
"""The smallest number of float16: no gradient overflows for being scaled with less."""


class OptimWrapper:
    """An optimizer with one way to update parameters, whatever the precision, accumulation and clipping.

    In a loop of one's own::

        for inputs, targets in batches:
            with optim.optim_context(model):
                loss = loss_of(model(inputs), targets)
            optim.update_params(loss)

    Args:
        optimizer: Any of torch's.
        accumulative_counts: How many micro-batches make an update. In a run with a loss each batch is split into as many,
            so that what is trained does not depend on it; in a loop of one's own an update comes with every so many losses.
        precision: What `optim_context` computes in: float32 leaves everything as it is, the others are torch's automatic
            mixed precision. The weights stay what they are.
        loss_scale: For float16, whose gradients would underflow otherwise: dynamic is torch's GradScaler, a number the
            scale that it begins with, a mapping its arguments.
        clip_norm: The largest norm over all gradients that is left.
        norm_type: p of that norm; may be infinite.
        clip_value: The largest absolute value of a gradient that is left.
        measure_norm: Report the norm of the gradients also where it is not clipped.
        skip_nonfinite: Make no step with gradients that are not finite. With float16 that is always so.
        communicator: Ranks whose gradients the model averages, for losses that come with a weight: each then counts by
            its weight among those of all ranks. None: of this process only.

    Raises:
        TypeError: There is no optimizer.
        ValueError: An argument is out of its range, or has no meaning with the others, or this precision does not exist on
            the parameters' device.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        accumulative_counts: Annotated[int, Meta(ge=1)] = 1,
        *,
        precision: Precision = "float32",
        loss_scale: Literal["dynamic"] | Annotated[float, Meta(gt=0)] | ScalerSettings = "dynamic",
        clip_norm: Annotated[float, Meta(gt=0)] | None = None,
        norm_type: Annotated[float, Meta(gt=0)] = 2.0,
        clip_value: Annotated[float, Meta(gt=0)] | None = None,
        measure_norm: bool = False,
        skip_nonfinite: bool = False,
        communicator: Communicator | None = None,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer is a {type(optimizer).__name__}, not one of torch.optim")
        if not isinstance(accumulative_counts, int) or accumulative_counts < 1:
            raise ValueError(f"accumulative_counts is {accumulative_counts!r}, must be a whole number of at least 1")
        for name, value in (("clip_norm", clip_norm), ("clip_value", clip_value), ("norm_type", norm_type)):
            if value is not None and not (isinstance(value, float | int) and value > 0):
                raise ValueError(f"{name} is {value!r}, must be a positive number")
        self._needs_closure = needs_closure(optimizer)
        changes = accumulative_counts > 1 or precision == "float16" or clip_norm or clip_value or skip_nonfinite
        if self._needs_closure and (changes or measure_norm):
            raise ValueError(
                f"{type(optimizer).__name__} evaluates the loss several times a step, which has no place for accumulation, "
                "a loss scale or clipping: leave them out"
            )
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.norm_type = norm_type
        self.clip_value = clip_value
        self.measure_norm = measure_norm
        self.skip_nonfinite = skip_nonfinite
        self.outcome: Outcome | None = None
        """What the last step came to."""
        self.steps = 0
        """Steps that were made since this was."""
        self.skipped = 0
        """Steps that were not made."""
        self._counts = Counts(accumulative_counts)
        self.error_if_nonfinite = False
        """Whether a norm that is not finite is a RuntimeError, where gradients are clipped by their norm."""
        self._set_precision(precision, loss_scale)
        self._ranks = communicator if communicator is not None and communicator.world_size > 1 else None
        self._waiting = False
        """Whether there are gradients that no update has used."""
        self._unsynchronised = False
        """Whether gradients that wait are of this rank alone."""
        self._window = Window()

    def _set_precision(self, precision: Precision, loss_scale: str | float | ScalerSettings) -> None:
        if loss_scale != "dynamic" and precision != "float16":
            raise ValueError(f"loss_scale is for the precision float16, which is {precision}; leave it out")
        parameters = self._parameters()
        if not parameters:
            raise ValueError("the optimizer has no parameters")
        if precision == "float16" and any(parameter.dtype == torch.float16 for parameter in parameters):
            raise ValueError("precision float16 is for weights of float32, which it computes with in float16")
        self.precision = precision
        self._device = parameters[0].device.type
        self._dtype = autocast_dtype(precision, self._device)
        self.loss_scaler = grad_scaler(loss_scale, self._device) if precision == "float16" else None

    @property
    def _needs_norm(self) -> bool:
        return self.clip_norm is not None or self.measure_norm or self.skip_nonfinite

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    # The whole of a step

    def update_params(self, loss: Tensor | LossSum, weight: Tensor | float | None = None) -> Outcome | None:
        """Add the gradients of a loss, and update the parameters where that completes an accumulation.

        Args:
            loss: A mean loss, or a sum with what it was summed over. Means count alike, unless they have weights.
            weight: What a mean loss was averaged over: samples, tokens …

        Returns:
            What the optimizer did, or None while gradients are added up.

        Raises:
            TrainingError: The loss is not one number, or depends on no parameter.
        """
        if self._counts.every == 1 and weight is None and not isinstance(loss, LossSum):
            self.backward(loss)  # the usual: a mean loss, and an update with each
            outcome = self.step()
            self.zero_grad()
            return outcome
        self.backward(self._window.add(loss, weight, self._counts.length(), shared=self._ranks is not None))
        return self.flush() if self.should_update() else None

    def flush(self) -> Outcome | None:
        """Update with the gradients that are there, in the middle of an accumulation, too; each loss counts as much as else.

        Returns:
            What the optimizer did; None if there was nothing to update with.

        Raises:
            TrainingError: There are ranks, and the last backward pass did not communicate.
        """
        if not self._waiting:
            return None
        if self._unsynchronised:
            raise TrainingError(
                "the gradients that wait were not brought together over the ranks",
                mend="say which backward pass is the last one: optim_context(model, last=True), or initialize_count_status",
            )
        # Without weights a subclass has divided by the length of the whole accumulation.
        counts = self._counts
        scale = self._window.scale(self._ranks) if self._window.count else counts.length() / counts.pending()
        outcome = self.step(scale=scale)
        self.zero_grad()
        self._begin_anew()
        return outcome

    def _begin_anew(self) -> None:
        """Let the next accumulation begin here."""
        self._window, self._waiting, self._unsynchronised = Window(), False, False
        self._counts.round_up()

    # Its parts

    def optim_context(self, model: nn.Module, *, last: bool | None = None) -> AbstractContextManager[object]:
        """Return the context of a forward pass: precision, and no communication but for the last one of an update.

        The backward pass belongs inside where gradients are accumulated over ranks; it does not run in the lower precision of
        the context by itself, as torch advises.

        Args:
            model: As it is called in training.
            last: Whether an update follows; None leaves that to `should_sync`.
        """
        if self._counts.every == 1 and last is None:
            last = True
        if self.should_sync() if last is None else last:
            self._unsynchronised = False
            return _NOTHING if self._dtype is None else torch.autocast(self._device, self._dtype)
        return self._without_sync(model)

    @contextmanager
    def _without_sync(self, model: nn.Module) -> Iterator[None]:
        with (
            without_gradient_sync(model) as self._unsynchronised,
            _NOTHING if self._dtype is None else torch.autocast(self._device, self._dtype),
        ):
            yield

    def backward(self, loss: Tensor, **kwargs: object) -> None:
        """Add the gradients of a loss, scaled as the precision needs it, to those that are there.

        Args:
            loss: float[].
            **kwargs: Go to `torch.Tensor.backward`.

        Raises:
            TrainingError: The loss is not one number, or depends on no parameter.
        """
        if not isinstance(loss, Tensor):
            raise TrainingError(f"the loss is a {describe(loss)}", mend="let it be a 0-dim tensor, or a LossSum")
        if not loss.requires_grad or loss.ndim or loss.is_complex():
            raise TrainingError(
                f"the loss is a {'complex ' if loss.is_complex() else ''}tensor of shape {list(loss.shape)} with "
                f"requires_grad={loss.requires_grad}",
                mend="a loss must be one number that depends on the model's parameters",
            )
        if self._dtype is None:
            loss.backward(**kwargs)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        else:
            if self.loss_scaler is not None:
                loss = self.loss_scaler.scale(loss)
            with torch.autocast(self._device, enabled=False):
                loss.backward(**kwargs)  # type: ignore[no-untyped-call]
        self._counts.done += 1
        self._waiting = True

    def step(self, closure: Callable[[], float] | None = None, *, scale: Tensor | float = 1.0) -> Outcome:
        """Clip the gradients, and update the parameters.

        Args:
            closure: Evaluates the loss again, for optimizers that do so.
            scale: What gradients are multiplied with first.

        Raises:
            TrainingError: The loss is scaled, and no parameter has a gradient, or none is finite at whatever scale; or a
                closure is missing, or has no place.
        """
        if closure is None and self._needs_closure:
            name = type(self.optimizer).__name__
            raise TrainingError(f"{name} evaluates the loss several times a step", mend="call step(closure)")
        if closure is not None and self.loss_scaler is not None:
            raise TrainingError("a step in float16 takes no closure", mend="call step(), or use precision bfloat16")
        self._waiting = False
        scaler = self.loss_scaler
        if not (isinstance(scale, float) and scale == 1.0):
            gradients = self._gradients()
            if isinstance(scale, Tensor) and any(map(_is_dtensor, gradients)):
                scale = float(scale)  # torch multiplies no DTensor by a plain one
            if gradients:
                torch._foreach_mul_(gradients, scale)
        norm = None
        if self.clip_norm is not None or self.clip_value is not None or self.measure_norm or self.skip_nonfinite:
            if scaler is not None:
                self._check_gradients()
                scaler.unscale_(self.optimizer)
            norm = self._clip()
        if scaler is None:
            if self.skip_nonfinite and norm is not None and not bool(norm.isfinite()):
                return self._skip(f"the norm of the gradients is {float(norm)}")
            self.optimizer.step() if closure is None else self.optimizer.step(closure)
            self._waiting = False  # what a closure left is used, too
            return self._stepped(norm)
        self._check_gradients()
        before = scaler.get_scale()
        scaler.step(self.optimizer)
        scaler.update()
        if (after := scaler.get_scale()) < before:
            if after < _LEAST_SCALE:
                raise TrainingError(
                    f"gradients are not finite in float16 at whatever loss scale, which is now {after:g}",
                    mend="is the loss finite? look at the data and the learning rate, or use precision bfloat16",
                )
            return self._skip(f"gradients overflowed with a loss scale of {before:g}, which is now {after:g}")
        return self._stepped(norm)

    def _stepped(self, norm: Tensor | None) -> Stepped:
        self.steps += 1
        self.outcome = _STEPPED if norm is None else Stepped(norm)
        return self.outcome

    def _clip(self) -> Tensor | None:
        parameters = self._parameters()
        norm = None
        if self._needs_norm:
            norm = clip_grad_norm(
                parameters,
                self.clip_norm,
                self.norm_type,
                error_if_nonfinite=self.error_if_nonfinite,
                only_finite=self.skip_nonfinite,
            )
            if self.skip_nonfinite and not norm.isfinite():
                return norm  # the gradients stay as they are, so that it can be told which of them are not finite
        if self.clip_value is not None:
            clip_grad_value(parameters, self.clip_value)
        return norm

    def _skip(self, reason: str) -> Skipped:
        self.skipped += 1
        self.outcome = Skipped(reason)
        return self.outcome

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._parameters() if parameter.grad is not None]

    def _check_gradients(self) -> None:
        if not self._gradients():
            raise TrainingError(
                "no parameter of the optimizer has a gradient", mend="does the loss depend on them? call backward first"
            )

    def zero_grad(self, **kwargs: bool) -> None:
        """Forget the gradients, those of an unfinished accumulation, too.

        Args:
            **kwargs: Go to the optimizer's `zero_grad`.
        """
        optimizer = self.optimizer
        if kwargs or getattr(optimizer.zero_grad, "__func__", None) is not _ZERO_GRAD:
            optimizer.zero_grad(**kwargs)
        else:  # what torch's own does, without its entry in profiles, which takes a tenth of a small model's step
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
        if self._waiting:
            self._begin_anew()

    # Counting

    @property
    def accumulative_counts(self) -> int:
        """How many micro-batches make an update."""
        return self._counts.every

    @property
    def is_accumulating(self) -> bool:
        """Whether gradients of losses that it was given, or that it was told to keep, wait for an update."""
        return self._waiting

    def keep_gradients(self) -> None:
        """Take the gradients that there are for those of an unfinished accumulation: they are saved, too."""
        self._waiting = self._waiting or bool(self._gradients())

    @property
    def inner_count(self) -> int:
        """How many backward passes there were."""
        return self._counts.done

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        """Say where in the training it is, so that the last update comes although it has fewer micro-batches.

        Args:
            model: As it is trained; accumulation with batch normalisation is warned of.
            init_counts: Backward passes before.
            max_counts: Backward passes in the end.

        Raises:
            ValueError: There are more now than in the end.
        """
        self._counts.begin(init_counts, max_counts)
        if self.accumulative_counts == 1:
            return
        if init_counts % self.accumulative_counts:
            warnings.warn(
                f"{init_counts} backward passes are no multiple of the {self.accumulative_counts} of an update; the "
                "first update has fewer",
                stacklevel=2,
            )
        if any(isinstance(module, _NormBase) and module.track_running_stats for module in model.modules()):
            warnings.warn(
                "batch normalisation sees the micro-batches that gradients are accumulated over, not the whole batch",
                stacklevel=2,
            )

    def should_sync(self) -> bool:
        """Return whether the next backward pass is the last one of an update, so that ranks communicate."""
        return self._counts.completes(self._counts.done + 1)

    def should_update(self) -> bool:
        """Return whether the last backward pass completes an update."""
        return self._counts.completes(self._counts.done)

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Return a mean loss divided by the number of micro-batches of its update."""
        length = self._counts.length()
        return loss if length == 1 else loss / length

    # What others look at

    @property
    def param_groups(self) -> list[dict[str, object]]:
        """The optimizer's groups."""
        return self.optimizer.param_groups

    @property
    def defaults(self) -> dict[str, object]:
        """The optimizer's default settings."""
        return self.optimizer.defaults

    def get_lr(self) -> dict[str, list[float]]:
        """Return ``{"lr": [of each group]}``."""
        return {"lr": [float(cast("float", group["lr"])) for group in self.param_groups]}

    def get_momentum(self) -> dict[str, list[float]]:
        """Return ``{"momentum": [of each group]}``: the first of an Adam's betas, 0 where there is none."""
        return {"momentum": [_momentum(group) for group in self.param_groups]}

    def state_dict(self) -> dict[str, object]:
        """Return what is not the optimizer's: the loss scaler, steps skipped, and gradients of an unfinished accumulation.

        Gradients that were not brought together over ranks are those of this rank: save them on each.

        Raises:
            StateError: Gradients of an unfinished accumulation are sharded, which torch keeps where nobody reaches them.
        """
        state: dict[str, object] = {"skipped": self.skipped}
        if self.loss_scaler is not None:
            state["loss_scaler"] = self.loss_scaler.state_dict()
        if self._waiting:
            if self._unsynchronised and any(hasattr(parameter, "device_mesh") for parameter in self._parameters()):
                raise StateError(
                    "an accumulation of sharded gradients cannot be saved", where="updates", mend="save after an update"
                )
            state["accumulation"] = {
                "inner_count": self._counts.done,
                "gradients": {
                    str(index): parameter.grad.detach().clone()
                    for index, parameter in enumerate(self._parameters())
                    if parameter.grad is not None
                },
                **self._window.state_dict(),
            }
        return state

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take a state. One of a training in another precision has no loss scaler; the scaler then begins anew.

        Raises:
            StateError: It has another form, or gradients of other parameters.
        """
        skipped = state_dict.get("skipped", 0)
        scaler, window = state_dict.get("loss_scaler"), state_dict.get("accumulation")
        if not isinstance(skipped, int):
            raise StateError(f"'skipped' is {skipped!r}, not a number of steps", where="updates")
        if self.loss_scaler is not None and isinstance(scaler, dict):
            try:
                self.loss_scaler.load_state_dict(scaler)
            except (KeyError, RuntimeError, TypeError) as error:
                raise StateError(
                    f"it is no state of torch's GradScaler: {error}", where="updates.loss_scaler"
                ) from error
        self.skipped = skipped
        self.zero_grad()  # what was accumulated before belongs to what is left behind
        self._begin_anew()
        if isinstance(window, dict):
            self._waiting = True
            self._load_window(window)

    def _load_window(self, state: dict[str, object]) -> None:
        gradients, count = state.get("gradients"), state.get("inner_count")
        if not isinstance(gradients, dict) or not isinstance(count, int):
            raise StateError("expected the gradients of an accumulation and their count", where="updates.accumulation")
        for index, parameter in enumerate(self._parameters()):
            gradient = gradients.get(str(index))
            if gradient is not None and (not isinstance(gradient, Tensor) or gradient.shape != parameter.shape):
                raise StateError(f"the gradient of parameter {index} has another shape", where="updates.accumulation")
            parameter.grad = None if gradient is None else gradient.to(parameter.device, copy=True)
        self._counts.done = count
        self._window.load_state_dict(state)

    def __repr__(self) -> str:
        return (
            f"Type: {type(self).__name__}\naccumulative_counts: {self.accumulative_counts}\n"
            f"optimizer: \n{self.optimizer!r}\n"
        )


def _is_dtensor(tensor: Tensor) -> bool:
    return hasattr(tensor, "to_local")  # the class is not imported for those that have none


def _momentum(group: Mapping[str, object]) -> float:
    betas = group.get("betas")
    value = group.get("momentum", betas[0] if isinstance(betas, tuple | list) and betas else 0.0)
    return float(cast("float", value))
