"""Turns steps into log lines."""

from __future__ import annotations

from math import isfinite

from structlog.typing import FilteringBoundLogger

from treenail.adapters.logging import make_logger
from treenail.contracts import StepOutput
from treenail.kernel import Engine, Hook, Record, TrainingError


class LoggerHook(Hook):
    """Publishes the means since the last line, every `interval` steps and at the end of an epoch, and logs what is committed.

    Published are the loss (``train/loss``, weighted by batch sizes), the meters and the gauges (``lr`` …); what validation
    and test publish is logged, too.

    Args:
        interval: Steps between lines, counted over the whole run.
        logger: A structlog logger; one that writes to the terminal when None.

    Raises:
        TrainingError: (while training) the loss is not finite; the message says between which steps.
    """

    priority = 60

    def __init__(self, interval: int = 10, logger: FilteringBoundLogger | None = None) -> None:
        if interval < 1:
            raise ValueError(f"interval is {interval}, must be at least 1")
        self.interval = interval
        self._logger = logger or make_logger()
        self._subscribed = False

    def before_run(self, engine: Engine) -> None:
        """Listen to what is committed."""
        if not self._subscribed:
            engine.subscribe(self._log)
            self._subscribed = True

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Take the step's loss, and publish if it is time."""
        if isinstance(outputs, StepOutput):
            engine.meters.add("train/loss", outputs.loss, outputs.weight)
        if (engine.step + 1) % self.interval == 0:
            self._publish(engine, engine.step + 1)

    def after_train_epoch(self, engine: Engine) -> None:
        """Publish what is left."""
        if engine.step % self.interval:
            self._publish(engine, engine.step)

    def _publish(self, engine: Engine, step: int) -> None:
        values = engine.meters.drain()
        loss = values.get("train/loss", 0.0)
        if not isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} in the {self.interval} steps up to step {step}",
                mend="lower the learning rate or check the data; the last checkpoint is from before",
            )
        engine.publish(values)

    def _log(self, record: Record) -> None:
        kind = next((name.partition("/")[0] for name in record.values if "/" in name), "train")
        values = {name: float(f"{value:.6g}") for name, value in record.values.items()}
        self._logger.info(kind, step=record.step, epoch=record.epoch, **values)
