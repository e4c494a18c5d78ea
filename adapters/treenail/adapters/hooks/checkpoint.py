"""Asks for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Annotated, Final, Literal, NamedTuple

import torch
from msgspec import Meta
from torch import Tensor, nn

from treenail.adapters.checkpoint import RankCheckpointer, publish
from treenail.adapters.hooks.best import GREATER_KEYS, LESS_KEYS, BestHook
from treenail.kernel import Communicator, Engine, EngineError, Hook, TrainingError

_MODES: Final[dict[str | None, Literal["max", "min"] | None]] = {"greater": "max", "less": "min", None: None}
_FARTHEST: Final = 1024
"""Most steps between two looks at the clock that ranks take together."""


class CheckpointHook(Hook):
    """Requests a checkpoint every so many epochs, steps or seconds, and one when training ends or is stopped.

    A checkpoint of an epoch is taken before the epoch's validation, so that a failing validation loses nothing.

    Args:
        interval: How many epochs, steps or seconds lie between two; None: none are taken but the last and the best.
        by: What is counted.
        begin: The epoch or step from which on it is counted.
        save_last: Save when training ends; when it is stopped before, that is saved in any case.
        save_best: Names of validation metrics, of which the best checkpoints are kept under pointers; ``auto`` is the first
            metric. It attaches a `BestHook` named ``best``.
        rule: Whether a greater or a lesser value is better; one for all metrics, or one for each. None: as their names say.
        greater_keys: What such a metric's name is, or contains, if greater is better.
        less_keys: The same, if less is better.
        keep_best: How many checkpoints are kept of each metric.
        published: Of which checkpoints the weights are written to one file of safetensors at the end of the run, averaged ones
            if there are averages: ``published/step-00000200-0a1b2c3d.safetensors``, with the beginning of its SHA-256.
        communicator: The ranks of the run; needed where several count seconds.
    """

    priority = 90

    def __init__(
        self,
        interval: Annotated[int, Meta(ge=1)] | None = 1,
        by: Literal["epoch", "step", "second"] = "epoch",
        *,
        begin: Annotated[int, Meta(ge=0)] = 0,
        save_last: bool = True,
        save_best: str | tuple[str, ...] | None = None,
        rule: Literal["greater", "less"] | tuple[Literal["greater", "less"] | None, ...] | None = None,
        greater_keys: tuple[str, ...] = GREATER_KEYS,
        less_keys: tuple[str, ...] = LESS_KEYS,
        keep_best: Annotated[int, Meta(ge=1)] = 1,
        published: tuple[Literal["last", "best"], ...] = (),
        communicator: Communicator | None = None,
    ) -> None:
        if interval is not None and interval < 1:
            raise ValueError(f"interval is {interval}, must be at least 1")
        if by not in ("epoch", "step", "second"):
            raise ValueError(f"by is '{by}', must be 'epoch', 'step' or 'second'")
        if begin < 0 or (begin and by == "second"):
            raise ValueError(f"begin is {begin}: it counts epochs or steps")
        if save_best is None and rule is not None:
            raise ValueError("rule is of save_best, and there is none")
        if wrong := set(published) - {"last", "best"}:
            raise ValueError(f"published has '{min(wrong)}', must be of 'last' and 'best'")
        if "best" in published and save_best is None:
            raise ValueError("the best cannot be published: save_best says no metric")
        rules = tuple(rule) if isinstance(rule, tuple | list) else (rule,)
        if unknown := [each for each in rules if each not in _MODES]:
            raise ValueError(f"rule is '{unknown[0]}', must be 'greater' or 'less'")
        self.interval = interval
        self.by = by
        self.begin = begin
        self.save_last = save_last
        self.published = published
        modes = tuple(_MODES[each] for each in rules)
        self.best_hook = (
            None
            if save_best is None
            else BestHook(
                save_best,
                modes if isinstance(rule, tuple | list) else modes[0],
                keep=keep_best,
                greater_keys=greater_keys,
                less_keys=less_keys,
            )
        )
        self._measured: object = None
        self._saved = False  # in this attempt
        self._clock = _Clock(interval, communicator) if by == "second" and interval is not None else None
        if by == "epoch" or interval is None:
            self.idle = ("after_train_iter",)

    def before_run(self, engine: Engine) -> None:
        """Attach the hook that looks for the best.

        Raises:
            EngineError: The config has another one of that name.
        """
        if self.best_hook is None:
            return
        if (found := engine.hooks.get("best")) is None:
            engine.attach(self.best_hook, "best")
        elif found is not self.best_hook:
            raise EngineError("there are save_best and a hook 'best' of its own", mend="leave out one of them")

    def before_train(self, engine: Engine) -> None:
        """Begin to count seconds."""
        self._measured, self._saved = _measured(engine), False
        if self._clock is not None:
            self._clock.begin()

    def _is_due(self, done: int) -> bool:
        return self.interval is not None and done >= self.begin and (done - self.begin) % self.interval == 0

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Request one if enough steps were made, or enough time has passed."""
        if self.by == "step":
            if self._is_due(engine.step + 1):
                engine.request_checkpoint(f"every {self.interval} steps")
        elif self._clock is not None and self._clock.is_due():
            engine.request_checkpoint(f"every {self.interval} seconds")

    def after_train_epoch(self, engine: Engine) -> None:
        """Request one if enough epochs were made."""
        if self.by == "epoch" and self._is_due(engine.epoch + 1):
            engine.request_checkpoint(f"every {self.interval} epochs")

    def before_save_checkpoint(self, engine: Engine, checkpoint: dict[str, object]) -> None:
        """Refuse to save a model that is lost, so that retention does not remove the last good one for it.

        Raises:
            TrainingError: A parameter of the part ``model`` is not finite, or a buffer that is saved has a NaN. A
                `RankCheckpointer` finds it in its copy, in the background, and raises as when it cannot write.
        """
        self._measured, self._saved = _measured(engine), True
        model, saved = engine.parts.get("model"), checkpoint.get("model")
        if not isinstance(model, nn.Module):
            return
        saved = saved if isinstance(saved, dict) else {}
        watched = {name: _Watched(f"the parameter '{name}'", each, True) for name, each in model.named_parameters()}
        for name, buffer in model.named_buffers():
            if name in saved:  # one may be infinite on purpose, as a mask for attention is
                watched[name] = _Watched(f"the buffer '{name}'", buffer, False)
        checkpointer, step = engine.checkpointer, engine.step
        if isinstance(checkpointer, RankCheckpointer):
            copied = {name: each for name, each in watched.items() if _is_saved_as(each.tensor, saved.get(name))}
            watched = {name: each for name, each in watched.items() if name not in copied}

            def check_copies(copies: Mapping[str, Tensor]) -> None:
                for name, each in copied.items():
                    each.check(copies[name], step)

            if copied:
                checkpointer.check_copy("model", check_copies)  # the training does not wait for it
        for each in watched.values():
            each.check(each.tensor, step)

    def after_train(self, engine: Engine) -> None:
        """Request the last one, unless this very state is saved."""
        if (self.save_last or engine.stop_reason is not None) and not self._is_saved(engine):
            engine.request_checkpoint(engine.stop_reason or "end of training")

    def _is_saved(self, engine: Engine) -> bool:
        """Return whether nothing happened since the last save, or since the checkpoint that was resumed."""
        if engine.stop_reason is not None and self._saved:
            return False  # the checkpoint of a stop says why
        changed = self._measured != _measured(engine) or any(map(_may_end_otherwise, engine.hooks.values()))
        checkpointer = engine.checkpointer
        return not changed and isinstance(checkpointer, RankCheckpointer) and checkpointer.is_saved(engine.commits)

    def after_run(self, engine: Engine) -> None:
        """Publish the weights that shall be.

        Raises:
            CheckpointError: There is no such checkpoint, or the files cannot be written.
        """
        if (
            not self.published
            or engine.stop_reason is not None
            or not isinstance(engine.checkpointer, RankCheckpointer)
        ):
            return
        names = {"last": "latest", "best": "best"}
        for each in dict.fromkeys(self.published):
            publish(engine.checkpointer, names[each])


def _measured(engine: Engine) -> object:
    """Return for which averages statistics have been measured, as may happen when the training ends."""
    return getattr(engine.parts.get("averages"), "measured", None)


def _may_end_otherwise(hook: object) -> bool:
    """Return whether a hook is somebody's that may change the state when the training ends."""
    of_ours = type(hook).__module__.startswith("treenail.")
    return not of_ours and getattr(type(hook), "after_train", Hook.after_train) is not Hook.after_train


class _Clock:
    """Tells when seconds have passed; on several ranks, at the same step for all, by the clock of rank 0.

    Ranks meet for it as rarely as the time that is left allows.

    Args:
        interval: Seconds.
        communicator: The ranks; one process when None.
    """

    def __init__(self, interval: float, communicator: Communicator | None) -> None:
        self._interval = interval
        self._ranks = communicator if communicator is not None and communicator.world_size > 1 else None
        self.begin()

    def begin(self) -> None:
        """Count from now on."""
        self._since = self._looked = monotonic()
        self._steps = self._left = 1

    def is_due(self) -> bool:
        """Return whether the time is over, and if so begin anew; called once a step."""
        self._left -= 1
        if self._left:
            return False
        now = monotonic()
        over = now - self._since >= self._interval
        if self._ranks is not None:
            step = max((now - self._looked) / self._steps, 1e-6)
            rest = self._interval if over else self._interval - (now - self._since)
            ahead = max(1, min(int(rest / step / 2), 2 * self._steps, _FARTHEST))
            told = torch.tensor([float(over), float(ahead)] if self._ranks.rank == 0 else [0.0, 0.0])
            is_over, steps = self._ranks.all_reduce(told, "max").tolist()
            over, self._steps, self._looked = bool(is_over), int(steps), now
        self._left = self._steps
        if over:
            self._since = now
        return over


class _Watched(NamedTuple):
    """A tensor of the model that must not be lost.

    Args:
        what: For a message.
        tensor: Of the model.
        finite: Whether it must have no infinity, either.
    """

    what: str
    tensor: Tensor
    finite: bool

    def check(self, content: Tensor, step: int) -> None:
        """Raise if what it holds is lost."""
        if not _has_bounds(content, finite=self.finite):
            raise TrainingError(
                f"{self.what} is not finite after step {step}; this state was not saved",
                mend="lower the learning rate, or check the data and the loss, and --resume",
            )


def _is_saved_as(tensor: Tensor, saved: object) -> bool:
    """Tell whether a plain tensor of the state is the model's own, not one that its state_dict made."""
    return (
        isinstance(saved, Tensor)
        and type(saved) in (Tensor, nn.Parameter)
        and (saved.device, saved.data_ptr(), saved.shape, saved.dtype)
        == (tensor.device, tensor.data_ptr(), tensor.shape, tensor.dtype)
    )


def _has_bounds(tensor: Tensor, *, finite: bool) -> bool:
    """Return whether a tensor has no NaN and, if asked, no infinity; by one pass that makes no copy where torch has one."""
    real = tensor.is_floating_point()
    if not (real or tensor.is_complex()) or tensor.numel() == 0:
        return True
    if real and type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided and tensor.dtype.itemsize > 1:
        least, most = tensor.detach().aminmax()  # a NaN becomes both
        return bool(torch.isfinite(least) & torch.isfinite(most)) if finite else not bool(least.isnan())
    return bool(torch.isfinite(tensor).all()) if finite else not bool(tensor.isnan().any())
