"""Times steps."""

from __future__ import annotations

from math import nan
from time import perf_counter

from treenail.kernel import Engine, Hook


class TimerHook(Hook):
    """Gauges, in seconds: ``time`` of a whole step and ``data_time``, the part spent waiting for its batch.

    Both are means over the steps since they were read last; without any, there is none. What happens between epochs does not
    count, nor do validation and saving between steps, and the wait for the batch after them.
    """

    priority = 10

    def __init__(self) -> None:
        self._mark = self._begin = self._waited = 0.0
        self._steps = self._told = self._told_waits = 0
        self._paused = False

    def before_train(self, engine: Engine) -> None:
        """Offer the gauges."""
        engine.meters.gauges["data_time"] = self._data_time
        engine.meters.gauges["time"] = self._time

    def before_train_epoch(self, engine: Engine) -> None:
        """Start the clock."""
        now = perf_counter()
        self._begin += now - self._mark
        self._mark, self._paused = now, False

    def before_val(self, engine: Engine) -> None:
        """Stop the clock until the next step."""
        self._paused = True

    def before_save_checkpoint(self, engine: Engine, checkpoint: dict[str, object]) -> None:
        """Stop the clock until the next step."""
        self._paused = True

    def before_train_iter(self, engine: Engine, batch_index: int, batch: object) -> None:
        """The batch is here."""
        if self._paused:
            self.before_train_epoch(engine)
        else:
            self._waited += perf_counter() - self._mark

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """The step is done; the next one's time begins."""
        self._mark = perf_counter()
        self._steps += 1

    def _time(self) -> float:
        steps = self._steps - self._told
        mean = (self._mark - self._begin) / steps if steps else nan
        self._begin, self._told = self._mark, self._steps
        return mean

    def _data_time(self) -> float:
        steps = self._steps - self._told_waits
        mean = self._waited / steps if steps else nan
        self._waited, self._told_waits = 0.0, self._steps
        return mean
