"""Finds the rank that the others wait for."""

from __future__ import annotations

from statistics import median_low
from time import perf_counter
from typing import Annotated

import torch
from msgspec import Meta
from structlog.typing import FilteringBoundLogger
from torch import nn
from torch.utils.hooks import RemovableHandle

from treenail.adapters.logging import terminal_logger
from treenail.kernel import Communicator, Engine, Hook


class StragglerHook(Hook):
    """Measures how long each rank needs until it meets the others, and reports one that needs much longer.

    Ranks meet where gradients are averaged, in the backward pass; what counts is the wait for data, the hooks and the forward
    pass before it. (On a GPU the forward pass counts as far as the host waits for it.) Every `interval` steps the mean and
    largest of these times over the ranks are published as ``ranks/ahead`` and ``ranks/ahead_max``, in seconds.

    Where data parallelism broadcasts buffers (batch normalisation), ranks meet before the forward pass already, so that each is
    as late as the slowest: give `data_parallel` ``broadcast_buffers: false`` to measure there.

    Args:
        factor: Report a rank that needs so many times what the median rank does.
        interval: Steps between reports.
        least_seconds: Differences below it are none.
        communicator: The ranks of the run; with one there is nothing to measure.
        terminal: A structlog logger for people; one that writes to standard error when None.
    """

    priority = 15

    def __init__(
        self,
        factor: Annotated[float, Meta(gt=1)] = 1.5,
        interval: Annotated[int, Meta(ge=1)] = 50,
        least_seconds: Annotated[float, Meta(ge=0)] = 0.005,
        communicator: Communicator | None = None,
        terminal: FilteringBoundLogger | None = None,
    ) -> None:
        if factor <= 1 or interval < 1 or least_seconds < 0:
            raise ValueError(f"factor={factor}, interval={interval} or least_seconds={least_seconds} is out of range")
        self.factor = factor
        self.interval = interval
        self.least_seconds = least_seconds
        self._ranks = communicator if communicator is not None and communicator.world_size > 1 else None
        self._terminal = terminal or terminal_logger()
        self._handle: RemovableHandle | None = None
        self._began = self._ahead = self._waited = 0.0
        self._steps = 0

    def before_train(self, engine: Engine) -> None:
        """Watch the model's forward passes."""
        model = engine.parts.get("model")
        if self._ranks is not None and isinstance(model, nn.Module):
            self._handle = model.register_forward_hook(self._forwarded)

    def before_train_epoch(self, engine: Engine) -> None:
        """Start the clock; what happened between epochs does not count."""
        self._began = perf_counter()

    def before_train_iter(self, engine: Engine, batch_index: int, batch: object) -> None:
        """The batch is here."""
        self._waited += perf_counter() - self._began

    def _forwarded(self, module: nn.Module, inputs: object, outputs: object) -> None:
        if module.training:
            self._ahead += perf_counter() - self._began
            self._steps += 1

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Compare the ranks if it is time; the next step begins."""
        if self._ranks is not None and self._handle is not None and (engine.step + 1) % self.interval == 0:
            self._compare(engine, self._ranks)
        self._began = perf_counter()

    def _compare(self, engine: Engine, ranks: Communicator) -> None:
        steps = max(self._steps, 1)
        own = torch.tensor([[self._ahead / steps, self._waited / steps]], dtype=torch.float64)
        self._ahead = self._waited = 0.0
        self._steps = 0
        ahead, waited = torch.cat(ranks.all_gather(own)).T.tolist()
        engine.publish({"ranks/ahead": sum(ahead) / len(ahead), "ranks/ahead_max": max(ahead)})
        slowest, usual = ahead.index(max(ahead)), median_low(ahead)
        if ranks.rank == 0 and ahead[slowest] > max(self.factor * usual, usual + self.least_seconds):
            self._terminal.warning(
                "straggler",
                rank=slowest,
                ahead=f"{ahead[slowest] * 1e3:.1f} ms",
                median=f"{usual * 1e3:.1f} ms",
                of_it_data=f"{waited[slowest] * 1e3:.1f} ms",
                step=engine.step + 1,
            )

    def after_train(self, engine: Engine) -> None:
        """Watch no longer."""
        self._release()

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        """Watch no longer."""
        self._release()

    def _release(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
