"""Lets ranks agree on buffers."""

from __future__ import annotations

from treenail.adapters.comm import all_reduce_params
from treenail.adapters.hooks.compat.base import Hook
from treenail.adapters.hooks.compat.runner import Runner


class SyncBuffersHook(Hook):
    """Gives all ranks the mean of their buffers after each epoch: running means and variances of batch normalisation.

    Without it each rank goes on with its own, and validation, test and checkpoints have those of rank 0. Integers, such as the
    number of batches seen, are left as they are.
    """

    def after_train_epoch(self, runner: Runner) -> None:
        """Exchange the buffers.

        Raises:
            CommunicationError: Another rank failed, or has other buffers.
        """
        if runner.distributed:
            floating = [buffer for buffer in runner.model.buffers() if buffer.is_floating_point()]
            all_reduce_params(runner.communicator, floating, op="mean")
