"""Test-time augmentation: several views of each sample are predicted, and the predictions put together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from torch import Tensor, nn

from treenail.adapters.models.model import BaseModel, built_module
from treenail.contracts import HasTestStep
from treenail.kernel import TrainingError

_MEND = "let the test data give as many views for each entry: {'inputs': [view 1, view 2 …], …}"


class BaseTTAModel(BaseModel):
    """Tests a model on several views of each sample; a subclass says in `merge_preds` how predictions become one.

    Args:
        module: The model, with a ``test_step``; or its config, ``{"type": …}``.

    Raises:
        TypeError: The model has no ``test_step``.
        RegistryError: Its config names none.
    """

    def __init__(self, module: nn.Module | Mapping[str, Any]) -> None:
        super().__init__()
        module = built_module(module, type(self)) if isinstance(module, Mapping) else module
        if not isinstance(module, nn.Module) or not isinstance(module, HasTestStep):
            raise TypeError(f"a {type(module).__name__} has no test_step(data), by which its views could be predicted")
        self.module: Any = module  # Any: each model says what its test_step takes

    @abstractmethod
    def merge_preds(self, data_samples_list: list[list[Any]]) -> list[Any]:  # Any: what the model predicts
        """Return one prediction for each sample.

        Args:
            data_samples_list: For each sample the predictions for its views, in their order.
        """

    def test_step(self, data: Any) -> list[Any]:  # Any: as the model takes it, one level deeper
        """Return the predictions for a batch.

        Args:
            data: A mapping, or a tuple or list; each entry has for each view what the model takes of it: ``{"inputs":
                [[image_1, image_2], [flipped_1, flipped_2]], …}``.

        Raises:
            TrainingError: Entries are no lists of as many views, or predictions no lists of as many samples.
        """
        if not isinstance(data, Mapping | list | tuple):
            raise TrainingError(f"a batch of views is a {type(data).__name__}", mend=_MEND)
        entries = dict(data.items()) if isinstance(data, Mapping) else dict(enumerate(data))
        counts = {}
        for name, views in entries.items():
            if views is not None and not isinstance(views, list | tuple):  # a tensor is one of samples, not of views
                raise TrainingError(f"the entry '{name}' of a batch is a {type(views).__name__}", mend=_MEND)
            if views is not None:
                counts[name] = len(views)
        if len(set(counts.values())) != 1 or 0 in counts.values():
            found = ", ".join(f"{name}: {count}" for name, count in counts.items()) or "no entries"
            raise TrainingError(
                f"the entries of a batch have different numbers of views ({found}), or none", mend=_MEND
            )
        predictions: list[Sequence[Any]] = []
        for view in range(next(iter(counts.values()))):
            chosen = {name: None if views is None else views[view] for name, views in entries.items()}
            predicted = self.module.test_step(chosen if isinstance(data, Mapping) else list(chosen.values()))
            if not isinstance(predicted, Tensor | list | tuple):
                raise TrainingError(
                    f"{type(self.module).__name__}.test_step predicts a {type(predicted).__name__} for view {view}",
                    mend="let it return a list of one a sample, or a tensor [batch, …]",
                )
            predictions.append(predicted)  # type: ignore[arg-type]  # a tensor is a sequence of its rows
        if len({len(each) for each in predictions}) > 1:
            raise TrainingError(f"views have {' and '.join(str(len(each)) for each in predictions)} predictions")
        return self.merge_preds([list(views) for views in zip(*predictions, strict=True)])

    def val_step(self, data: Any) -> list[Any]:  # Any: as of `test_step`
        """Return the predictions for a batch, as `test_step` does.

        Args:
            data: A batch of views.
        """
        return self.test_step(data)

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = "tensor") -> NoReturn:  # Any: not looked at
        """Refuse: only tests have views.

        Raises:
            TrainingError: Always.
        """
        raise TrainingError(
            f"{type(self).__name__} only tests", mend="call test_step, or train and export the model that it holds"
        )
