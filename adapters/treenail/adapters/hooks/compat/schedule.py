"""mmengine's hooks for what a run of ours does in any case: schedules, and an order of samples for each epoch."""

from __future__ import annotations

from treenail.adapters.hooks.compat.base import Hook
from treenail.adapters.hooks.compat.runner import Runner
from treenail.adapters.hooks.schedule import ScheduleHook
from treenail.kernel import Engine


class ParamSchedulerHook(ScheduleHook):
    """Steps the schedulers as `ScheduleHook` does, unless another hook does that already.

    A run has the hook ``schedule`` by default; under mmengine's key for it, ``param_scheduler``, this one stands beside it and
    does nothing, since schedulers that are stepped twice would run at double speed.
    """

    def before_train(self, engine: Engine) -> None:
        """Look the schedulers up, if nobody else steps them."""
        stepping = [each for each in engine.hooks.values() if isinstance(each, ScheduleHook)]
        ours = [each for each in stepping if not isinstance(each, ParamSchedulerHook)]
        if (ours or stepping)[0] is self:
            super().before_train(engine)


class DistSamplerSeedHook(Hook):
    """Does nothing: each epoch of a run has its own order of samples without it.

    The order is a function of the sampler's seed and the epoch, which the loop sets; the name is here for configs that have it.
    """

    def before_train(self, runner: Runner) -> None:
        """Leave the samplers alone: to set their epoch again could move one that is in the midst of it."""
