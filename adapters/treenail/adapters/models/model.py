"""Models that say by a mode what is wanted of them: losses, predictions, or their plain outputs."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from inspect import signature
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from treenail.adapters.models.initializers import InitCfg
from treenail.adapters.models.losses import check_differentiable, parse_losses
from treenail.adapters.models.module import BaseModule
from treenail.adapters.models.preprocessing import BaseDataPreprocessor, ImgDataPreprocessor
from treenail.kernel import TrainingError

Mode = Literal["tensor", "loss", "predict"]

around: ContextVar[nn.Module | None] = ContextVar("around", default=None)
"""What a model is wrapped in, and must be called through, while it trains itself."""


class TakesLoss(Protocol):
    """What updates a model: any `OptimWrapper`, mmengine's too."""

    def optim_context(self, model: nn.Module) -> AbstractContextManager[object]:
        """Return the context of a forward and backward pass."""
        ...

    def update_params(self, loss: Tensor) -> object:
        """Differentiate, and update the parameters where that completes an accumulation."""
        ...


class BaseModel(BaseModule, ABC):
    """A model that computes its own losses and predictions; a subclass writes `forward` alone.

    In a config it needs no ``loss``: `train_step` does it all.

    Args:
        data_preprocessor: What a batch goes through first; or its config, ``{"type": …}``. None: it is moved to the model's
            device.
        init_cfg: How weights are initialised, see `BaseModule`.

    Raises:
        TypeError: The preprocessor is no module.
        RegistryError: Its config names none.
    """

    def __init__(
        self, data_preprocessor: nn.Module | Mapping[str, Any] | None = None, init_cfg: InitCfg | None = None
    ) -> None:
        super().__init__(init_cfg)
        if data_preprocessor is None:
            data_preprocessor = BaseDataPreprocessor()
        elif isinstance(data_preprocessor, Mapping):
            data_preprocessor = built_module(data_preprocessor, type(self))
        if not isinstance(data_preprocessor, nn.Module):
            raise TypeError(
                f"data_preprocessor is a {type(data_preprocessor).__name__}, must be a module or its config"
            )
        self.data_preprocessor = data_preprocessor

    @abstractmethod
    def forward(self, inputs: Any, data_samples: Any = None, mode: Mode = "tensor") -> Any:  # Any: each model says it
        """Compute what a mode asks for.

        A batch that is a mapping is given by its keys, a tuple or list by position, ``mode`` always by name.

        Args:
            inputs: The preprocessed inputs.
            data_samples: What is known of each sample.
            mode: loss: a dict of losses, as `parse_losses` takes them. predict: a list with one prediction a sample, or what the
                metrics take. tensor: the plain outputs.
        """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # Any: those of `forward`
        """Call `forward`, through what the model is wrapped in while it trains itself."""
        outer = around.get()
        if outer is None or outer.module is not self:
            return super().__call__(*args, **kwargs)
        token = around.set(None)
        try:
            return outer(*args, **kwargs)
        finally:
            around.reset(token)

    def train_step(self, data: Any, optim_wrapper: TakesLoss) -> dict[str, Tensor]:  # Any: as `forward` says
        """Update the parameters once, or add up gradients where the wrapper accumulates.

        Args:
            data: A batch.
            optim_wrapper: What updates the parameters.

        Returns:
            float[] each: the total as ``loss``, and the means of all entries.

        Raises:
            TrainingError: There are several optimizers; the batch does not fit `forward`; or the losses are no dict of
                tensors, or depend on no parameter.
        """
        if isinstance(optim_wrapper, Mapping):
            raise TrainingError(
                f"{type(self).__name__} has no train_step of its own, and there are the optimizers {', '.join(optim_wrapper)}",
                mend="name one optimizer, or override train_step to say what each of them does",
            )
        of = type(self).__name__
        outer = around.get()
        with optim_wrapper.optim_context(self if outer is None or outer.module is not self else outer):
            losses = self._run_forward(self.data_preprocessor(data, True), "loss")
            if not isinstance(losses, Mapping):
                raise TrainingError(
                    f'forward(mode="loss") of {of} returned a {type(losses).__name__}',
                    mend='return a dict of tensors: {"loss": loss}',
                )
            total, log_vars = self.parse_losses(losses)
            check_differentiable(total, losses, of)
            optim_wrapper.update_params(total)
        return {name: value.detach() for name, value in log_vars.items()}

    def val_step(self, data: Any) -> Any:  # Any: as `forward` says
        """Return the predictions for a batch.

        Args:
            data: A batch.
        """
        return self._run_forward(self.data_preprocessor(data, False), "predict")

    def test_step(self, data: Any) -> Any:  # Any: as `forward` says
        """Return the predictions for a batch, as `val_step` does.

        Args:
            data: A batch.
        """
        return self._run_forward(self.data_preprocessor(data, False), "predict")

    def parse_losses(self, losses: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:  # Any: they are looked at
        """Return (what is differentiated, what is logged), as the function `parse_losses` does.

        Args:
            losses: What ``forward(mode="loss")`` returned.

        Raises:
            TrainingError: They are no losses.
        """
        return parse_losses(losses, type(self).__name__)

    def _run_forward(self, data: Any, mode: Mode) -> Any:  # Any: as `forward` says
        if not isinstance(data, Mapping | list | tuple):
            raise TrainingError(
                f"the data_preprocessor of {type(self).__name__} returned a {type(data).__name__}",
                mend="return a dict, list or tuple of what forward takes",
            )
        positional, named = ((), data) if isinstance(data, Mapping) else (data, {})
        try:
            return self(*positional, **named, mode=mode)
        except (TypeError, KeyError):
            try:
                signature(self.forward).bind(*positional, **named, mode=mode)
            except (TypeError, KeyError) as unfit:  # the latter is Python's where there are two modes
                raise TrainingError(
                    f"a batch does not fit {type(self).__name__}.forward{signature(self.forward)}: {unfit}",
                    mend="let the dataset, or the data_preprocessor, give what forward takes, under the same names",
                ) from None
            raise


class PlainModel(nn.Module):
    """A `BaseModel` as a function of the raw inputs of a batch: what mode ``tensor`` makes of them, preprocessed.

    It is what an artefact of the model holds, which knows no modes and takes one tensor.

    Args:
        model: The model.
        batch: An example of what `model` takes: a mapping with ``inputs``, or a tuple or list that begins with them. The model
            gets None for everything else in it.
    """

    def __init__(self, model: BaseModel, batch: Mapping[str, Any] | tuple[Any, ...] | list[Any]) -> None:
        super().__init__()
        self.model = model
        self._others = dict.fromkeys(batch) if isinstance(batch, Mapping) else (None,) * len(batch[1:])

    def forward(self, inputs: Any) -> Any:  # Any: those of the model
        """Preprocess, and call the model."""
        others = self._others
        data = {**others, "inputs": inputs} if isinstance(others, dict) else (inputs, *others)
        return self.model._run_forward(self.model.data_preprocessor(data, False), "tensor")


def built_module(cfg: Mapping[str, Any], owner: type) -> nn.Module:  # Any: arguments
    """Build a module from a config ``{"type": …}``.

    Its type is a class or function, or its name: in a registry that a module has in which the class of the owner, or one that
    it derives from, is written (``MODELS``); else an installed adapter's, or a preprocessor's here.

    Args:
        cfg: The config.
        owner: The class of the module that it is for.

    Raises:
        RegistryError: There is none.
        BuildError: It refused its arguments.
    """
    from treenail.adapters.registries import mmengine  # most models are given their preprocessor ready-made

    registry = mmengine.RootRegistries().MODELS
    own: tuple[Callable[..., nn.Module], ...] = (BaseDataPreprocessor, ImgDataPreprocessor)
    for preprocessor in own:
        if preprocessor.__name__ not in registry:
            registry.register_module(module=preprocessor)
    name = cfg.get("type")
    modules = [sys.modules.get(base.__module__) for base in owner.__mro__]
    for each in [value for module in modules if module is not None for value in vars(module).values()]:
        if isinstance(each, mmengine.Registry) and isinstance(name, str) and name in each:
            registry = each
            break
    built: nn.Module = registry.build(cfg)
    return built
