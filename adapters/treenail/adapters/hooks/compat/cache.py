"""Gives memory of a GPU back that torch keeps for later."""

from __future__ import annotations

from typing import Literal

import torch

from treenail.adapters.hooks.compat.base import Hook
from treenail.adapters.hooks.compat.runner import Runner


class EmptyCacheHook(Hook):
    """Calls `torch.cuda.empty_cache`, in training, validation and test.

    It makes room for other processes on the GPU, and costs time: what torch kept, it must ask for again. Without a GPU it does
    nothing.

    Args:
        before_epoch: Before each epoch.
        after_epoch: After each epoch.
        after_iter: After each iteration.
    """

    def __init__(self, before_epoch: bool = False, after_epoch: bool = True, after_iter: bool = False) -> None:
        self._when = {"before_epoch": before_epoch, "after_epoch": after_epoch, "after_iter": after_iter}

    def _before_epoch(self, runner: Runner, mode: Literal["train", "val", "test"]) -> None:
        self._empty("before_epoch")

    def _after_epoch(self, runner: Runner, mode: Literal["train", "val", "test"]) -> None:
        self._empty("after_epoch")

    def _after_iter(
        self, runner: Runner, batch_idx: int, data_batch: object, outputs: object, mode: Literal["train", "val", "test"]
    ) -> None:
        self._empty("after_iter")

    def _empty(self, point: str) -> None:
        if self._when[point]:
            torch.cuda.empty_cache()
