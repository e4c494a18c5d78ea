"""The engine: holds a run's stateful parts, runs loops, fires hook points, and commits steps.

A step is committed after all hooks of the step ran. Counters, logs and checkpoints happen at commits and nowhere else:
hooks and signal handlers *request* a checkpoint or a stop, the next commit carries it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar, cast

from treenail.kernel.errors import EngineError, HookError, StateError, TreenailError, did_you_mean
from treenail.kernel.hooks import HOOK_POINTS, Attached, Hook, check_constraints, inspect_hook, order_hooks, points_of
from treenail.kernel.meters import Meters
from treenail.kernel.ports import Checkpointer, Loop, Stateful

T = TypeVar("T")


class Points:
    """What fires each hook point: one callable per point, or None where no hook overrides it.

    A loop writes ``if fire := engine.points.after_train_iter: fire(engine, index, batch, outputs)``, so that a point
    nobody overrides costs no call. `own` has the points that a subclass of `Hook` adds, by name.
    """

    __slots__ = (*HOOK_POINTS, "_kind", "own")

    before_run: Callable[[Engine], None] | None
    after_run: Callable[[Engine], None] | None
    before_train: Callable[[Engine], None] | None
    after_train: Callable[[Engine], None] | None
    before_train_epoch: Callable[[Engine], None] | None
    after_train_epoch: Callable[[Engine], None] | None
    before_train_iter: Callable[[Engine, int, object], None] | None
    after_train_iter: Callable[[Engine, int, object, object], None] | None
    before_val: Callable[[Engine], None] | None
    after_val: Callable[[Engine], None] | None
    before_val_epoch: Callable[[Engine], None] | None
    after_val_epoch: Callable[[Engine, dict[str, float]], None] | None
    before_val_iter: Callable[[Engine, int, object], None] | None
    after_val_iter: Callable[[Engine, int, object, object], None] | None
    before_test: Callable[[Engine], None] | None
    after_test: Callable[[Engine], None] | None
    before_test_epoch: Callable[[Engine], None] | None
    after_test_epoch: Callable[[Engine, dict[str, float]], None] | None
    before_test_iter: Callable[[Engine, int, object], None] | None
    after_test_iter: Callable[[Engine, int, object, object], None] | None
    before_save_checkpoint: Callable[[Engine, dict[str, object]], None] | None
    after_load_checkpoint: Callable[[Engine, dict[str, object]], None] | None
    on_exception: Callable[[Engine, BaseException], None] | None

    def __init__(self, kind: type[Hook] = Hook) -> None:
        self._kind = kind
        self.own: dict[str, Callable[..., None] | None] = {}
        self.compile(())

    def compile(self, ordered: tuple[Attached, ...] | list[Attached]) -> None:
        """Bind every point to the hooks that override it, in the given order."""
        for point in points_of(self._kind):
            active = [
                each for each in ordered if point in each.handlers and point not in getattr(each.hook, "idle", ())
            ]
            handlers = [(each.name, each.handlers[point]) for each in active]
            fire = _fire(point, handlers) if handlers else None
            if point in HOOK_POINTS:
                setattr(self, point, fire)
            else:
                self.own[point] = fire


def _fire(point: str, handlers: list[tuple[str, Callable[..., None]]]) -> Callable[..., None]:
    goes_on = point.startswith("after_") and point != "after_load_checkpoint"

    def fire(*arguments: object) -> None:
        for name, handler in handlers:
            try:
                handler(*arguments)
            except BaseException as error:  # a SystemExit, too, must say where it came from
                error.add_note(f"raised by hook '{name}' at {point}")
                # An error of ours says that this state is not to be saved; any other is the hook's own.
                if not goes_on or isinstance(error, TreenailError) or not isinstance(error, Exception):
                    raise
                cast("Engine", arguments[0]).fail(error)

    def fire_all(*arguments: object) -> None:
        for name, handler in handlers:
            try:
                handler(*arguments)
            except Exception as error:  # one hook's failure must not keep the others from cleaning up
                original = arguments[-1]
                if isinstance(original, BaseException):
                    original.add_note(f"hook '{name}' failed at {point}, too: {type(error).__name__}: {error}")

    return fire_all if point == "on_exception" else fire


class Record(NamedTuple):
    """Scalars of a committed step, as sinks receive them.

    Args:
        values: By name: ``"train/loss"``, ``"val/accuracy"`` …
        step: Training steps committed when the record was delivered.
        epoch: Epochs completed then.
        commit: Number of the commit that delivered it; a total order of a run's records, across resumes.
        attempt: How often the run was resumed, plus one.
    """

    values: Mapping[str, float]
    step: int
    epoch: int
    commit: int
    attempt: int


class Engine:
    """Runs loops over named stateful parts.

    Args:
        parts: What a checkpoint holds besides the engine's own counters, by name. Anything with `state_dict` and
            `load_state_dict`: modules, optimizers, samplers, loops.
        checkpointer: Where requested checkpoints go; without one a request is an error.
        agree: Takes the reason for which this process would stop, if any; returns the one for which all processes of the
            run do, at the same call. Without it this process decides for itself.
        points: `Hook`, or a subclass that declares further hook points, for loops that `fire` them.

    Attributes:
        total_steps: Steps of the whole run where the loop knows them, for progress.
        stop_reason: Why the run stops; loops look at it after each commit.
        points: What loops fire.
        meters: Running means for the next log line.
    """

    def __init__(
        self,
        parts: Mapping[str, Stateful] | None = None,
        *,
        checkpointer: Checkpointer | None = None,
        agree: Callable[[str | None], str | None] | None = None,
        points: type[Hook] = Hook,
    ) -> None:
        self.parts: dict[str, Stateful] = dict(parts or {})
        for reserved in ("engine", "hooks"):
            if reserved in self.parts:
                raise EngineError(f"a part may not be called '{reserved}'", mend="choose another name")
        self.checkpointer = checkpointer
        self._step = self._epoch = self._commits = 0
        self._attempt = 1
        self._ran = False
        self.total_steps: int | None = None
        self.stop_reason: str | None = None
        self._wish: str | None = None
        self._agree = agree
        self._kind = points
        self.points = Points(points)
        self._failure: Exception | None = None
        self.meters = Meters()
        self._attached: list[Attached] = []
        self._ordered: list[Attached] = []
        self._sinks: list[Callable[[Record], None]] = []
        self._records: list[Mapping[str, float]] = []
        self._requests: list[tuple[str, tuple[str, ...]]] = []

    @property
    def step(self) -> int:
        """Training steps committed since the run began, across resumes."""
        return self._step

    @property
    def epoch(self) -> int:
        """Training epochs completed."""
        return self._epoch

    @property
    def commits(self) -> int:
        """Commits made; a state saved by commit n has all records up to n behind it."""
        return self._commits

    @property
    def attempt(self) -> int:
        """1 for a new run, one more for every resume."""
        return self._attempt

    # Parts and hooks

    def part(self, name: str, kind: Callable[..., T]) -> T:
        """Return a part, typed.

        Args:
            name: Its name.
            kind: The class or Protocol it shall be of (typed as a callable, since a Protocol is no `type[T]` to mypy).

        Raises:
            EngineError: There is no such part, or it is of another kind.
        """
        found = self.parts.get(name)
        if found is None:
            mend = did_you_mean(name, self.parts) or f"the parts are {', '.join(self.parts) or 'none'}"
            raise EngineError(f"the engine holds no part '{name}'", mend=mend)
        if not isinstance(kind, type) or not isinstance(found, kind):
            wanted = getattr(kind, "__qualname__", repr(kind))
            raise EngineError(f"the part '{name}' is a {type(found).__qualname__}, not a {wanted}")
        return cast("T", found)

    def attach(self, hook: object, name: str | None = None) -> None:
        """Add a hook: an object with at least one hook point, usually a subclass of `Hook`.

        Args:
            hook: The hook; its `priority`, `before` and `after` place it.
            name: What other hooks and checkpoints call it; its class's name when None.

        Raises:
            HookError: A point is misspelt or mis-signed, the name is taken, or the order contradicts itself.
        """
        name = name or str(getattr(hook, "__qualname__", type(hook).__qualname__))
        if any(each.name == name for each in self._attached):
            raise HookError(f"a hook named '{name}' is already attached", mend="attach it under another name")
        attached = [*self._attached, inspect_hook(name, hook, self._kind)]
        ordered = order_hooks(attached)
        self._attached, self._ordered = attached, ordered
        self.points.compile(ordered)

    @property
    def hooks(self) -> dict[str, object]:
        """The attached hooks by name, in the order in which they run."""
        return {each.name: each.hook for each in self._ordered}

    def describe_hooks(self) -> str:
        """Return a table of the hooks in their order: priority, name, points."""
        rows = [f"{each.priority:>4}  {each.name:<16} {', '.join(each.handlers)}" for each in self._ordered]
        return "\n".join(rows)

    # Running

    def run(self, *loops: Loop, resume: dict[str, object] | None = None) -> None:
        """Run loops one after the other, until done or stopped.

        Whatever a loop or hook raises is told to every hook's `on_exception` and goes on to the caller.

        Args:
            *loops: What to do.
            resume: A state tree to take first, after the hooks' `before_run`.
        """
        check_constraints(self._attached)
        if self._ran:  # the stop of an earlier run is over; one requested before this run holds
            self.stop_reason = self._wish = self._failure = None
        self._ran = True
        try:
            self._run(loops, resume)
        except BaseException as error:
            if self._failure is not None and error is not self._failure:
                error.add_note(f"the run was stopping: {self.stop_reason}")
            if tell := self.points.on_exception:
                tell(self, error)
            raise

    def _idle(self) -> list[tuple[str, ...]]:
        return [getattr(each.hook, "idle", ()) for each in self._ordered]

    def _run(self, loops: Sequence[Loop], resume: dict[str, object] | None) -> None:
        idle = self._idle()
        if fire := self.points.before_run:
            fire(self)
        if idle != self._idle():  # some hooks know only now at which points they have something to do
            self.points.compile(self._ordered)
        if resume is not None:
            self.load_state_dict(resume)
        for loop in loops:
            if self.stop_reason is None:
                loop.run(self)
        if self._requests:
            self.commit()
        if self._failure is None and (fire := self.points.after_run):
            fire(self)
        if self._failure is not None:
            raise self._failure

    def request_stop(self, reason: str) -> None:
        """Ask the loop to stop at the next commit; safe in a signal handler. The first reason is kept."""
        self._wish = self._wish or reason
        if self._agree is None:
            self.stop_reason = self.stop_reason or reason

    def fail(self, error: Exception) -> None:
        """Stop at the next commit, save as at any stop, and let `run` raise; safe in any thread. The first error is kept."""
        self._failure = self._failure or error
        self.request_stop(": ".join([type(error).__qualname__, str(error), *getattr(error, "__notes__", ())]))

    def fire(self, point: str, *arguments: object) -> None:
        """Call the hooks at a point that the class `points` adds to `Hook`, with the engine and the arguments.

        Raises:
            EngineError: There is no such point.
        """
        if point not in self.points.own:
            mend = did_you_mean(point, self.points.own) or "declare it in a subclass of Hook, the engine's `points`"
            raise EngineError(f"there is no hook point '{point}' of a loop's own", mend=mend)
        if call := self.points.own[point]:
            call(self, *arguments)

    def check_stop(self) -> bool:
        """Return whether the run stops. Loops call it between commits, too, as often in every process of the run."""
        if self.stop_reason is None and self._agree is not None:
            self.stop_reason = self._agree(self._wish)
        return self.stop_reason is not None

    def request_checkpoint(self, reason: str, *pointers: str) -> None:
        """Ask for a checkpoint at the next commit; safe in a signal handler.

        Args:
            reason: Why, for the manifest and the log.
            *pointers: Names that shall lead to this checkpoint, besides ``"latest"``.
        """
        self._requests.append((reason, pointers))

    def publish(self, values: Mapping[str, float]) -> None:
        """Give scalars to every sink at the next commit; a step that never commits leaves no trace."""
        self._records.append(dict(values))

    def subscribe(self, sink: Callable[[Record], None]) -> None:
        """Add a receiver of committed scalars."""
        self._sinks.append(sink)

    def commit(self, *, steps: int = 0, epochs: int = 0) -> None:
        """Advance the counters, deliver what was published, and save if that was requested.

        Only loops call this, when every part is consistent: after a step and all its hooks, at the end of an epoch, after
        a test.
        """
        self._step += steps
        self._epoch += epochs
        self._commits += 1
        if self._records:
            self._deliver()
        if self._agree is not None:
            self.check_stop()
        if self._requests:
            self._save()

    def _deliver(self) -> None:
        records, self._records = self._records, []
        for values in records:
            record = Record(values, self._step, self._epoch, self._commits, self._attempt)
            for sink in self._sinks:
                sink(record)

    def _save(self) -> None:
        requests, self._requests = self._requests, []
        reason = ", ".join(dict.fromkeys(reason for reason, _ in requests))
        if self.checkpointer is None:
            raise EngineError(f"a checkpoint was requested ({reason}), but the engine has no checkpointer")
        checkpoint = self.state_dict()
        if fire := self.points.before_save_checkpoint:
            fire(self, checkpoint)
        pointers = ["latest", *dict.fromkeys(name for _, names in requests for name in names if name != "latest")]
        self.checkpointer.save(checkpoint, step=self.step, epoch=self.epoch, reason=reason, pointers=pointers)

    # State

    def _stateful_hooks(self) -> dict[str, Stateful]:
        return {each.name: each.hook for each in self._attached if isinstance(each.hook, Stateful)}

    def state_dict(self) -> dict[str, object]:
        """Return the whole tree: the engine's counters, every part's state, every stateful hook's state."""
        tree: dict[str, object] = {
            "engine": {
                "step": self.step,
                "epoch": self.epoch,
                "commits": self.commits,
                "attempt": self.attempt,
                "meters": self.meters.state_dict(),
            },
            "hooks": {name: hook.state_dict() for name, hook in self._stateful_hooks().items()},
        }
        return tree | {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take a tree that `state_dict` returned; the attempt becomes one more.

        Raises:
            StateError: The tree lacks a part or hook that this engine has, has one that this engine lacks, or a part
                refuses its state; the message names it.
        """
        if fire := self.points.after_load_checkpoint:
            fire(self, state_dict)
        own = _mapping(state_dict, "engine")
        hook_states = _mapping(state_dict, "hooks")
        hooks = self._stateful_hooks()
        part_states = {name: state for name, state in state_dict.items() if name not in ("engine", "hooks")}
        _same_names(self.parts, part_states, "part")
        _same_names(hooks, hook_states, "hook")
        counters = {name: own.get(name) for name in ("step", "epoch", "commits", "attempt")}
        numbers = [value for value in counters.values() if isinstance(value, int) and value >= 0]
        if len(numbers) < len(counters):
            raise StateError(f"the counters are {counters}, not whole numbers", where="engine")
        targets = [(name, part, part_states[name]) for name, part in self.parts.items()]
        targets += [(f"hooks.{name}", hook, hook_states[name]) for name, hook in hooks.items()]
        for name, target, state in targets:
            _load(name, target, state)
        self.meters.load_state_dict(_mapping(own, "meters"))
        self._step, self._epoch, self._commits, attempt = numbers
        self._attempt = attempt + 1


def _mapping(tree: Mapping[str, object], name: str) -> dict[str, object]:
    found = tree.get(name)
    if not isinstance(found, dict):
        raise StateError(f"the state has no mapping '{name}'", mend="is it a checkpoint of a run?")
    return found


def _same_names(ours: Mapping[str, object], theirs: Mapping[str, object], kind: str) -> None:
    missing = sorted(ours.keys() - theirs.keys())
    unknown = sorted(theirs.keys() - ours.keys())
    if missing or unknown:
        parts = [f"has no state for the {kind} '{name}' of this run" for name in missing]
        parts += [f"has state for the {kind} '{name}', which this run lacks" for name in unknown]
        raise StateError(f"the checkpoint {' and '.join(parts)}", mend="resume with the config the run was begun with")


def _load(name: str, target: Stateful, state: object) -> None:
    if not isinstance(state, dict):
        raise StateError(f"expected a mapping, got a {type(state).__name__}", where=name)
    try:
        target.load_state_dict(state)
    except TreenailError:
        raise
    except Exception as error:
        detail = " ".join(str(error).split())
        detail = detail if len(detail) <= 400 else f"{detail[:400]} …"
        raise StateError(
            f"{type(target).__qualname__} does not take this state: {type(error).__name__}: {detail}",
            where=name,
            mend="is the checkpoint of another model or config?",
        ) from error
