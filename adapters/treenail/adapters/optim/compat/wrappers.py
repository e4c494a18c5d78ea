"""OptimWrapper and AmpOptimWrapper as mmengine has them: arguments, states, and methods that subclasses override."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias, TypedDict

import torch
from msgspec import Meta
from torch import Tensor
from torch.optim import Optimizer

from treenail.adapters.optim import wrapper
from treenail.adapters.optim.precision import Precision, ScalerSettings
from treenail.contracts.updates import LossSum, Outcome
from treenail.kernel import Communicator, did_you_mean


class ClipGrad(TypedDict, total=False):
    """How gradients are clipped: ``{max_norm: …, norm_type: …}``, or ``{type: value, clip_value: …}``.

    Args:
        type: By the norm over all, or each value by itself; norm if not given.
        max_norm: The largest norm to leave.
        norm_type: Its p; 2 if not given.
        error_if_nonfinite: Whether a norm that is not finite is an error; else it is not looked at.
        clip_value: The largest absolute value to leave.
    """

    type: Literal["norm", "value"]
    max_norm: float
    norm_type: float
    error_if_nonfinite: bool
    clip_value: float


_OWN: tuple[str, ...] = ("loss_scaler", "accumulation")

Scale: TypeAlias = Literal["dynamic"] | Annotated[float, Meta(gt=0)] | ScalerSettings


class OptimWrapper(wrapper.OptimWrapper):
    """An optimizer as mmengine wraps it; its state is the optimizer's.

    Args:
        optimizer: Any of torch's.
        accumulative_counts: How many losses make an update.
        clip_grad: How gradients are clipped: ``max_norm`` and ``norm_type``, or ``clip_value`` with ``type: value``.

    Raises:
        TypeError: There is no optimizer.
        ValueError: `clip_grad` has entries of no meaning.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        accumulative_counts: Annotated[int, Meta(ge=1)] = 1,
        clip_grad: ClipGrad | None = None,
    ) -> None:
        norm, norm_type, value = clipping(clip_grad)
        super().__init__(optimizer, accumulative_counts, clip_norm=norm, norm_type=norm_type, clip_value=value)
        self.clip_grad_kwargs = clip_grad
        self.error_if_nonfinite = clip_grad is not None and clip_grad.get("error_if_nonfinite") is True

    def update_params(self, loss: Tensor | LossSum, weight: Tensor | float | None = None) -> Outcome | None:
        """Differentiate a loss, and update where that completes an accumulation; each act may be overridden.

        Raises:
            TrainingError: The loss is not one number, or depends on no parameter.
        """
        if isinstance(loss, LossSum) or weight is not None:
            return super().update_params(loss, weight)
        self.backward(self.scale_loss(loss))
        if not self.should_update():
            return None
        outcome = self.step()
        self.zero_grad()
        return outcome

    def state_dict(self) -> dict[str, object]:
        """Return the optimizer's state; besides the ``loss_scaler``, and the gradients of an unfinished accumulation."""
        own = super().state_dict()
        return {**self.optimizer.state_dict(), **{name: own[name] for name in _OWN if name in own}}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take a state; it may be of a training in another precision.

        Raises:
            StateError: The loss scaler's part, or that of an accumulation, is of another form.
        """
        self.optimizer.load_state_dict({name: value for name, value in state_dict.items() if name not in _OWN})
        super().load_state_dict({name: value for name, value in state_dict.items() if name in _OWN})


class AmpOptimWrapper(OptimWrapper):
    """Automatic mixed precision as mmengine has it: float16 with a loss scaler, or bfloat16.

    Args:
        loss_scale: For float16: dynamic is torch's GradScaler, a number the scale that it begins with, a mapping its
            arguments.
        dtype: What is computed in; None: what torch chooses for the parameters' device.
        **kwargs: Those of `OptimWrapper`.

    Raises:
        TypeError: `loss_scale` is none of these, or there is no optimizer.
        ValueError: There is no automatic mixed precision on the parameters' device, or not in this type; or `loss_scale`
            is out of its range, or is given with bfloat16.
    """

    def __init__(
        self,
        loss_scale: Scale = "dynamic",
        dtype: Literal["float16", "bfloat16"] | torch.dtype | None = "float16",
        *,
        optimizer: Optimizer,
        accumulative_counts: Annotated[int, Meta(ge=1)] = 1,
        clip_grad: ClipGrad | None = None,
    ) -> None:
        if not (loss_scale == "dynamic" or isinstance(loss_scale, int | float | Mapping)):
            raise TypeError(f"loss_scale is {loss_scale!r}, must be 'dynamic', a number or GradScaler's arguments")
        super().__init__(optimizer, accumulative_counts, clip_grad)
        self._set_precision(_precision(dtype, optimizer), loss_scale)


def _precision(dtype: str | torch.dtype | None, optimizer: Optimizer) -> Precision:
    """Return the precision that mmengine's ``dtype`` means."""
    if dtype is None:
        dtype = torch.get_autocast_dtype(optimizer.param_groups[0]["params"][0].device.type)
    if dtype in ("float16", torch.float16):
        return "float16"
    if dtype in ("bfloat16", torch.bfloat16):
        return "bfloat16"
    raise ValueError(f"dtype is {dtype!r}, must be float16 or bfloat16")


_KNOWN = ("type", "max_norm", "norm_type", "error_if_nonfinite", "clip_value")


def clipping(settings: ClipGrad | None) -> tuple[float | None, float, float | None]:
    """Return (largest norm, its p, largest value) of mmengine's ``clip_grad``.

    Raises:
        ValueError: An entry has no meaning, or what clips is missing.
    """
    if settings is None:
        return None, 2.0, None
    for name in settings:
        if name not in _KNOWN:
            hint = did_you_mean(name, _KNOWN) or f"it may have {', '.join(_KNOWN)}"
            raise ValueError(f"clip_grad has '{name}', which means nothing: {hint}")
    kind = settings.get("type", "norm")
    if kind not in ("norm", "value"):
        raise ValueError(f"clip_grad has the type {kind!r}, must be norm or value")
    norm, value = settings.get("max_norm"), settings.get("clip_value")
    if (norm if kind == "norm" else value) is None:
        wanted = "max_norm" if kind == "norm" else "clip_value"
        raise ValueError(f"clip_grad of the type '{kind}' lacks '{wanted}', the largest {kind} to leave")
    norm_type = float(settings.get("norm_type", 2.0))
    return (norm, norm_type, None) if kind == "norm" else (None, norm_type, value)


def optim_wrapper(
    optimizer: Optimizer,
    *,
    accumulative_counts: Annotated[int, Meta(ge=1)] = 1,
    clip_grad: ClipGrad | None = None,
    communicator: Communicator | None = None,
) -> wrapper.OptimWrapper:
    """Return what a run's config means by mmengine's ``OptimWrapper``.

    In a run each batch is split into as many micro-batches as are accumulated, and the optimizer is saved by itself.

    Args:
        optimizer: Any of torch's.
        accumulative_counts: How many micro-batches make an update.
        clip_grad: How gradients are clipped: ``max_norm`` and ``norm_type``, or ``clip_value`` with ``type: value``.
        communicator: The ranks of the run.

    Raises:
        ValueError: `clip_grad` has entries of no meaning.
    """
    norm, norm_type, value = clipping(clip_grad)
    return wrapper.OptimWrapper(
        optimizer,
        accumulative_counts,
        clip_norm=norm,
        norm_type=norm_type,
        clip_value=value,
        communicator=communicator,
    )


def amp_optim_wrapper(
    optimizer: Optimizer,
    *,
    loss_scale: Scale = "dynamic",
    dtype: Literal["float16", "bfloat16"] | None = "float16",
    accumulative_counts: Annotated[int, Meta(ge=1)] = 1,
    clip_grad: ClipGrad | None = None,
    communicator: Communicator | None = None,
) -> wrapper.OptimWrapper:
    """Return what a run's config means by mmengine's ``AmpOptimWrapper``: automatic mixed precision.

    Args:
        optimizer: Any of torch's.
        loss_scale: For float16: dynamic is torch's GradScaler, a number the scale that it begins with, a mapping its
            arguments.
        dtype: What is computed in; None: what torch chooses for the parameters' device.
        accumulative_counts: How many micro-batches make an update.
        clip_grad: How gradients are clipped: ``max_norm`` and ``norm_type``, or ``clip_value`` with ``type: value``.
        communicator: The ranks of the run.

    Raises:
        ValueError: `clip_grad` has entries of no meaning; there is no mixed precision on the parameters' device; or
            `loss_scale` is out of its range, or is given with bfloat16.
    """
    norm, norm_type, value = clipping(clip_grad)
    return wrapper.OptimWrapper(
        optimizer,
        accumulative_counts,
        precision=_precision(dtype, optimizer),
        loss_scale=loss_scale,
        clip_norm=norm,
        norm_type=norm_type,
        clip_value=value,
        communicator=communicator,
    )
