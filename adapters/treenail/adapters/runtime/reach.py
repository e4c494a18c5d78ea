"""What counts epochs in a run by steps that ends before it would have counted one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from treenail.adapters.hooks import CheckpointHook, Schedules
from treenail.adapters.loops import StepLoop, length_of
from treenail.adapters.runtime.assemble import Assembly
from treenail.kernel import BatchSource, Hook


def out_of_reach(assembly: Assembly, hooks: Mapping[str, Hook]) -> Iterator[str]:
    """Yield a sentence for each checkpoint hook and schedule that has nothing to do before a run by steps ends.

    Args:
        assembly: The run.
        hooks: Its hooks by name.

    Raises:
        TrainingError: There is no batch to train on.
    """
    loop, batches, schedules = assembly.loop, assembly.parts["batches"], assembly.parts["schedules"]
    if not isinstance(loop, StepLoop) or not isinstance(batches, BatchSource) or (length := length_of(batches)) is None:
        return
    pass_over = f"a pass over the data has {length} steps, and the run {loop.max_steps}"
    for name, hook in hooks.items():
        if not isinstance(hook, CheckpointHook) or hook.by != "epoch" or hook.interval is None:
            continue
        if (hook.begin or hook.interval) * length >= loop.max_steps:
            yield f"hooks.{name} counts epochs and saves nothing before the end: {pass_over}; write by: step"
    for number, each in enumerate(schedules.schedules if isinstance(schedules, Schedules) else ()):
        counts_epochs = each.by_epoch and each.metric is None and not each.takes_all_metrics
        if counts_epochs and length >= loop.max_steps:
            which = f"the schedule {type(each.scheduler).__name__} (number {number})"
            yield f"{which} steps after epochs, so never before the end: {pass_over}; write every: step"


__all__ = ["out_of_reach"]
