"""Hooks: timing, logging, progress, schedules, checkpoints, best metric, curves."""

from treenail.adapters.hooks.averaging import AveragingHook, EMAHook
from treenail.adapters.hooks.best import BestHook
from treenail.adapters.hooks.checkpoint import CheckpointHook
from treenail.adapters.hooks.logger import LoggerHook
from treenail.adapters.hooks.nonfinite import NonFiniteHook, RollbackError
from treenail.adapters.hooks.progress import ProgressHook
from treenail.adapters.hooks.schedule import BoundSchedule, ScheduleHook, Schedules
from treenail.adapters.hooks.stragglers import StragglerHook
from treenail.adapters.hooks.timer import TimerHook
from treenail.adapters.hooks.vis import VisHook

__all__ = [
    "AveragingHook",
    "BestHook",
    "BoundSchedule",
    "CheckpointHook",
    "EMAHook",
    "LoggerHook",
    "NonFiniteHook",
    "ProgressHook",
    "RollbackError",
    "ScheduleHook",
    "Schedules",
    "StragglerHook",
    "TimerHook",
    "VisHook",
]
