"""Makes log lines of what a hub has collected."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence, Sized
from datetime import timedelta
from math import isfinite
from typing import Annotated, Any, Final, Literal, Protocol

from msgspec import Meta

from treenail.adapters.logging.compat.errors import ConflictError, KindError, UnknownNameError
from treenail.adapters.logging.compat.history import HistoryBuffer

Mode = Literal["train", "val", "test"]
_TIMES: Final = ("time", "data_time")


# Any, here and below: a statistic is what its registered function returns, information is whatever somebody told
class Buffer(Protocol):
    """The part of a `HistoryBuffer` that a log line needs."""

    def current(self) -> Any:
        """Return the latest value."""
        ...

    def mean(self, window_size: int | None = None) -> Any:
        """Return the mean of the last values."""
        ...

    def statistics(self, method_name: str, *arg: Any, **kwargs: Any) -> Any:
        """Return a statistic by its name."""
        ...


class Hub(Protocol):
    """The part of a `MessageHub` that a log line needs."""

    @property
    def log_scalars(self) -> Mapping[str, Any]:
        """Buffers by name."""
        ...

    @property
    def runtime_info(self) -> Mapping[str, Any]:
        """Information by name; ``eta`` is the seconds left."""
        ...


class LoggedRun(Protocol):
    """The part of mmengine's Runner that a log line needs; its Runner is one."""

    @property
    def message_hub(self) -> Hub:
        """What was told."""
        ...

    @property
    def epoch(self) -> int:
        """Training epochs completed."""
        ...

    @property
    def iter(self) -> int:
        """Training iterations completed."""
        ...

    @property
    def max_epochs(self) -> int:
        """Training epochs of the whole run."""
        ...

    @property
    def max_iters(self) -> int:
        """Training iterations of the whole run."""
        ...


class LogProcessor:
    """Makes (values by name, log line) of a hub's scalars; mmengine's class of this name.

    Without `custom_cfg`, scalars whose names match `mean_pattern` are means over the window, others their latest values.

    Args:
        window_size: Updates over which to take a mean.
        by_epoch: Whether lines count iterations in epochs, as the training must then do.
        custom_cfg: Other statistics. Each is a dict of ``data_src``, the scalar's name without ``train/``, ``val/`` or
            ``test/``; ``method_name``, a statistic of `HistoryBuffer`; ``log_name``, the name under which it is logged
            besides, or else it is logged in the scalar's place; and what else the statistic takes. ``window_size`` may be a
            number, ``"epoch"`` (the updates of the epoch, if there is one an iteration) or ``"global"``.
        num_digits: Digits after the point.
        log_with_hierarchy: Whether the names of the values keep ``train/``, ``val/`` and ``test/``.
        mean_pattern: Regular expression; it may match anywhere in the name.

    Raises:
        ConflictError: Two statistics have the same name, one lacks data_src or method_name, or counts epochs where by_epoch
            is false; also an AssertionError.
        KindError: A window_size is none of the above; also a TypeError.
        ValueError: A window_size or num_digits is too small, or the pattern is none.

    References:
        https://mmengine.readthedocs.io/en/latest/advanced_tutorials/logging.html
    """

    def __init__(
        self,
        window_size: Annotated[int, Meta(ge=1)] = 10,
        by_epoch: bool = True,
        custom_cfg: Sequence[Mapping[str, Any]] | None = None,
        num_digits: Annotated[int, Meta(ge=0)] = 4,
        log_with_hierarchy: bool = False,
        mean_pattern: str = r".*(loss|time|data_time|grad_norm).*",
    ) -> None:
        if window_size < 1:
            raise ValueError(f"window_size is {window_size}, must be at least 1")
        if num_digits < 0:
            raise ValueError(f"num_digits is {num_digits}, must be at least 0")
        try:
            self.mean_pattern = re.compile(mean_pattern)
        except re.error as error:
            raise ValueError(f"mean_pattern {mean_pattern!r} is no regular expression: {error}") from error
        self.window_size = window_size
        self.by_epoch = by_epoch
        self.custom_cfg = [dict(each) for each in custom_cfg or ()]
        self.num_digits = num_digits
        self.log_with_hierarchy = log_with_hierarchy
        names: set[str] = set()
        for number, each in enumerate(self.custom_cfg):
            _check(f"custom_cfg[{number}]", each, by_epoch=by_epoch)
            name = each.get("log_name", each["data_src"])
            if name in names:
                raise ConflictError(
                    f"custom_cfg[{number}] logs '{name}', which another entry logs, too",
                    mend="give it a log_name of its own",
                )
            names.add(name)

    def check_statistics(self) -> None:
        """Check that there are the statistics of `custom_cfg`, once all that a program registers is registered.

        Raises:
            ConflictError: There is none of a name, or it takes other arguments; also an AssertionError.
        """
        for number, each in enumerate(self.custom_cfg):
            asked = {name: value for name, value in each.items() if name not in ("data_src", "log_name")}
            try:
                HistoryBuffer.check_statistics(**asked)
            except (UnknownNameError, KindError) as error:
                raise ConflictError(error.message, where=f"custom_cfg[{number}]", mend=error.mend) from None

    def get_log_after_iter(self, runner: LoggedRun, batch_idx: int, mode: Mode) -> tuple[dict[str, Any], str]:
        """Return the values and the line of an iteration.

        Args:
            runner: The run.
            batch_idx: The iteration's number in its epoch, validation or test, from 0.
            mode: What is under way.

        Raises:
            ValueError: mode is none of train, val, test.
        """
        _check_mode(mode, ("train", "val", "test"))
        values = self._scalars(self.custom_cfg, runner.message_hub, batch_idx, mode)
        tag = {self._shown(mode, name): value for name, value in values.items()}
        if self.by_epoch and mode != "test":
            tag["epoch"] = _epoch(runner, mode)
        # In training the iteration under way counts. mmengine 0.10.7 adds it in validation and test, too, where there is none.
        tag["iter"] = runner.iter + 1 if mode == "train" else runner.iter
        parts = [self._header(runner, batch_idx, mode)]
        rates = [name for name in values if name.endswith("lr")]
        parts += [f"{name}: {values.pop(name):.{self.num_digits}e}" for name in rates]
        if all(name in values for name in _TIMES):
            if "eta" in runner.message_hub.runtime_info:
                parts.append(f"eta: {_duration(runner.message_hub.runtime_info['eta'])}")
            parts += [self._item(name, values.pop(name)) for name in _TIMES]
        memory = _gpu_memory()
        if memory is not None:
            tag["memory"] = memory
            parts.append(f"memory: {memory}")
        # In the middle of a validation its metrics are those of the one before, but its losses are its own.
        parts += [
            self._item(name, value)
            for name, value in values.items()
            if mode == "train" or (mode == "val" and name.startswith("loss"))
        ]
        return tag, "  ".join(parts)

    def get_log_after_epoch(
        self, runner: LoggedRun, batch_idx: int, mode: Literal["val", "test"], with_non_scalar: bool = False
    ) -> tuple[dict[str, Any], str]:
        """Return the values and the line of a validation or a test: metrics first, then times, which are means over all of it.

        Args:
            runner: The run.
            batch_idx: The last iteration's number, from 0.
            mode: What is done.
            with_non_scalar: Whether the values hold information besides the scalars; the line does.

        Raises:
            ValueError: mode is neither val nor test.
        """
        _check_mode(mode, ("val", "test"))
        custom = {each["data_src"] for each in self.custom_cfg}
        times = [
            {"data_src": name, "window_size": "epoch", "method_name": "mean"} for name in _TIMES if name not in custom
        ]
        values = self._scalars([*self.custom_cfg, *times], runner.message_hub, batch_idx, mode)
        shown = {self._shown(mode, name): value for name, value in values.items() if name not in _TIMES}
        others = {self._shown(mode, name): value for name, value in _of(mode, runner.message_hub.runtime_info).items()}
        last = {self._shown(mode, name): value for name, value in values.items() if name in _TIMES}
        parts = [self._header(runner, batch_idx, mode, whole=True)]
        parts += [self._item(name, value) for name, value in {**shown, **others, **last}.items()]
        return {**shown, **(others if with_non_scalar else {}), **last}, "  ".join(parts)

    def _scalars(self, custom: Sequence[Mapping[str, Any]], hub: Hub, batch_idx: int, mode: Mode) -> dict[str, Any]:
        buffers: dict[str, Buffer] = _of(mode, hub.log_scalars)
        values = {
            name: buffer.mean(self.window_size) if self.mean_pattern.search(name) else buffer.current()
            for name, buffer in buffers.items()
        }
        for each in custom:
            rest = dict(each)
            name = rest.pop("data_src")
            log_name = rest.pop("log_name", name)
            if name not in buffers:  # a scalar of another mode
                continue
            if rest.get("window_size") == "epoch":
                rest["window_size"] = batch_idx + 1
            elif rest.get("window_size") == "global":
                # Not runner.iter + 1, as in mmengine 0.10.7: a scalar may be updated more than once in an iteration.
                rest["window_size"] = sys.maxsize
            values[log_name] = buffers[name].statistics(**rest)
        return values

    def _header(self, runner: LoggedRun, batch_idx: int, mode: Mode, *, whole: bool = False) -> str:
        if mode == "train" and not self.by_epoch:
            done, length = runner.iter + 1, str(runner.max_iters)
        else:
            length = _length(runner, mode)
            done = int(length) if whole and length.isdigit() else batch_idx + 1
        iterations = f"[{done:>{len(length)}}/{length}]"
        if not self.by_epoch:
            return f"Iter({mode}) {iterations}"
        if mode == "test":
            return f"Epoch(test) {iterations}"
        epoch = f"[{_epoch(runner, mode)}]"
        return f"Epoch({mode}) {epoch:>{len(str(runner.max_epochs)) + 2}}{iterations}"

    def _item(self, name: str, value: object) -> str:
        if isinstance(value, float):
            return f"{name}: {value:.{self.num_digits}f}"
        shape = getattr(value, "shape", ())  # a tensor or an array gets lines of its own
        return f"{name}: \n{value}\n" if shape else f"{name}: {value}"

    def _shown(self, mode: Mode, name: str) -> str:
        return f"{mode}/{name}" if self.log_with_hierarchy else name


def _check(where: str, statistic: Mapping[str, Any], *, by_epoch: bool) -> None:
    for field in ("data_src", "method_name"):
        if not isinstance(statistic.get(field), str):
            raise ConflictError(f"{where} needs a name as {field}", mend="write {data_src: loss, method_name: mean, …}")
    size = statistic.get("window_size")
    if size == "epoch" and not by_epoch:
        raise ConflictError(
            f"{where} has window_size 'epoch', but by_epoch is false", mend="write a number or 'global'"
        )
    if size in (None, "epoch", "global"):
        return
    if not isinstance(size, int):
        raise KindError(f"{where} has window_size {size!r}, must be a number, 'epoch' or 'global'")
    if size < 1:
        raise ValueError(f"{where} has window_size {size}, must be at least 1")


def _check_mode(mode: str, modes: tuple[str, ...]) -> None:
    if mode not in modes:
        raise ValueError(f"mode is '{mode}', must be one of {', '.join(modes)}")


def _of(mode: Mode, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a mode's names stand for, by the rest of the name."""
    prefix = f"{mode}/"  # mmengine 0.10.7 looks for the mode alone, so that 'value' belongs to val
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _epoch(runner: LoggedRun, mode: Mode) -> int:
    return runner.epoch + 1 if mode == "train" else runner.epoch


def _length(runner: LoggedRun, mode: Mode) -> str:
    """Return how many iterations there are, ``?`` where nobody knows."""
    try:
        if mode == "train" and isinstance(length := getattr(runner, "epoch_length", None), int):
            return str(length)
        loader: Sized = getattr(runner, f"{mode}_dataloader")
        return str(len(loader))
    except (AttributeError, TypeError):  # a loader of data without a length has none, either
        return "?"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds))) if isfinite(seconds) else "unknown"


def _gpu_memory() -> int | None:
    """Return the most memory that tensors of this process took on the current GPU, in MiB; None without a GPU in use."""
    import torch

    return torch.cuda.max_memory_allocated() // 2**20 if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]  # torch left it


__all__ = ["LogProcessor", "LoggedRun"]
