"""The twenty root registries, filled with what configs can name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treenail.adapters.config import Catalog
from treenail.adapters.registries.mmengine.build import (
    build_model_from_cfg,
    build_runner_from_cfg,
    build_scheduler_from_cfg,
)
from treenail.adapters.registries.mmengine.registry import Registry
from treenail.kernel import Registry as Core


class RootRegistries:
    """The registries that all others descend from, of the scope ``mmengine``.

    Those that correspond to a port of a config share the catalog's registry of that port: they know what configs can name,
    every optimizer of torch for instance, and what is registered in them can be named by a config that is read with that
    catalog. The original keeps the registries in globals; here the one who makes them says where they live.

    Args:
        catalog: The adapters; those of every installed package when None.

    Attributes:
        RUNNERS: What runs a whole training.
        RUNNER_CONSTRUCTORS: What makes runners.
        LOOPS: Flows of training, validation and test; the port ``loop``.
        HOOKS: What is called at points of a loop; the port ``hook``.
        DATASETS: The port ``dataset``.
        DATA_SAMPLERS: Orders of a dataset's indices; the port ``sampler``.
        TRANSFORMS: What changes a sample.
        MODELS: Models and their parts; the port ``module``.
        MODEL_WRAPPERS: What wraps a model, to distribute it for example.
        WEIGHT_INITIALIZERS: What initializes weights; the port ``weight_initializer``.
        OPTIMIZERS: The port ``optimizer``.
        OPTIM_WRAPPER: What carries out the steps of an optimizer.
        OPTIM_WRAPPER_CONSTRUCTORS: What makes those.
        PARAM_SCHEDULERS: Schedules of an optimizer's parameters; the port ``scheduler``.
        METRICS: The port ``metric``.
        EVALUATOR: What computes one or several metrics.
        TASK_UTILS: What belongs to a task.
        VISUALIZERS: What draws.
        VISBACKENDS: Where curves and images go; the port ``vis``.
        LOG_PROCESSORS: What makes log lines of numbers.
    """

    def __init__(self, catalog: Catalog | None = None) -> None:
        self._catalog = Catalog() if catalog is None else catalog
        self.RUNNERS = self._root("runner", build_func=build_runner_from_cfg)
        self.RUNNER_CONSTRUCTORS = self._root("runner constructor")
        self.LOOPS = self._root("loop", "loop")
        self.HOOKS = self._root("hook", "hook")
        self.DATASETS = self._root("dataset", "dataset")
        self.DATA_SAMPLERS = self._root("data sampler", "sampler")
        self.TRANSFORMS = self._root("transform")
        self.MODELS = self._root("model", "module", build_func=build_model_from_cfg)
        self.MODEL_WRAPPERS = self._root("model_wrapper")
        self.WEIGHT_INITIALIZERS = self._root("weight initializer", "weight_initializer")
        self.OPTIMIZERS = self._root("optimizer", "optimizer")
        self.OPTIM_WRAPPER = self._root("optim_wrapper")
        self.OPTIM_WRAPPER_CONSTRUCTORS = self._root("optimizer wrapper constructor")
        self.PARAM_SCHEDULERS = self._root("parameter scheduler", "scheduler", build_func=build_scheduler_from_cfg)
        self.METRICS = self._root("metric", "metric")
        self.EVALUATOR = self._root("evaluator")
        self.TASK_UTILS = self._root("task util")
        self.VISUALIZERS = self._root("visualizer")
        self.VISBACKENDS = self._root("vis_backend", "vis")
        self.LOG_PROCESSORS = self._root("log_processor", "log_processor")

    @property
    def OPTIM_WRAPPERS(self) -> Registry[Any]:  # noqa: N802  # as the other roots are called
        """The other name of `OPTIM_WRAPPER`."""
        return self.OPTIM_WRAPPER

    def by_name(self) -> dict[str, Registry[Any]]:
        """Return the root registries by their names, in their order."""
        return {name: each for name, each in vars(self).items() if isinstance(each, Registry)}

    def _root(
        self, name: str, port: str | None = None, *, build_func: Callable[..., object] | None = None
    ) -> Registry[Any]:  # Any: what a root builds is known to the config that names it, seed code uses it uncast
        core: Core[Any] = self._catalog.registry(port) if port is not None else Core(name)
        return Registry(name, build_func=build_func, scope="mmengine", core=core)
