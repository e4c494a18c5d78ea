"""The laws of an engine's runs and commits; part of `HookDispatchLaws`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from hypothesis import given
from hypothesis import strategies as st

from treenail.contracts.laws._listening import Counter, Saves, Work, told_hook
from treenail.contracts.laws._support import examples, refused
from treenail.kernel import Engine, Record, StateError

_events = st.lists(st.sampled_from(("request", "publish", "step", "epoch")), max_size=12)


class CommitLaws(ABC):
    """Nothing happens to a run but at its commits."""

    @abstractmethod
    def make(self) -> Engine:
        """Return a new engine without hooks, parts and sinks; the laws set its checkpointer."""

    def _saving(self) -> tuple[Engine, Saves]:
        engine, saves = self.make(), Saves()
        engine.checkpointer = saves
        return engine, saves

    # Checkpoints

    @given(events=_events)
    @examples(50)
    def test_checkpoints_are_saved_at_the_next_commit(self, events: list[str]) -> None:
        """A requested checkpoint is saved once, at the next commit and never before."""
        engine, saves = self._saving()
        requested, expected = False, 0
        for event in events:
            if event == "request":
                engine.request_checkpoint("asked for")
                requested = True
            elif event in ("step", "epoch"):
                engine.commit(**{f"{event}s": 1})
                expected += requested
                requested = False
            found = len(saves.saved)
            assert found == expected, f"after {event} of {events} {found} checkpoints were saved, {expected} are right"

    def test_a_checkpoint_is_of_the_committed_step(self) -> None:
        """A checkpoint carries the counters as the commit leaves them, in its tree and beside it."""
        engine, saves = self._saving()
        engine.commit(steps=4)
        engine.request_checkpoint("asked for")
        engine.commit(steps=1, epochs=1)
        saved = saves.saved[0]
        assert (saved.step, saved.epoch) == (5, 1), (
            f"saved as step {saved.step}, epoch {saved.epoch} at step 5, epoch 1"
        )
        fresh = self.make()
        fresh.load_state_dict(saved.checkpoint)
        found = fresh.step, fresh.epoch, fresh.attempt
        assert found == (5, 1, 2), f"the checkpoint of step 5, epoch 1 resumes at (step, epoch, attempt) {found}"

    def test_requests_of_a_step_are_one_checkpoint(self) -> None:
        """Several requests before a commit are one checkpoint with every reason, latest and every pointer."""
        engine, saves = self._saving()
        engine.request_checkpoint("every 5 steps")
        engine.request_checkpoint("best accuracy", "best")
        engine.request_checkpoint("of the user", "mine", "best")
        engine.commit(steps=1)
        assert len(saves.saved) == 1, f"three requests made {len(saves.saved)} checkpoints"
        _, _, reason, pointers, _ = saves.saved[0]
        for wanted in ("every 5 steps", "best accuracy", "of the user"):
            assert wanted in reason, f"the reason '{wanted}' is not in '{reason}'"
        assert sorted(pointers) == ["best", "latest", "mine"], f"the pointers are {pointers}"

    def test_a_request_during_a_commit_waits_for_the_next(self) -> None:
        """A checkpoint requested while one is being saved is saved at the following commit, not now and not never."""
        engine, saves = self._saving()

        def ask_once(_point: str, _arguments: tuple[object, ...]) -> None:
            if not saves.saved:
                engine.request_checkpoint("again")

        engine.attach(told_hook(["before_save_checkpoint"], ask_once))
        engine.request_checkpoint("first")
        for expected in (1, 2, 2):
            engine.commit(steps=1)
            found = [saved.reason for saved in saves.saved]
            assert len(found) == expected, f"after commit {engine.step} the checkpoints are {found}"

    def test_hooks_see_the_tree_before_it_is_saved(self) -> None:
        """before_save_checkpoint is fired once for a checkpoint, and what it adds to the tree is saved."""
        engine, saves = self._saving()
        seen: list[object] = []

        def add(_point: str, arguments: tuple[object, ...]) -> None:
            tree = arguments[1]
            assert isinstance(tree, dict), f"before_save_checkpoint got a {type(tree).__name__}, not the tree"
            seen.append(len(saves.saved))
            tree["added"] = {"by": "hook"}

        engine.attach(told_hook(["before_save_checkpoint"], add))
        engine.request_checkpoint("asked for")
        engine.commit(steps=1)
        assert seen == [0], f"before_save_checkpoint was fired with {seen} checkpoints saved, must be once with 0"
        assert saves.saved[0].checkpoint.get("added") == {"by": "hook"}, "what the hook added was not saved"

    # State

    def test_stateful_hooks_are_saved_and_restored(self) -> None:
        """What a hook's state_dict gives is in every checkpoint, and comes back to the hook of that name."""
        engine, saves = self._saving()
        engine.attach(Counter(3), "first")
        engine.attach(told_hook(["before_run"]), "stateless")
        engine.attach(Counter(7), "second")
        engine.request_checkpoint("asked for")
        engine.commit(steps=1)
        resumed, counters = self.make(), {"second": Counter(), "first": Counter()}
        for name, counter in counters.items():
            resumed.attach(counter, name)
        resumed.load_state_dict(saves.saved[0].checkpoint)
        found = {name: counter.count for name, counter in counters.items()}
        assert found == {"first": 3, "second": 7}, f"hooks with counts first 3, second 7 came back with {found}"

    def test_a_state_of_other_hooks_is_refused(self) -> None:
        """A tree that lacks a stateful hook, or has one more, raises StateError that names it."""
        with_hook, without = self.make(), self.make()
        with_hook.attach(Counter(3), "tally")
        for engine, state in ((with_hook, without.state_dict()), (without, with_hook.state_dict())):
            with refused("a tree of another set of hooks", StateError) as refusal:
                engine.load_state_dict(state)
            assert "tally" in refusal.text, f"the message does not name the hook 'tally': {refusal.text}"

    # Scalars

    @given(events=_events)
    @examples(50)
    def test_scalars_are_delivered_at_the_commit(self, events: list[str]) -> None:
        """Published scalars reach every sink once, in order, at the next commit, with the counters that it leaves."""
        engine = self.make()
        first, second = list[Record](), list[Record]()
        engine.subscribe(first.append)
        engine.subscribe(second.append)
        expected: list[tuple[float, int, int, int]] = []
        waiting: list[float] = []
        for number, event in enumerate(events):
            if event == "publish":
                engine.publish({"train/loss": float(number)})
                waiting.append(float(number))
            elif event in ("step", "epoch"):
                engine.commit(**{f"{event}s": 1})
                done = events[: number + 1]
                steps, epochs = done.count("step"), done.count("epoch")
                expected += [(value, steps, epochs, steps + epochs) for value in waiting]
                waiting = []
            for sink in (first, second):
                found = [(record.values["train/loss"], record.step, record.epoch, record.commit) for record in sink]
                assert found == expected, f"after {event} of {events} a sink has {found}, right is {expected}"

    def test_records_are_in_order_across_resumes(self) -> None:
        """The first record after a resume has the next commit's number, the step it made, and the next attempt."""
        engine = self.make()
        engine.commit(steps=1)
        engine.commit(steps=1)
        resumed, records = self.make(), list[Record]()
        resumed.subscribe(records.append)
        resumed.load_state_dict(engine.state_dict())
        resumed.publish({"train/loss": 1.0})
        resumed.commit(steps=1)
        found = [(record.step, record.commit, record.attempt) for record in records]
        assert found == [(3, 3, 2)], f"resumed after 2 steps in 2 commits, (step, commit, attempt) are {found}"

    def test_a_step_that_never_commits_leaves_no_trace(self) -> None:
        """What was published or requested before an exception is neither delivered nor saved."""
        engine, saves = self._saving()
        records: list[Record] = []
        engine.subscribe(records.append)

        def work(engine: Engine) -> None:
            engine.publish({"train/loss": 1.0})
            engine.request_checkpoint("asked for")
            raise ValueError("spilled")

        with refused("a run whose loop raises ValueError", ValueError):
            engine.run(Work(work))
        assert records == [], f"the broken step delivered {records}"
        assert saves.saved == [], "the broken step saved a checkpoint"
        assert engine.step == 0, f"the broken step was counted: step {engine.step}"

    # Runs

    def test_a_run_is_its_loops_between_two_points(self) -> None:
        """A run fires before_run once, runs the loops in order, and fires after_run once."""
        engine, heard = self.make(), list[str]()
        engine.attach(told_hook(["before_run", "after_run"], lambda point, _arguments: heard.append(point)))
        engine.run(Work(lambda _engine: heard.append("one")), Work(lambda _engine: heard.append("two")))
        assert heard == ["before_run", "one", "two", "after_run"], f"the run was {heard}"

    def test_a_resumed_run_takes_its_state_before_its_loops(self) -> None:
        """run(resume=tree) fires before_run, then after_load_checkpoint with the tree, then runs its loops from there."""
        saved, engine, heard = self.make(), self.make(), list[tuple[str, int]]()
        saved.commit(steps=7)
        state = saved.state_dict()
        trees: list[object] = []

        def listen(point: str, arguments: tuple[object, ...]) -> None:
            heard.append((point, engine.step))
            trees.extend(arguments[1:])

        engine.attach(told_hook(["before_run", "after_load_checkpoint"], listen))
        engine.run(Work(lambda engine: heard.append(("loop", engine.step))), resume=state)
        expected = [("before_run", 0), ("after_load_checkpoint", 0), ("loop", 7)]
        assert heard == expected, f"the run, with the step at each point, was {heard}, must be {expected}"
        assert trees == [state], "after_load_checkpoint did not get the tree"

    def test_a_stop_keeps_later_loops_from_starting(self) -> None:
        """After a requested stop no further loop starts, and the first reason is kept."""
        engine, heard = self.make(), list[str]()

        def stop(engine: Engine) -> None:
            engine.request_stop("enough")
            engine.request_stop("a later reason")

        engine.run(Work(stop), Work(lambda _engine: heard.append("second loop")))
        assert heard == [], "a loop was started after the stop"
        assert engine.stop_reason == "enough", f"the reason is {engine.stop_reason!r}, the first was 'enough'"

    def test_every_hook_is_told_of_an_exception(self) -> None:
        """on_exception reaches every hook with the very error, though one of them raises; the error goes on."""
        for error in (ValueError("spilled"), KeyboardInterrupt("interrupted")):
            heard: list[str] = []

            def listen(name: str, error: BaseException = error, heard: list[str] = heard) -> object:
                def told(_point: str, arguments: tuple[object, ...]) -> None:
                    heard.append(name if arguments[1] is error else f"{name} got {arguments[1]!r}")
                    if name == "clumsy":
                        raise RuntimeError("broken in on_exception")

                return told_hook(["on_exception"], told)

            def work(_engine: Engine, error: BaseException = error) -> None:
                raise error

            engine = self.make()
            for name in ("early", "clumsy", "late"):
                engine.attach(listen(name), name)
            try:
                engine.run(Work(work))
            except BaseException as caught:
                assert caught is error, f"{error!r} became {caught!r} on its way out"  # noqa: PT017 - no pytest here
            else:
                raise AssertionError(f"run swallowed {error!r}")
            assert heard == ["early", "clumsy", "late"], f"told of {error!r} were {heard}"
