"""Training by iteration, in mmengine's words."""

from __future__ import annotations

from treenail.adapters.loops.intervals import Count, DynamicIntervals
from treenail.adapters.loops.steps import StepLoop
from treenail.contracts import TrainWork


class IterBasedTrainLoop(StepLoop):
    """`StepLoop` under mmengine's name and with its arguments; an iteration is a step.

    Args:
        work: The step, the training batches and the validation.
        max_iters: Iterations of the whole run.
        val_begin: The first iteration, from 1, after which is validated.
        val_interval: Validate after the iterations that are multiples of it, and after the last one in any case.
        dynamic_intervals: (begin, interval) pairs: from the iteration `begin` on, the interval is another one.

    Raises:
        ValueError: A number is below 1, or the dynamic intervals do not ascend.
    """

    def __init__(
        self,
        work: TrainWork,
        *,
        max_iters: Count,
        val_begin: Count = 1,
        val_interval: Count = 1000,
        dynamic_intervals: DynamicIntervals | None = None,
    ) -> None:
        super().__init__(
            work,
            max_steps=max_iters,
            val_begin=val_begin,
            val_interval=val_interval,
            dynamic_intervals=dynamic_intervals,
        )
        self.max_iters = max_iters
