"""Hooks: timing, logging, progress, schedules, checkpoints, best metric, curves."""

from treenail.adapters.hooks.averaging import AveragingHook, EMAHook
from treenail.adapters.hooks.best import BestHook
from treenail.adapters.hooks.checkpoint import CheckpointHook
from treenail.adapters.hooks.early_stopping import EarlyStoppingHook
from treenail.adapters.hooks.histograms import HistogramHook
from treenail.adapters.hooks.logger import LoggerHook
from treenail.adapters.hooks.lr_watch import LearningRateWatchHook
from treenail.adapters.hooks.memory import MemoryHook
from treenail.adapters.hooks.messages import Email, Webhook
from treenail.adapters.hooks.nonfinite import NonFiniteHook, RollbackError
from treenail.adapters.hooks.notify import NotifyHook
from treenail.adapters.hooks.probe import ProbeHook
from treenail.adapters.hooks.probe_data import ProbeData
from treenail.adapters.hooks.probed import ProbedModule, probe_data, register_probe
from treenail.adapters.hooks.profiler import ProfilerHook
from treenail.adapters.hooks.progress import ProgressHook
from treenail.adapters.hooks.requeue import RequeueHook
from treenail.adapters.hooks.schedule import BoundSchedule, ScheduleHook, Schedules
from treenail.adapters.hooks.stragglers import StragglerHook
from treenail.adapters.hooks.throughput import ThroughputHook
from treenail.adapters.hooks.timer import TimerHook
from treenail.adapters.hooks.vis import VisHook

__all__ = [
    "AveragingHook",
    "BestHook",
    "BoundSchedule",
    "CheckpointHook",
    "EMAHook",
    "EarlyStoppingHook",
    "Email",
    "HistogramHook",
    "LearningRateWatchHook",
    "LoggerHook",
    "MemoryHook",
    "NonFiniteHook",
    "NotifyHook",
    "ProbeData",
    "ProbeHook",
    "ProbedModule",
    "ProfilerHook",
    "ProgressHook",
    "RequeueHook",
    "RollbackError",
    "ScheduleHook",
    "Schedules",
    "StragglerHook",
    "ThroughputHook",
    "TimerHook",
    "VisHook",
    "Webhook",
    "probe_data",
    "register_probe",
]
