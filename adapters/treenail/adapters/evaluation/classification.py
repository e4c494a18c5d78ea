"""What is measured of classes: precision, recall and F1, and which are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor

from treenail.adapters.evaluation.labels import labels, refuse_empty, refuse_strays
from treenail.kernel import TrainingError


class PrecisionRecallF1:
    """Precision, recall and F1 of classes, as scikit-learn's `precision_recall_fscore_support` has them.

    Of what was predicted as a class, precision is the share that is of it; of what is of a class, recall is the share that
    was predicted as it; F1 = 2·hits / (predicted + actual). Results are called ``precision_macro``, ``recall_macro``,
    ``f1_macro`` …, and per class ``precision/cat`` or ``precision/0``. Scores with a NaN predict no class.

    Args:
        average: micro: of all samples; macro: the mean over the classes that occur among targets or predictions; weighted: that
            weighted by how often each is a target; per_class: each class by itself, also one that does not occur.
        zero_division: What 0 / 0 is: the precision of a class that was never predicted, the recall of one that is never a target.
        num_classes: How many there are; needed where classes are predicted and not scores.
        ignore_index: Target of what does not count.
        class_names: Name of each class in the results; their numbers where there are none.

    Raises:
        ValueError: There is no average or one twice, or names and `num_classes` do not fit.
    """

    def __init__(
        self,
        average: tuple[Literal["micro", "macro", "weighted", "per_class"], ...] = ("macro",),
        zero_division: Literal[0, 1] = 0,
        num_classes: Annotated[int, Meta(ge=1)] | None = None,
        ignore_index: int | None = None,
        class_names: tuple[str, ...] = (),
    ) -> None:
        if (
            not average
            or len(set(average)) < len(average)
            or set(average) - {"micro", "macro", "weighted", "per_class"}
        ):
            raise ValueError(f"average is {average!r}, must be some of ('micro', 'macro', 'weighted', 'per_class')")
        self.average = average
        self.zero_division = zero_division
        self.num_classes = _number_of_classes(num_classes, class_names)
        self.ignore_index = ignore_index
        self.class_names = class_names
        self.reset()

    @property
    def result_names(self) -> tuple[str, ...] | None:
        """The names of the results; None where only the scores tell how many classes there are."""
        if "per_class" in self.average and self.num_classes is None:
            return None
        ends = []
        for average in self.average:
            if average == "per_class":
                ends += [f"/{each}" for each in _names(self.class_names, self.num_classes or 0)]
            else:
                ends.append(f"_{average}")
        return tuple(f"{measure}{end}" for end in ends for measure in ("precision", "recall", "f1"))

    def reset(self) -> None:
        """Forget everything seen."""
        self._counts: Tensor | None = None  # int64[3, classes + 1]: hits, predicted, actual; the last is no class

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take float[batch, …, classes] scores, or int64[batch, …] predicted classes, and the right ones int64[batch, …].

        Raises:
            TrainingError: Shapes or dtypes do not fit.
        """
        found = labels("precision and recall", outputs, targets, self.ignore_index, self.num_classes)
        predicted, size = found.predictions(), found.classes + 1
        hits = torch.where(predicted == found.targets, predicted, found.classes)
        counts = torch.stack([found.tally(each, size) for each in (hits, predicted, found.targets)])
        self._counts = _added("precision and recall", self._counts, counts)

    def compute(self) -> dict[str, float]:
        """Return the averages that were asked for, of everything seen since `reset`.

        Raises:
            TrainingError: Nothing was seen, or a class does not exist.
        """
        counts = _seen("precision and recall", self._counts)
        refuse_strays("precision and recall", int(counts[2, -1]), counts.shape[1] - 1)
        hits, predicted, actual = counts[:, :-1].double()
        fractions = {
            "precision": (hits, predicted),
            "recall": (hits, actual),
            "f1": (2 * hits, predicted + actual),
        }
        results: dict[str, float] = {}
        for average in self.average:
            for name, (above, below) in fractions.items():
                if average == "micro":
                    results[f"{name}_micro"] = float(self._share(above.sum(), below.sum()))
                    continue
                shares = self._share(above, below)
                if average == "per_class":
                    each = zip(_names(self.class_names, len(shares)), shares.tolist(), strict=True)
                    results |= {f"{name}/{which}": share for which, share in each}
                    continue
                weights = actual if average == "weighted" else ((predicted + actual) > 0).double()
                results[f"{name}_{average}"] = float((shares * weights).sum() / weights.sum())
        return results

    def _share(self, above: Tensor, below: Tensor) -> Tensor:
        return torch.where(below > 0, above / below, float(self.zero_division))


class ConfusionMatrix:
    """How often each class was taken for each.

    Results are ``confusion/cat/dog``, the target first; so there are classes² of them.

    Args:
        normalize: none: numbers of samples; target: shares of each target; prediction: shares of each prediction; all: shares of
            all samples. A class that does not occur has shares of 0.
        num_classes: How many there are; needed where classes are predicted and not scores.
        ignore_index: Target of what does not count.
        class_names: Name of each class in the results; their numbers where there are none.

    Raises:
        ValueError: The names and `num_classes` do not fit, or there is no such normalisation.
    """

    def __init__(
        self,
        normalize: Literal["none", "target", "prediction", "all"] = "none",
        num_classes: Annotated[int, Meta(ge=1)] | None = None,
        ignore_index: int | None = None,
        class_names: tuple[str, ...] = (),
    ) -> None:
        if normalize not in {"none", "target", "prediction", "all"}:
            raise ValueError(f"normalize is {normalize!r}, must be 'none', 'target', 'prediction' or 'all'")
        self.normalize = normalize
        self.num_classes = _number_of_classes(num_classes, class_names)
        self.ignore_index = ignore_index
        self.class_names = class_names
        self.reset()

    @property
    def result_names(self) -> tuple[str, ...] | None:
        """The names of the results; None where only the scores tell how many classes there are."""
        if self.num_classes is None:
            return None
        names = _names(self.class_names, self.num_classes)
        return tuple(f"confusion/{target}/{prediction}" for target in names for prediction in names)

    def reset(self) -> None:
        """Forget everything seen."""
        self._counts: Tensor | None = (
            None  # int64[classes + 1, classes + 1], [target, prediction]; the last is no class
        )

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take float[batch, …, classes] scores, or int64[batch, …] predicted classes, and the right ones int64[batch, …].

        Raises:
            TrainingError: Shapes or dtypes do not fit.
        """
        found = labels("the confusion matrix", outputs, targets, self.ignore_index, self.num_classes)
        size = found.classes + 1
        counts = found.tally(found.targets * size + found.predictions(), size * size).view(size, size)
        self._counts = _added("the confusion matrix", self._counts, counts)

    def matrix(self) -> Tensor:
        """Return float64[classes, classes], or int64 where it is not normalised: [target, prediction].

        Raises:
            TrainingError: Nothing was seen, a class does not exist, or scores are NaN.
        """
        counts = _seen("the confusion matrix", self._counts)
        refuse_strays("the confusion matrix", int(counts[-1].sum()), len(counts) - 1)
        if lost := int(counts[:, -1].sum()):
            raise TrainingError(
                f"the confusion matrix has no place for {lost} samples, whose scores are NaN", mend="look at the model"
            )
        counts = counts[:-1, :-1]
        if self.normalize == "none":
            return counts
        if self.normalize == "all":
            return counts.double() / counts.sum()
        totals = counts.sum(dim=1 if self.normalize == "target" else 0, keepdim=True)
        return counts.double() / totals.clamp(min=1)

    def compute(self) -> dict[str, float]:
        """Return the entries of `matrix` by name.

        Raises:
            TrainingError: Nothing was seen, a class does not exist, or scores are NaN.
        """
        matrix = self.matrix()
        names = _names(self.class_names, len(matrix))
        return {
            f"confusion/{target}/{prediction}": float(value)
            for target, row in zip(names, matrix.tolist(), strict=True)
            for prediction, value in zip(names, row, strict=True)
        }


def _added(what: str, before: Tensor | None, counts: Tensor) -> Tensor:
    if before is None:
        return counts
    if before.shape != counts.shape:
        raise TrainingError(
            f"{what} of {counts.shape[-1] - 1} classes, after a batch with {before.shape[-1] - 1}",
            mend="all batches must have the same classes",
        )
    return before.to(counts.device) + counts


def _seen(what: str, counts: Tensor | None) -> Tensor:
    held = torch.zeros(1) if counts is None else counts.cpu()
    refuse_empty(what, int(held.sum()))
    return held


def _names(class_names: Sequence[str], classes: int) -> Sequence[str]:
    return class_names or [str(number) for number in range(classes)]


def _number_of_classes(num_classes: int | None, class_names: Sequence[str]) -> int | None:
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, must be at least 1")
    if not class_names:
        return num_classes
    if len(set(class_names)) < len(class_names) or num_classes not in {None, len(class_names)}:
        raise ValueError(f"{len(class_names)} class_names for {num_classes} classes; each needs a name of its own")
    return len(class_names)
