"""Metrics that break one law each."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from treenail.kernel import TrainingError


class PlainAgreement:
    """The share of outputs above 0 where the target is 1, and the mean of outputs: honest, and as simple as can be."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.hits = self.count = 0
        self.total = torch.zeros((), dtype=torch.float64)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.hits += int(((outputs > 0) == (targets > 0)).sum())
        self.count += len(targets)
        self.total = self.total + outputs.double().sum()

    def compute(self) -> Mapping[str, float]:
        if not self.count:
            raise TrainingError("agreement of no samples")
        return {"agreement": self.hits / self.count, "mean": float(self.total) / self.count}


class AveragesBatches(PlainAgreement):
    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.hits += int(((outputs > 0) == (targets > 0)).float().mean() * 1000) if len(targets) else 0
        self.count += 1000 if len(targets) else 0
        self.total = self.total + outputs.double().sum()


class RefusesEmptyBatches(PlainAgreement):
    def update(self, outputs: Tensor, targets: Tensor) -> None:
        outputs.amax()  # torch refuses this of nothing
        super().update(outputs, targets)


class WeighsLaterSamplesMore(PlainAgreement):
    def update(self, outputs: Tensor, targets: Tensor) -> None:
        places = torch.arange(self.count, self.count + len(targets), dtype=torch.float64)
        super().update(outputs, targets)
        self.total = self.total + (outputs.double() * places).sum()


class RemembersItsCount(PlainAgreement):
    count = 0

    def reset(self) -> None:
        before = self.count
        super().reset()
        self.count = before


class GivesZeroForNothing(PlainAgreement):
    def compute(self) -> Mapping[str, float]:
        return super().compute() if self.count else {"agreement": 0.0, "mean": 0.0}


class DividesByZero(PlainAgreement):
    def compute(self) -> Mapping[str, float]:
        return {"agreement": self.hits / self.count, "mean": float(self.total) / self.count}


class GivesTensors(PlainAgreement):
    def compute(self) -> Mapping[str, float]:
        return {name: torch.tensor(value) for name, value in super().compute().items()}  # type: ignore[misc]  # the mutation


class NamesByCount(PlainAgreement):
    def compute(self) -> Mapping[str, float]:
        return {f"{name}_{self.count}": value for name, value in super().compute().items()}


class ResetsAtCompute(PlainAgreement):
    def compute(self) -> Mapping[str, float]:
        found = super().compute()
        self.hits = self.count = 0
        self.total = torch.zeros((), dtype=torch.float64)
        self.last = found
        return found


class DividesItsState(PlainAgreement):
    def compute(self) -> Mapping[str, float]:
        found = super().compute()
        self.total = self.total / self.count
        return found


class SumsInTheDtypeOfOutputs(PlainAgreement):
    def update(self, outputs: Tensor, targets: Tensor) -> None:
        super().update(outputs, targets)
        total = torch.zeros((), dtype=outputs.dtype)
        for value in outputs:
            total = total + value
        self.total = self.total - outputs.double().sum() + total


class ClampsItsInput(PlainAgreement):
    def update(self, outputs: Tensor, targets: Tensor) -> None:
        super().update(outputs, targets)
        outputs.clamp_(min=0)


class KeepsReferences(PlainAgreement):
    def reset(self) -> None:
        super().reset()
        self.kept: list[tuple[Tensor, Tensor]] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.kept.append((outputs, targets))

    def compute(self) -> Mapping[str, float]:
        whole = PlainAgreement()
        for outputs, targets in self.kept:
            whole.update(outputs, targets)
        return whole.compute()


class SharesItsHits(PlainAgreement):
    shared: dict[str, int] = {"hits": 0}  # noqa: RUF012 - the mutation

    def reset(self) -> None:
        super().reset()
        self.shared["hits"] = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        super().update(outputs, targets)
        self.shared["hits"] += int(((outputs > 0) == (targets > 0)).sum())
        self.hits = self.shared["hits"]

    def compute(self) -> Mapping[str, float]:
        self.hits = self.shared["hits"]
        return super().compute()
