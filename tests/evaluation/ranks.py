"""What the tests run on ranks of gloo."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

import torch
import torch.distributed as dist

from tests.evaluation.batches import scores
from treenail.adapters.comm import current_communicator
from treenail.adapters.evaluation import Accuracy, as_metric
from treenail.adapters.evaluation.compat import Evaluator

ROWS = 7


def measure_on_rank_0() -> dict[str, float]:
    """Measure with a metric of torchmetrics on rank 0 alone, as an evaluation loop does, while the other ranks go on."""
    from torchmetrics.classification import MulticlassAccuracy

    results: dict[str, float] = {}
    if current_communicator().rank == 0:
        metric = as_metric(MulticlassAccuracy(3, average="micro"))
        metric.update(scores(ROWS, 3, 1), torch.arange(ROWS) % 3)
        results = dict(metric.compute())
    dist.barrier()
    return results


def evaluate(*, padded: bool) -> dict[str, float]:
    """Evaluate every world_size-th sample on each rank; ranks with fewer repeat the first samples where padded."""
    ranks = current_communicator()
    outputs, targets = scores(ROWS, 3, 1), torch.arange(ROWS) % 3
    mine = list(range(ROWS))[ranks.rank :: ranks.world_size]
    if padded and len(mine) < -(-ROWS // ranks.world_size):
        mine.append(0)
    evaluator = Evaluator(Accuracy())
    for row in mine:
        evaluator.process([{"pred_score": outputs[row], "gt_label": targets[row]}])
    return evaluator.evaluate(ROWS)


class Measured(NamedTuple):
    """What a rank measured: with the others, of shares that were padded, too; and what rank 0 did with a torchmetrics metric."""

    shared: dict[str, float]
    padded: dict[str, float]
    alone: dict[str, float] | None


def measure() -> Measured:
    """Do all of the above on ranks that are started once."""
    alone = measure_on_rank_0() if find_spec("torchmetrics") else None
    return Measured(evaluate(padded=False), evaluate(padded=True), alone)
