"""One attempt of a run: its parts are put together, it trains, and it ends, stops or fails."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from time import perf_counter

import msgspec
from torch.optim import Optimizer

from treenail.adapters.checkpoint import CheckpointStore, RankCheckpointer, Resumed
from treenail.adapters.documents import Document, dump_document, replace_text
from treenail.adapters.files import redacted
from treenail.adapters.hooks import CheckpointHook
from treenail.adapters.logging import terminal_logger
from treenail.adapters.loops import EpochLoop, StepLoop
from treenail.adapters.runtime.assemble import assemble
from treenail.adapters.runtime.changes import (
    begin_anew,
    built_states,
    check_restart,
    fit_hook_states,
    kept_settings,
    refuse_changes,
)
from treenail.adapters.runtime.default_hooks import default_hooks
from treenail.adapters.runtime.events import RunEvents
from treenail.adapters.runtime.limits import (
    DiscardedCheckpoints,
    SavedBetweenSteps,
    check_validation,
    hook_points,
    time_limit,
    workers_ended,
)
from treenail.adapters.runtime.locks import locked_checkpoints
from treenail.adapters.runtime.monitors import Monitors
from treenail.adapters.runtime.notes import note_batch_size, note_circumstances, note_torch_checks
from treenail.adapters.runtime.ranks import StopVote, on_rank_0
from treenail.adapters.runtime.reach import out_of_reach
from treenail.adapters.runtime.rollback import RollbackLoop
from treenail.adapters.runtime.signals import stop_on_signals
from treenail.adapters.runtime.trained import open_checkpoint
from treenail.adapters.runtime.trials import Trial
from treenail.adapters.runtime.workdir import (
    CONFIG,
    checkpoint_files,
    claimed,
    make_work_dir,
    own_name,
    probe_checkpoints,
)
from treenail.adapters.vis import JsonLines
from treenail.contracts import Run
from treenail.kernel import (
    CheckpointError,
    Communicator,
    Engine,
    FileBackend,
    Hook,
    Late,
    Loop,
    StateError,
)


class Attempt:
    """A run in this process, or in the processes that all make one of it.

    Args:
        run: The config.
        work_dir: Where checkpoints, curves and logs go.
        document: The config that the run comes from.
        communicator: The ranks.
        events: Writes down what it goes on from, and its end.
        goes_on: It will `resume`.
        is_trial: It keeps nothing.

    Attributes:
        began: When this attempt began, by `perf_counter`.
        metrics: The last results of validation and test by name.
    """

    def __init__(
        self,
        run: Run,
        work_dir: Path,
        document: Document | None,
        communicator: Communicator,
        events: RunEvents,
        *,
        goes_on: bool = False,
        is_trial: bool = False,
    ) -> None:
        self.began = perf_counter()
        metrics: dict[str, float] = {}
        self.metrics = metrics
        if not run.vis and not is_trial:
            run = msgspec.structs.replace(run, vis={"jsonlines": Late(JsonLines, awaited=1)})
        self._run, self._work_dir, self._document = run, work_dir, document
        self._communicator, self._events, self._is_trial = communicator, events, is_trial
        files = _make_places(run, work_dir, communicator)
        self.assembly = assemble(run, work_dir, document, communicator, goes_on=goes_on)
        self.store = CheckpointStore(
            files,
            keep_last=run.checkpoints.keep_last,
            keep_every=run.checkpoints.keep_every,
            config=self.assembly.config,
            world_size=communicator.world_size,
        )
        self._checkpointer = RankCheckpointer(
            self.store,
            communicator,
            asynchronous=run.checkpoints.asynchronous,
            on_failure=lambda error: self.engine.fail(error),  # noqa: PLW0108  # it is made below
            timeout=run.distributed.timeout,
        )
        self._vote: StopVote | None = None
        if communicator.world_size > 1:
            self._vote = StopVote(
                communicator,
                lambda reason: None if self._has_checkpoint_hook else self.engine.request_checkpoint(reason),
                save=lambda reason: self.engine.request_checkpoint(reason),  # noqa: PLW0108  # it is made below
            )
        self.engine = Engine(
            self.assembly.parts,
            checkpointer=DiscardedCheckpoints() if is_trial else self._checkpointer,
            agree=self._vote,
            points=hook_points(self.assembly),
        )
        hooks = default_hooks(run, self.assembly, work_dir, communicator)
        self._monitors = Monitors(run, self.assembly, hooks)
        if communicator.rank == 0 and not is_trial:
            for sentence in out_of_reach(self.assembly, hooks):
                terminal_logger().warning(sentence)
        if self._monitors.wanted:
            self.engine.attach(self._monitors, "checks of metrics")
        for name, hook in hooks.items():
            self.engine.attach(hook, name)
        if self._vote is not None:
            self.engine.attach(self._vote, "stop vote")
        self._ends = _Ends(run, self._checkpointer, events)
        self.engine.attach(self._ends, "ends of the run")
        self._has_checkpoint_hook = any(isinstance(hook, CheckpointHook) for hook in self.engine.hooks.values())
        self.engine.subscribe(
            lambda record: metrics.update({k: v for k, v in record.values.items() if k.startswith(("val/", "test/"))})
        )
        self._resumed: Resumed | None = None
        self._anew: Callable[[dict[str, object]], None] | None = None  # lets parts begin anew in what it goes on from
        self._is_own = True  # what it goes on from

    def resume(self, checkpoint: str, *, allow_changes: bool, restart: Collection[str] = ()) -> None:
        """Read the checkpoint to go on from.

        Args:
            checkpoint: A pointer, or a directory's name. By a path or URI, one that lies elsewhere; what is trained on from
                there is another run, which leaves that place as it is.
            allow_changes: Although the config is not the checkpoint's in a way that changes the result.
            restart: Parts that begin anew, of `RESTARTABLE`.

        Raises:
            CheckpointError: It cannot be used.
            ConfigError: The config has changed.
        """
        check_restart(restart)
        self._ends.allow_changes = allow_changes
        name, reader = own_name(checkpoint, self._work_dir, self._run.files.checkpoints), self._checkpointer
        self._is_own = name is not None
        if name is None:
            store, name = open_checkpoint(checkpoint)
            reader = RankCheckpointer(store, self._communicator)
        warn = terminal_logger().warning
        resumed = reader.resume(name, self.assembly.parts, warn)
        if self._is_own:
            self.store.run = resumed.manifest.run
        else:
            parent = redacted(checkpoint).rpartition("/")[0]
            resumed = resumed._replace(directory=f"{parent}/{resumed.directory}")
        before, now, where = resumed.manifest.config, self.assembly.config, resumed.directory
        if not allow_changes:
            refuse_changes(before, now, where, restart=restart, unwatched=self._monitors.unwatched)
        kept = kept_settings(before, now, where, restart)
        if kept and self._communicator.rank == 0:
            warn(kept)
        if restart:
            self._anew = partial(begin_anew, built_states(self.assembly.parts), restart=restart)
            self._anew(resumed.state)
        if restart or allow_changes:
            self._checkpointer.mark_changed()
        self._resumed = resumed
        self._events.resumed(resumed)

    def go(self) -> None:
        """Train, then test if the config has a test.

        Raises:
            TreenailError: Whatever is wrong with the checkpoint, the directory or the training.
        """
        self._events.engine = self.engine
        self._keep_config()
        state = self._ends.resumed = None if self._resumed is None else self._resumed.state
        try:
            with self._surrounded():
                try:
                    check_validation(self.assembly.sanity if state is None else None, self.engine, self._monitors.check)
                except Exception as error:
                    self._ends.on_exception(self.engine, error)  # it runs in an engine without hooks
                    raise
                self.engine.run(*self._loops(), resume=state)
                self._communicator.barrier()  # or no rank has ended well
                self._say_if_done()
        except StateError as error:
            raise self._refused(error) from error

    def _say_if_done(self) -> None:
        engine, before = self.engine, self._resumed.manifest if self._resumed else None
        if before is None or engine.stop_reason is not None or self._communicator.rank > 0:
            return
        if (engine.step, engine.epoch) == (before.step, before.epoch):
            terminal_logger().info("nothing was left to train", step=engine.step, epoch=engine.epoch)

    def _keep_config(self) -> None:
        document = self._document
        if document is None or document.has_originals or self._communicator.rank > 0:
            return  # a Python config is kept by its users, as code
        replace_text(self._work_dir / CONFIG, dump_document(document))

    def _loops(self) -> list[Loop]:
        training: Loop = RollbackLoop(self.assembly.loop, self._load_last)
        if isinstance(self.assembly.loop, EpochLoop | StepLoop):  # one of somebody's own may be in the midst of a step
            training = SavedBetweenSteps(training, alone=self._communicator.world_size == 1)
        if self._is_trial:
            training = Trial(training, self.assembly.validation)
        return [training, *([self.assembly.test] if self.assembly.test else [])]

    def _load_last(self) -> dict[str, object]:
        """Return the state of the last checkpoint of this run."""
        manifest, last = self._checkpointer.load("latest", self.assembly.parts)
        if manifest.run != on_rank_0(self._communicator, lambda: self.store.run):
            raise CheckpointError("the last checkpoint there is another run's", where=self.store.files.uri)
        if self._anew is not None and self._resumed is not None and manifest.sha256 == self._resumed.manifest.sha256:
            self._anew(last)
        return last

    @contextmanager
    def _surrounded(self) -> Iterator[None]:
        """Hold what the run holds while it trains, and listen to what may stop it."""
        files, vote, seconds = self.store.files, self._vote, self._run.limits.max_seconds
        ask = None if vote is None else vote.request_checkpoint
        ours = self._run.files.checkpoints is not None and self._communicator.rank == 0
        saves = vote is None and not self._has_checkpoint_hook
        goes_on = self._resumed is not None and self._is_own
        with (
            locked_checkpoints(files) if ours else nullcontext(),
            claimed(files, self.store.run, self._work_dir, resume=goes_on) if ours else nullcontext(),
            self._checkpointer.flushed(),
            stop_on_signals(self.engine, save=saves, request_checkpoint=ask),
            time_limit(self.engine, seconds and seconds - (perf_counter() - self.began), save=saves),
            workers_ended(self.assembly),
        ):
            yield

    def _refused(self, error: StateError) -> CheckpointError:
        message = f"{error.where}: {error.message}" if error.where else error.message
        where = self._resumed.directory if self._resumed else None
        if where is not None and self._is_own:
            where = f"{self.store.files.uri}/{where}"
        return CheckpointError(message, where=where, mend=error.mend)


class _Ends(Hook):
    """What an attempt does at both ends of its training.

    Args:
        run: The config.
        checkpointer: Of the run.
        events: Writes down its end.

    Attributes:
        resumed: The state that the run goes on from.
        allow_changes: Whether it may lack hooks that it had.
    """

    priority = 0

    def __init__(self, run: Run, checkpointer: RankCheckpointer, events: RunEvents) -> None:
        self._run, self._events = run, events
        self._checkpointer = checkpointer
        self.resumed: dict[str, object] | None = None
        self.allow_changes = False

    def after_load_checkpoint(self, engine: Engine, checkpoint: dict[str, object]) -> None:
        """Fit the states of hooks to those that there are.

        Raises:
            StateError: The run lacks a hook that has one, and may not.
        """
        warn = terminal_logger().warning if self._checkpointer.communicator.rank == 0 else _say_nothing
        fit_hook_states(engine, checkpoint, allow_changes=self.allow_changes, warn=warn)

    def before_train(self, engine: Engine) -> None:
        """Let go of the state that was resumed: the parts have taken it, and it is as large as they are.

        Raises:
            StateError: It was that of another class of optimizer, which takes it but could make no step.
        """
        if self.resumed:
            self.resumed.clear()
            _check_groups(engine.parts["optimizer"])

    def after_run(self, engine: Engine) -> None:
        """Let no hook tell of an end, or end the job, that is none: every rank is here, and the last checkpoint durable.

        Raises:
            CheckpointError: It could not be saved.
            CommunicationError: A rank failed.
        """
        self._checkpointer.communicator.barrier()
        self._checkpointer.flush()
        self._events.ended(engine)

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        """Note what else there is to say of an exception, before other hooks tell of it."""
        if isinstance(error, Exception):
            counts = getattr(engine.parts["updates"], "accumulative_counts", 1)
            note_batch_size(error, self._checkpointer.communicator.world_size, counts)
            note_torch_checks(error, self._run)
            note_circumstances(error, engine)


def _check_groups(optimizer: object) -> None:
    """Raise where the groups of an optimizer, or of one of several, lack what its class needs."""
    for each in optimizer.values() if isinstance(optimizer, Mapping) else [optimizer]:
        if not isinstance(each, Optimizer):
            continue
        missing = [name for group in each.param_groups for name in each.defaults if name not in group]
        if missing:
            raise StateError(
                f"the state is of another class than {type(each).__name__}: its groups have no '{missing[0]}'",
                where="optimizer",
                mend="let it begin anew with --restart optimizer",
            )


def _say_nothing(_sentence: str) -> None:
    """Rank 0 says it."""


def _make_places(run: Run, work_dir: Path, communicator: Communicator) -> FileBackend:
    """Make a run's directory on rank 0, and return where its checkpoints lie."""
    files = checkpoint_files(work_dir, run.files.checkpoints)
    if communicator.rank == 0:
        make_work_dir(work_dir)
        if run.files.checkpoints is not None:
            probe_checkpoints(files)
    return files
