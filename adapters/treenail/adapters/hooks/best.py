"""Remembers the best validations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Annotated, Final, Literal, NamedTuple

from msgspec import Meta

from treenail.adapters.hooks.schedule import metric_of
from treenail.kernel import Engine, Hook, StateError, TrainingError

GREATER_KEYS: Final = (
    *("acc", "top", "ar@", "auc", "precision", "recall", "f1", "map", "mdice", "miou", "macc", "aacc", "iou", "dice"),
    *("r2", "score"),
)
"""What is in the names of metrics of which a larger value is better; the first ones as mmengine has them."""

LESS_KEYS: Final = ("loss", "error", "mae", "mse", "rmse", "mape", "perplexity", "wer", "cer", "fid")
"""What is in the names of metrics of which a smaller value is better."""


class Best(NamedTuple):
    """A value of a validation that was among the best.

    Args:
        value: Of the metric.
        step: At which it was reached.
    """

    value: float
    step: int


class BestHook(Hook):
    """Keeps the checkpoints with the best values of validation metrics, under pointers.

    ``best`` leads to the best one of the first metric. Of several metrics, each has a pointer ``best-NAME`` besides. Where
    more than one checkpoint is kept, they have the pointers ``best.1``, ``best.2`` … in no order: a better one takes the
    pointer of the worst.

    Args:
        metric: Name of the metric, or several: ``"val/accuracy"`` or, in short, ``accuracy``; ``auto`` is the first that
            validation gives.
        mode: Whether a larger or a smaller value is better; one for all metrics, or one for each. None: as their names say.
        keep: How many checkpoints are kept of each metric.
        greater_keys: What a metric's name is, or contains, if larger is better; capitals do not matter.
        less_keys: The same, if smaller is better.

    Attributes:
        metric: Name of the first metric.
        best: Its best value so far; None before the first validation.
        step: The step at which it was reached.
    """

    priority = 80

    def __init__(
        self,
        metric: str | tuple[str, ...] = "auto",
        mode: Literal["max", "min"] | tuple[Literal["max", "min"] | None, ...] | None = "max",
        *,
        keep: Annotated[int, Meta(ge=1)] = 1,
        greater_keys: tuple[str, ...] = GREATER_KEYS,
        less_keys: tuple[str, ...] = LESS_KEYS,
    ) -> None:
        names = (metric,) if isinstance(metric, str) else tuple(metric)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"metric is {metric!r}, must be names, each once")
        if len(names) > 1 and "auto" in names:
            raise ValueError("metric is 'auto', or names; not both")
        modes = tuple(mode) if isinstance(mode, tuple | list) else (mode,) * len(names)
        if len(modes) != len(names):
            raise ValueError(f"there are {len(names)} metrics and {len(modes)} modes")
        if wrong := [each for each in modes if each not in ("max", "min", None)]:
            raise ValueError(f"mode is '{wrong[0]}', must be 'max' or 'min'")
        if keep < 1:
            raise ValueError(f"keep is {keep}, must be at least 1")
        for name, each in zip(names, modes, strict=True):
            if each is None and name != "auto" and mode_of(name, greater_keys, less_keys) is None:
                raise ValueError(
                    f"the name '{name}' does not say whether a larger value is better: give the rule for it"
                )
        self.keep = keep
        self._keys = greater_keys, less_keys
        self._rankings = [
            _Ranking(name, each, keep, ["best"] if number == 0 else [])
            for number, (name, each) in enumerate(zip(names, modes, strict=True))
        ]
        if len(names) > 1:
            for ranking in self._rankings:
                ranking.pointers.append(f"best-{pointer_name(ranking.metric)}")
            if len({ranking.pointers[-1] for ranking in self._rankings}) < len(names):
                pointers = ", ".join(f"'{each.metric}': {each.pointers[-1]}" for each in self._rankings)
                raise ValueError(f"metrics cannot share a pointer, and these do ({pointers}): rename one of them")

    @property
    def metric(self) -> str:
        """Name of the first metric."""
        return self._rankings[0].metric

    @property
    def best(self) -> float | None:
        """Best value of the first metric."""
        return None if (found := self._rankings[0].best) is None else found.value

    @property
    def step(self) -> int:
        """The step at which it was reached."""
        return 0 if (found := self._rankings[0].best) is None else found.step

    def after_val_epoch(self, engine: Engine, metrics: dict[str, float]) -> None:
        """Compare, and request a checkpoint of a new best.

        Raises:
            TrainingError: Validation gave no such metric, or its name does not say what is better.
        """
        for ranking in self._rankings:
            if ranking.metric == "auto":
                if not metrics:
                    raise TrainingError("the hook 'best' takes the first metric, and validation gives none")
                ranking.metric = next(iter(metrics))
            name = ranking.metric
            value = metric_of(
                metrics, f"val/{name}" if name not in metrics and f"val/{name}" in metrics else name, _WHO
            )
            if ranking.mode is None:
                ranking.mode = mode_of(name, *self._keys)
            if ranking.mode is None:
                raise TrainingError(
                    f"the name '{name}' does not say whether a larger value is better",
                    mend="give the hook 'best' the rule",
                )
            if pointers := ranking.offer(Best(value, engine.step)):
                engine.request_checkpoint(f"best {name} {value:.6g}", *pointers)

    def state_dict(self) -> dict[str, object]:
        """Return the best values and their steps."""
        return {
            "metrics": {
                each.metric: {"mode": each.mode, "places": [list(place) for place in each.places]}
                for each in self._rankings
                if each.metric != "auto"
            }
        }

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Go on from a state; a metric that was not ranked before begins anew.

        Raises:
            StateError: It is none, or of other metrics.
        """
        saved = state_dict.get("metrics")
        if not isinstance(saved, dict):
            raise StateError("there are no best values", where="hooks.best")
        # A name without values may be one that was misspelt, as the first results showed.
        seen = [name for name, each in saved.items() if not isinstance(each, Mapping) or each.get("places")]
        if len(self._rankings) == 1 and self.metric == "auto" and seen:
            self._rankings[0].metric = seen[0]
        if seen and not any(each.metric in saved for each in self._rankings):
            ours = ", ".join(each.metric for each in self._rankings)
            raise StateError(f"the best values are of {', '.join(seen)}, not of {ours}", where="hooks.best")
        for each in self._rankings:
            if each.metric in saved:
                each.load(saved[each.metric])


_WHO: Final = "the hook 'best'"


class _Ranking:
    """The best values of a metric, each in a place of its own.

    Args:
        metric: Its name.
        mode: What is better.
        keep: How many places there are.
        pointers: That lead to the best.
    """

    def __init__(self, metric: str, mode: Literal["max", "min"] | None, keep: int, pointers: list[str]) -> None:
        self.metric, self.mode, self.pointers = metric, mode, pointers
        self.places: list[Best] = []
        self._keep = keep

    @property
    def best(self) -> Best | None:
        """The best of all; of equals, the first."""
        return max(self.places, key=self._rank, default=None)

    def _rank(self, place: Best) -> tuple[float, int]:
        return (place.value if self.mode == "max" else -place.value), -place.step

    def offer(self, found: Best) -> list[str]:
        """Take a value if it is among the best; return the pointers that shall lead to it."""
        if not isfinite(found.value):
            return []
        best = self.best
        is_best = best is None or self._rank(found)[0] > self._rank(best)[0]
        if len(self.places) < self._keep:
            number = len(self.places)
            self.places.append(found)
        else:
            worst = min(self.places, key=self._rank)
            if self._rank(found)[0] <= self._rank(worst)[0]:
                return []
            number = self.places.index(worst)
            self.places[number] = found
        places = [f"{self.pointers[-1]}.{number + 1}"] if self._keep > 1 else []
        return [*(self.pointers if is_best else []), *places]

    def load(self, saved: object) -> None:
        """Go on from a state."""
        where = f"hooks.best.{self.metric}"
        mode, places = (saved.get("mode"), saved.get("places")) if isinstance(saved, Mapping) else (None, None)
        if self.mode is not None and mode is not None and mode != self.mode:
            raise StateError(f"the best value was the {mode}, and is the {self.mode} now", where=where)
        found = [_place(each) for each in places] if isinstance(places, list) else [None]
        if None in found or mode not in ("max", "min", None):
            raise StateError(f"these are no best values: {saved!r}", where=where)
        self.mode = self.mode or mode
        ranked = sorted((each for each in found if each is not None), key=self._rank, reverse=True)
        # Places keep their numbers, by which their checkpoints are found; fewer are kept by what is best.
        self.places = [each for each in found if each is not None and each in ranked[: self._keep]]


def _place(saved: object) -> Best | None:
    if isinstance(saved, list) and len(saved) == 2 and isinstance(saved[0], float) and isinstance(saved[1], int):
        return Best(saved[0], saved[1])
    return None


def mode_of(
    metric: str, greater_keys: Sequence[str] = GREATER_KEYS, less_keys: Sequence[str] = LESS_KEYS
) -> Literal["max", "min"] | None:
    """Return what is better of a metric by its name: by the whole of it, by a word, by a part; None if that says nothing.

    Args:
        metric: Its name; what precedes the last slash does not count.
        greater_keys: Keys of metrics of which a larger value is better.
        less_keys: Keys of the others.
    """
    name = metric.lower().rpartition("/")[2]
    words = set(re.split(r"[^a-z0-9@]+", name))
    greater, less = [each.lower() for each in greater_keys], [each.lower() for each in less_keys]
    for larger, smaller in (
        (name in greater, name in less),
        (any(each in words for each in greater), any(each in words for each in less)),
        (any(each in name for each in greater), any(each in name for each in less)),
    ):
        if larger != smaller:
            return "max" if larger else "min"
        if larger:  # by two keys that contradict each other
            return None
    return None


def pointer_name(metric: str) -> str:
    """Return a metric's name as a pointer can have it."""
    return re.sub(r"[^\w.-]+", "-", metric.removeprefix("val/")).strip("-.") or "metric"
