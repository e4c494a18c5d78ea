"""Times steps."""

from __future__ import annotations

from time import perf_counter

from treenail.kernel import Engine, Hook


class TimerHook(Hook):
    """Adds to the meters, in seconds: ``time`` of a whole step and ``data_time``, the part spent waiting for its batch."""

    priority = 10

    def __init__(self) -> None:
        self._mark = 0.0

    def before_train_epoch(self, engine: Engine) -> None:
        """Start the clock."""
        self._mark = perf_counter()

    def before_train_iter(self, engine: Engine, batch_index: int, batch: object) -> None:
        """The batch is here."""
        engine.meters.add("data_time", perf_counter() - self._mark)

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """The step is done; the next one's time begins."""
        now = perf_counter()
        engine.meters.add("time", now - self._mark)
        self._mark = now
