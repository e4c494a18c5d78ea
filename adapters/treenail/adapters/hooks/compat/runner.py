"""What hooks written for mmengine see of a run: its state under the names that mmengine's Runner has for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from inspect import signature
from pathlib import Path
from time import strftime
from typing import NoReturn, Protocol, TypeVar, runtime_checkable
from uuid import uuid4

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from treenail.adapters.comm import current_communicator
from treenail.adapters.hooks.compat.views import EvaluationView, Metrics, Outputs, TrainLoop, Visualizer
from treenail.adapters.hooks.schedule import Schedules
from treenail.adapters.logging.compat import LogProcessor, MessageHub, MMLogger
from treenail.adapters.optim import OptimWrapperDict
from treenail.adapters.trees import ConfigTree
from treenail.contracts import StepOutput
from treenail.kernel import Communicator, Engine, EngineError, Stateful, VisBackend, did_you_mean

T = TypeVar("T")


@runtime_checkable
class SeesRunner(Protocol):
    """A hook that looks at a run through a `Runner`."""

    runner_view: Runner | None


def runner_of(engine: Engine, hook: SeesRunner) -> Runner:
    """Return the view of an engine's run, which is the same for all of its hooks.

    Args:
        engine: The engine.
        hook: Who asks, one of its hooks.
    """
    mine = hook.runner_view
    if mine is not None and mine.engine is engine:
        return mine
    views = [each.runner_view for each in engine.hooks.values() if isinstance(each, SeesRunner)]
    found = next((view for view in views if view is not None and view.engine is engine), None)
    if found is None:
        found = mine if mine is not None and mine.engine is None else Runner()
        found.engine = engine
    hook.runner_view = found
    return found


def bind_runner(
    hooks: Iterable[object],
    *,
    work_dir: Path | None = None,
    config: Mapping[str, object] | None = None,
    seed: int | None = None,
    communicator: Communicator | None = None,
    backends: Sequence[VisBackend] | None = None,
    test_loop: object = None,
) -> None:
    """Let those hooks that look at a run through a `Runner` share one that knows what an engine does not.

    Args:
        hooks: Those of a run, before it begins.
        work_dir: Its work directory, whose name is that of the experiment.
        config: Its config as plain data.
        seed: What everything random in it follows from.
        communicator: Its ranks; the `current_communicator` when None.
        backends: Where its images go.
        test_loop: The loop that tests, if there is one.
    """
    runner = Runner(work_dir, config, seed, communicator, backends, test_loop)
    for hook in hooks:
        if isinstance(hook, SeesRunner):
            hook.runner_view = runner


class Runner:
    """A view of a run with the attributes that hooks written for mmengine read; attributes of their own may be set.

    What a run cannot tell is an AttributeError that names what it can. The arguments are those of `bind_runner`.

    Attributes:
        engine: The engine; None until it calls one of the hooks.

    References:
        https://mmengine.readthedocs.io/en/latest/api/generated/mmengine.runner.Runner.html
    """

    engine: Engine | None

    def __init__(
        self,
        work_dir: Path | None = None,
        config: Mapping[str, object] | None = None,
        seed: int | None = None,
        communicator: Communicator | None = None,
        backends: Sequence[VisBackend] | None = None,
        test_loop: object = None,
    ) -> None:
        self.engine = None
        self._work_dir = work_dir
        self._config = config
        self._tree: ConfigTree | None = None
        self._seed = seed
        self._communicator = communicator
        self._backends = backends
        self._test_loop = test_loop
        self._hub: MessageHub | None = None
        self._logger: MMLogger | None = None
        self._log_processor: LogProcessor | None = None
        self._timestamp: str | None = None
        self._outputs: Outputs | None = None

    def __getattr__(self, name: str) -> NoReturn:
        """Say what there is instead.

        Raises:
            AttributeError: Always.
        """
        known = [each for each, value in vars(Runner).items() if isinstance(value, property)]
        if name in known:  # the property itself found nothing
            raise AttributeError(f"this run cannot tell its '{name}'", name=name, obj=self)
        mend = did_you_mean(name, known) or f"there are {', '.join(known)}"
        raise AttributeError(f"a run shows hooks of mmengine's no '{name}'; {mend}", name=name, obj=self)

    # Where it stands

    @property
    def epoch(self) -> int:
        """Training epochs completed; while validation follows an epoch, that epoch counts."""
        engine = self._engine()
        loop = engine.parts.get("loop")
        return engine.epoch + bool(loop is not None and loop.state_dict().get("trained"))

    @property
    def iter(self) -> int:
        """Training iterations completed."""
        return self._engine().step

    @property
    def max_epochs(self) -> int:
        """Training epochs of the whole run; 1 where it is counted in iterations alone, as mmengine has it."""
        counts_iterations = isinstance(getattr(self._part("loop"), "max_steps", None), int)
        return 1 if counts_iterations else self._of_loop("max_epochs")

    @property
    def max_iters(self) -> int:
        """Training iterations of the whole run."""
        total = self._engine().total_steps
        return total if total is not None else self._of_loop("max_steps")

    @property
    def epoch_length(self) -> int:
        """Training iterations of an epoch, where a loop has another idea than the data."""
        return self._of_loop("epoch_length")

    # What it is made of

    @property
    def model(self) -> nn.Module:
        """The model, without what makes it parallel."""
        found = self._part("model")
        return found if isinstance(found, nn.Module) else _unknown()

    @property
    def model_name(self) -> str:
        """The name of the model's class."""
        return type(self.model).__name__

    @property
    def optim_wrapper(self) -> Stateful:
        """What brings gradients to the optimizer, or an `OptimWrapperDict` of several."""
        return self._part("updates")

    @property
    def param_schedulers(self) -> list[LRScheduler] | dict[str, list[LRScheduler]]:
        """The schedulers; by the optimizer's name where there are several."""
        part = self._part("schedules")
        schedulers = [each.scheduler for each in part.schedules] if isinstance(part, Schedules) else _unknown()
        updates = self._engine().parts.get("updates")
        if not isinstance(updates, OptimWrapperDict):
            return schedulers
        return {
            name: [each for each in schedulers if each.optimizer is updater.optimizer]
            for name, updater in updates.items()
        }

    @property
    def train_loop(self) -> TrainLoop:
        """A view of the training loop, whose ``stop_training`` may be set."""
        return TrainLoop(self._engine(), self._part("loop"), self)

    @property
    def train_dataloader(self) -> Stateful:
        """The training data, by batches."""
        return self._part("batches")

    @property
    def val_loop(self) -> EvaluationView:
        """A view of the loop that validates."""
        return EvaluationView(_told(getattr(self._part("loop"), "validation", None)))

    @property
    def val_dataloader(self) -> Sized:
        """The validation data, by batches."""
        return self.val_loop.dataloader

    @property
    def val_evaluator(self) -> Metrics:
        """What validation measures."""
        return self.val_loop.evaluator

    @property
    def val_interval(self) -> int:
        """Epochs, or iterations, between two validations."""
        return self._of_loop("val_interval")

    @property
    def val_begin(self) -> int:
        """The first epoch, or iteration, that is validated."""
        return self._of_loop("val_begin")

    @property
    def test_loop(self) -> EvaluationView:
        """A view of the loop that tests."""
        return EvaluationView(_told(self._test_loop))

    @property
    def test_dataloader(self) -> Sized:
        """The test data, by batches."""
        return self.test_loop.dataloader

    @property
    def test_evaluator(self) -> Metrics:
        """What the test measures."""
        return self.test_loop.evaluator

    @property
    def hooks(self) -> list[object]:
        """All hooks, in the order in which they run."""
        return list(self._engine().hooks.values())

    # What it says of itself

    @property
    def message_hub(self) -> MessageHub:
        """The run's hub, which is `MessageHub.get_current_instance()` from its first use on."""
        if self._hub is None:
            name = self._work_dir.name if self._work_dir is not None else "run"
            # Another run in this context may have the name already.
            taken = MessageHub.check_instance_created(name)
            self._hub = MessageHub.get_instance(f"{name}-{uuid4().hex[:8]}" if taken else name)
        return self._hub

    @property
    def logger(self) -> MMLogger:
        """The run's logger; the `MMLogger` made last where the run has none of its own."""
        return self._logger or MMLogger.get_current_instance()

    @logger.setter
    def logger(self, logger: MMLogger) -> None:
        self._logger = logger

    @property
    def log_processor(self) -> LogProcessor:
        """What makes log lines, where mmengine's `LoggerHook` does."""
        return _told(self._log_processor)

    @log_processor.setter
    def log_processor(self, log_processor: LogProcessor) -> None:
        self._log_processor = log_processor

    @property
    def visualizer(self) -> Visualizer:
        """What takes scalars and images for the run's curves."""
        return Visualizer(self._engine(), self._backends)

    @property
    def work_dir(self) -> str:
        """The work directory."""
        return str(_told(self._work_dir))

    @property
    def log_dir(self) -> str:
        """Where text logs lie: a directory of the attempt's with mmengine's `LoggerHook`, else the work directory."""
        file = self._logger.log_file if self._logger is not None else None
        return self.work_dir if file is None else str(file.parent)

    @property
    def _log_dir(self) -> str:  # hooks of mmengine's read it
        return self.log_dir

    @property
    def timestamp(self) -> str:
        """When somebody asked for it first, as ``20261121_235900``."""
        if self._timestamp is None:
            self._timestamp = strftime("%Y%m%d_%H%M%S")
        return self._timestamp

    @property
    def experiment_name(self) -> str:
        """The name of the work directory."""
        return _told(self._work_dir).name

    @property
    def cfg(self) -> ConfigTree:
        """A copy of the config, whose entries are attributes, too."""
        if self._tree is None:
            self._tree = ConfigTree(_told(self._config))
        return self._tree

    @property
    def seed(self) -> int:
        """The run's seed."""
        return _told(self._seed)

    @property
    def deterministic(self) -> bool:
        """Whether torch uses deterministic algorithms only."""
        return torch.are_deterministic_algorithms_enabled()

    @property
    def communicator(self) -> Communicator:
        """The run's ranks."""
        return self._communicator or current_communicator()

    @property
    def rank(self) -> int:
        """This process's number."""
        return self.communicator.rank

    @property
    def world_size(self) -> int:
        """How many processes there are."""
        return self.communicator.world_size

    @property
    def distributed(self) -> bool:
        """Whether there are several processes."""
        return self.world_size > 1

    @property
    def running(self) -> Engine:
        """The engine."""
        return self._engine()

    def call_hook(self, fn_name: str, **kwargs: object) -> None:
        """Call all hooks at a point of a loop of one's own; those of `Hook` are called by the loops alone.

        Args:
            fn_name: Its name.
            **kwargs: What hooks get there, by the names of its parameters.

        Raises:
            EngineError: There is no such point, or it has other parameters; or no loop says which ones it has.
        """
        engine = self._engine()
        point = getattr(getattr(engine.parts.get("loop"), "hook_points", None), fn_name, None)
        values = list(kwargs.values())
        if point is not None and fn_name in engine.points.own:
            names = list(signature(point).parameters)[2:]
            if set(names) != set(kwargs):
                raise EngineError(f"the hook point '{fn_name}' takes {names}, got {list(kwargs)}")
            values = [kwargs[name] for name in names]
        elif len(values) > 1 and fn_name in engine.points.own:
            raise EngineError(
                f"nobody says in which order the hook point '{fn_name}' takes {', '.join(kwargs)}",
                mend="give the loop the attribute hook_points, the class that declares it",
            )
        engine.fire(fn_name, *values)

    def outputs_of(self, output: StepOutput) -> Outputs:
        """Return what a training step tells as mmengine's ``train_step`` does."""
        if self._outputs is None or self._outputs.step_output is not output:  # several hooks ask for the same
            self._outputs = Outputs(output)
        return self._outputs

    def _engine(self) -> Engine:
        return _told(self.engine)

    def _part(self, name: str) -> Stateful:
        return _told(self._engine().parts.get(name))

    def _of_loop(self, name: str) -> int:
        found = getattr(self._part("loop"), name, None)
        return found if isinstance(found, int) else _unknown()


def _unknown() -> NoReturn:
    raise AttributeError  # `__getattr__` says what of


def _told(value: T | None) -> T:
    return value if value is not None else _unknown()
