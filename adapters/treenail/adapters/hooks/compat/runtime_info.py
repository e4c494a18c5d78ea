"""Tells the message hub how a run goes."""

from __future__ import annotations

from collections.abc import Mapping

from treenail.adapters.hooks.compat.base import Hook
from treenail.adapters.hooks.compat.runner import Runner
from treenail.adapters.hooks.compat.views import Outputs
from treenail.adapters.hooks.joining import join
from treenail.adapters.logging.compat import MessageHub
from treenail.adapters.optim import OptimWrapper, OptimWrapperDict


class RuntimeInfoHook(Hook):
    """Keeps the run's message hub up to date: epoch, iteration, their number, learning rates, losses, metrics.

    Any part of a program finds it by ``MessageHub.get_current_instance()``. The hub is saved in each checkpoint. A step that
    the optimizer skipped tells no loss.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._hub: MessageHub | None = None

    def before_run(self, runner: Runner) -> None:
        """Begin the hub."""
        self._hub = runner.message_hub
        for name in ("cfg", "seed", "experiment_name"):
            if hasattr(runner, name):
                self._hub.update_info(name, getattr(runner, name), resumed=False)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, object]) -> None:
        """Begin an empty hub where the run had none before."""
        join(runner.running, self, checkpoint)

    def before_train(self, runner: Runner) -> None:
        """Tell where a training begins, and how long it is."""
        names = ("epoch", "iter", "max_epochs", "max_iters")
        runner.message_hub.update_info_dict(
            {"loop_stage": "train", **{name: getattr(runner, name) for name in names if hasattr(runner, name)}}
        )

    def after_train(self, runner: Runner) -> None:
        """The training is over."""
        runner.message_hub.pop_info("loop_stage")

    def before_train_epoch(self, runner: Runner) -> None:
        """Tell the epoch."""
        runner.message_hub.update_info("epoch", runner.epoch)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Tell the iteration, and the learning rate of each optimizer's first group."""
        hub = runner.message_hub
        hub.update_info("iter", runner.iter)
        updater = runner.optim_wrapper
        if isinstance(updater, OptimWrapper | OptimWrapperDict):
            for name, rates in updater.get_lr().items():
                hub.update_scalar(f"train/{name}", rates[0])

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: Outputs | None = None
    ) -> None:
        """Tell what the step told."""
        if outputs is not None and outputs.step_output.stepped:
            told = outputs.step_output
            runner.message_hub.update_scalar("train/loss", told.loss)
            if told.logs:
                runner.message_hub.update_scalars({f"train/{name}": value for name, value in told.logs.items()})

    def before_val(self, runner: Runner) -> None:
        """A validation begins."""
        runner.message_hub.update_info("loop_stage", "val")

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        """Tell the metrics."""
        runner.message_hub.update_scalars({f"val/{name}": value for name, value in (metrics or {}).items()})

    def after_val(self, runner: Runner) -> None:
        """The training goes on, if there is one."""
        if "max_iters" in runner.message_hub.runtime_info:
            runner.message_hub.update_info("loop_stage", "train")
        else:
            runner.message_hub.pop_info("loop_stage")

    def before_test(self, runner: Runner) -> None:
        """A test begins."""
        runner.message_hub.update_info("loop_stage", "test")

    def after_test_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        """Tell the metrics."""
        runner.message_hub.update_scalars({f"test/{name}": value for name, value in (metrics or {}).items()})

    def after_test(self, runner: Runner) -> None:
        """The test is over."""
        runner.message_hub.pop_info("loop_stage")

    def state_dict(self) -> dict[str, object]:
        """Return the hub's state."""
        return self._hub.state_dict() if self._hub is not None else {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Give the hub what it knew.

        Raises:
            StateError: It is no state of a hub.
        """
        if self._hub is not None and state_dict:
            self._hub.load_state_dict(state_dict)
