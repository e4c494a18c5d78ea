"""Looks for losses and gradients that are not finite, and says what becomes of the training then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Annotated, Literal

import torch
from msgspec import Meta
from structlog.typing import FilteringBoundLogger
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from treenail.adapters.logging import terminal_logger
from treenail.adapters.optim import OptimWrapper, OptimWrapperDict
from treenail.adapters.parallel import needs_closure
from treenail.contracts import Skipped, StepOutput
from treenail.kernel import Communicator, Engine, Hook, TrainingError


class RollbackError(TrainingError):
    """A step failed: the run shall go back to its last checkpoint, and leave out this step's batch when it comes to it again.

    Any hook may raise it in `after_train_iter`, on every rank at the same step; `treenail.adapters.runtime.train` does what
    it says, other callers get an error.

    Args:
        message: Why.
        step: The step's number, from 0: `engine.step` while its hooks run.
    """

    def __init__(self, message: str, *, step: int) -> None:
        super().__init__(message, mend="only `train` of a whole run goes back by itself; resume from a checkpoint")
        self.step = step


class NonFiniteHook(Hook):
    """Acts at the step whose loss or gradients are not finite, before anything of it is logged or averaged.

    Looking at gradients is the updater's doing: the hook turns its `skip_nonfinite` on while it trains, so that such a step
    changes no parameter. In float16 gradients overflow now and then while the loss scale is found: that is no failure of such
    an updater, but for `max_consecutive` of them. Where the action is skip, torch's normalisations get their running
    statistics back, too.

    Args:
        action: stop: end the run with an error that names what is not finite. skip: leave out the update, and go on. rollback:
            go back to the last checkpoint, train again up to the batch that failed, and go on behind it (as Chowdhery et al.
            did by hand for PaLM, 2022, https://arxiv.org/abs/2204.02311, section 5.1).
        look_at: What must be finite. The loss of a step is known when its update was made; reading it waits for a GPU. skip
            looks at gradients only.
        max_consecutive: So many skipped steps in a row are tolerated.
        max_rollbacks: How often this process goes back.
        communicator: The ranks of the run, which decide together.
        terminal: A structlog logger for people; one that writes to standard error when None.

    Raises:
        ValueError: An argument is out of its range, or skip shall look at the loss alone.
        TrainingError: (before training) there is no updater that could skip a step, or its optimizer makes several in one;
            (while training) a step tells no loss.
    """

    priority = 5  # before whatever records a step

    def __init__(
        self,
        action: Literal["stop", "skip", "rollback"] = "stop",
        look_at: Literal["both", "loss", "gradients"] = "both",
        *,
        max_consecutive: Annotated[int, Meta(ge=1)] = 20,
        max_rollbacks: Annotated[int, Meta(ge=1)] = 3,
        communicator: Communicator | None = None,
        terminal: FilteringBoundLogger | None = None,
    ) -> None:
        if action not in ("stop", "skip", "rollback") or look_at not in ("both", "loss", "gradients"):
            raise ValueError(f"there is no {action=} with {look_at=}")
        if max_consecutive < 1 or max_rollbacks < 1:
            raise ValueError(f"{max_consecutive=} and {max_rollbacks=} must be at least 1")
        if action == "skip" and look_at == "loss":
            raise ValueError("an update is skipped for its gradients; with action skip, look_at cannot be loss")
        self.action = action
        self.look_at = look_at
        self.max_consecutive = max_consecutive
        self.max_rollbacks = max_rollbacks
        self._looks_at_loss = action != "skip" and look_at != "gradients"
        self._looks_at_gradients = look_at != "loss"
        self._ranks = communicator if communicator is not None and communicator.world_size > 1 else None
        self._terminal = terminal or terminal_logger()
        self._updaters: list[tuple[str, OptimWrapper]] = []
        self._turned_on: list[OptimWrapper] = []
        self._statistics: list[tuple[Tensor, Tensor]] = []
        self._skipped: list[int] = []
        self._consecutive = self._rollbacks = 0

    def before_train(self, engine: Engine) -> None:
        """Let the updaters skip what is not finite."""
        self._updaters = list(_named_updaters(engine))
        if self._looks_at_gradients:
            if not self._updaters:
                raise TrainingError(
                    "the engine has no part that is an OptimWrapper, which could tell whether gradients are finite",
                    mend="make it a part, or let look_at be loss",
                )
            for _, updater in self._updaters:
                _refuse_closure(updater.optimizer)
                if not updater.skip_nonfinite:
                    updater.skip_nonfinite = True
                    self._turned_on.append(updater)
        self._skipped = [updater.skipped for _, updater in self._updaters]
        self._consecutive = 0
        statistics = list(_running_statistics(engine)) if self.action == "skip" else []
        self._statistics = [(each, each.clone()) for each in statistics]

    def before_train_iter(self, engine: Engine, batch_index: int, batch: object) -> None:
        """Keep what a forward pass writes, where it may have to be undone."""
        for now, kept in self._statistics:
            kept.copy_(now)

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Look at the step, and act.

        Raises:
            TrainingError: It failed, or too many were skipped or rolled back; or it tells no loss.
            RollbackError: The run shall go back.
        """
        if not isinstance(outputs, StepOutput):
            raise TrainingError(
                f"the training step returned a {type(outputs).__name__}, so that nothing can be looked at",
                mend="return a StepOutput, or leave out the hook 'nonfinite'",
            )
        before, self._skipped = self._skipped, [updater.skipped for _, updater in self._updaters]
        skipped = [each for each, then, now in zip(self._updaters, before, self._skipped, strict=True) if now > then]
        lost = self._looks_at_loss and self._is_lost(outputs.loss)
        if not skipped and not lost:
            self._consecutive = 0
            return
        if skipped:
            self._consecutive += 1
            for now, kept in self._statistics:
                now.copy_(kept)
        failed = any(updater.loss_scaler is None for _, updater in skipped)
        if lost or (failed and self.action != "skip"):
            self._fail(engine, self._describe(engine, outputs, skipped))
        if self._consecutive > self.max_consecutive:
            raise TrainingError(
                f"{self._consecutive} steps in a row were skipped; {self._describe(engine, outputs, skipped)}",
                mend="lower the learning rate, or check the data and the loss; the last checkpoint is as it was",
            )
        if failed:
            self._warn(engine, "update skipped", self._describe(engine, outputs, skipped))

    def after_train(self, engine: Engine) -> None:
        """Leave the updaters as they were."""
        self._turn_off()

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        """Leave the updaters as they were."""
        self._turn_off()

    def _turn_off(self) -> None:
        for updater in self._turned_on:
            updater.skip_nonfinite = False
        self._turned_on.clear()

    def _is_lost(self, loss: Tensor | float) -> bool:
        """Return whether the loss of any rank is not finite."""
        lost = not isfinite(loss)
        if self._ranks is None:
            return lost
        return bool(self._ranks.all_reduce(torch.tensor([lost], dtype=torch.uint8), "max").item())

    def _fail(self, engine: Engine, found: str) -> None:
        if self.action == "rollback" and self._rollbacks < self.max_rollbacks:
            self._rollbacks += 1
            self._warn(engine, "rollback", found)
            raise RollbackError(found, step=engine.step)
        again = f" (rollbacks before it: {self._rollbacks})" if self._rollbacks else ""
        raise TrainingError(
            f"{found}{again}",
            mend="lower the learning rate, or check the data and the loss; the last checkpoint is as it was",
        )

    def _describe(self, engine: Engine, outputs: StepOutput, skipped: Sequence[tuple[str, OptimWrapper]]) -> str:
        """Say what is not finite in the step that was just made, and what it did to the parameters."""
        gradients = dict(_gradients(engine))
        names = [name for name, gradient in gradients.items() if not bool(gradient.isfinite().all())]
        text = f"step {engine.step + 1}: the loss is {float(outputs.loss):g}"
        if lost := [name for name, value in outputs.logs.items() if "loss" in name and not isfinite(float(value))]:
            text += f" (not finite: {', '.join(lost)})"
        if gradients:
            text += f", the norm of the gradients {float(torch.nn.utils.get_total_norm(gradients.values())):g}"
        if names:
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            text += f", not finite those of {', '.join(names[:4])}{more}"
        if len(self._updaters) > 1 and skipped:
            return "; ".join([text, *(f"'{name}' made no update{_reason(updater)}" for name, updater in skipped)])
        if skipped and not gradients:
            text += _reason(skipped[0][1])
        return f"{text}; its update was {'not ' if skipped else ''}made"

    def _warn(self, engine: Engine, event: str, found: str) -> None:
        if self._ranks is None or self._ranks.rank == 0:
            self._terminal.warning(event, step=engine.step + 1, found=found)


def updaters_of(engine: Engine) -> Iterator[OptimWrapper]:
    """Return the optimizer wrappers among an engine's parts, also those that lie under names in one part."""
    return (updater for _, updater in _named_updaters(engine))


def _named_updaters(engine: Engine) -> Iterator[tuple[str, OptimWrapper]]:
    for name, part in engine.parts.items():
        if isinstance(part, OptimWrapper):
            yield name, part
        elif isinstance(part, OptimWrapperDict):
            yield from part.items()


def _running_statistics(engine: Engine) -> Iterator[Tensor]:
    """Yield what torch's normalisations write in a forward pass."""
    for part in engine.parts.values():
        if isinstance(part, nn.Module):
            for module in part.modules():
                if isinstance(module, _NormBase):
                    yield from module.buffers()


def _reason(updater: OptimWrapper) -> str:
    # A model's own step may have updated once more after the update that was skipped.
    return f", {updater.outcome.reason}" if isinstance(updater.outcome, Skipped) else ""


def _refuse_closure(optimizer: Optimizer) -> None:
    if needs_closure(optimizer):
        raise TrainingError(
            f"{type(optimizer).__name__} evaluates the loss several times a step, and looks at no gradients before an update",
            mend="let look_at be loss",
        )


def _gradients(engine: Engine) -> Iterator[tuple[str, Tensor]]:
    """Yield the gradients that the step left, of spread parameters this rank's part, by the parameters' names."""
    for part_name, part in engine.parts.items():
        if isinstance(part, nn.Module):
            prefix = "" if part_name == "model" else f"{part_name}."
            for name, parameter in part.named_parameters():
                if (gradient := parameter.grad) is not None:
                    yield prefix + name, gradient.to_local() if hasattr(gradient, "to_local") else gradient
