"""mmengine's hooks under their names and with their arguments, and what hooks written for mmengine need to run here."""

from treenail.adapters.hooks.compat.base import Hook
from treenail.adapters.hooks.compat.buffers import SyncBuffersHook
from treenail.adapters.hooks.compat.cache import EmptyCacheHook
from treenail.adapters.hooks.compat.checkpoint import CheckpointHook
from treenail.adapters.hooks.compat.early_stopping import EarlyStoppingHook
from treenail.adapters.hooks.compat.logger import LineFormat, LoggerHook
from treenail.adapters.hooks.compat.priority import Priority, get_priority
from treenail.adapters.hooks.compat.runner import Runner, bind_runner, runner_of
from treenail.adapters.hooks.compat.runtime_info import RuntimeInfoHook
from treenail.adapters.hooks.compat.schedule import DistSamplerSeedHook, ParamSchedulerHook
from treenail.adapters.hooks.compat.timer import IterTimerHook
from treenail.adapters.hooks.compat.views import EvaluationView, Outputs, TrainLoop, Visualizer
from treenail.adapters.hooks.compat.visualization import NaiveVisualizationHook

__all__ = [
    "CheckpointHook",
    "DistSamplerSeedHook",
    "EarlyStoppingHook",
    "EmptyCacheHook",
    "EvaluationView",
    "Hook",
    "IterTimerHook",
    "LineFormat",
    "LoggerHook",
    "NaiveVisualizationHook",
    "Outputs",
    "ParamSchedulerHook",
    "Priority",
    "Runner",
    "RuntimeInfoHook",
    "SyncBuffersHook",
    "TrainLoop",
    "Visualizer",
    "bind_runner",
    "get_priority",
    "runner_of",
]
