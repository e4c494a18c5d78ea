"""The engine's state and commits, beyond the laws of hook dispatch."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import pytest

from treenail.kernel import HOOK_POINTS, Engine, EngineError, Hook, HookError, Meters, Record, StateError, mix


class Counter:
    def __init__(self) -> None:
        self.value = 0

    def state_dict(self) -> dict[str, object]:
        return {"value": self.value}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        value = state_dict["value"]
        assert isinstance(value, int)
        self.value = value


class Saves:
    """Keeps what it was given."""

    def __init__(self) -> None:
        self.saved: list[tuple[dict[str, object], int, str, list[str]]] = []

    def save(
        self, checkpoint: Mapping[str, object], *, step: int, epoch: int, reason: str, pointers: Sequence[str]
    ) -> str:
        self.saved.append((dict(checkpoint), step, reason, list(pointers)))
        return "here"


def test_the_points_are_the_22_of_the_design_in_its_order_and_on_exception() -> None:
    train = [
        "before_train",
        "after_train",
        "before_train_epoch",
        "after_train_epoch",
        "before_train_iter",
        "after_train_iter",
    ]
    expected = ["before_run", "after_run"]
    expected += [name.replace("train", mode) for mode in ("train", "val", "test") for name in train]
    expected += ["before_save_checkpoint", "after_load_checkpoint", "on_exception"]
    assert list(HOOK_POINTS) == expected
    assert len(expected) == 23


def test_a_state_comes_back_whole_and_counts_the_attempt() -> None:
    engine = Engine({"counter": Counter()})
    engine.part("counter", Counter).value = 7
    engine.meters.add("loss", 2.0, weight=3.0)
    engine.commit(steps=5, epochs=1)
    other = Engine({"counter": Counter()})
    other.load_state_dict(engine.state_dict())
    assert (other.step, other.epoch, other.commits, other.attempt) == (5, 1, 1, 2)
    assert other.part("counter", Counter).value == 7
    assert other.meters.drain() == {"loss": 2.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("counter"), "has no state for the part 'counter' of this run"),
        (lambda state: state.update(extra={}), "has state for the part 'extra', which this run lacks"),
        (lambda state: state.pop("engine"), "no mapping 'engine'"),
        (lambda state: state["engine"].update(step="x"), "not whole numbers"),
        (lambda state: state.update(counter={}), "counter: Counter does not take this state: KeyError"),
        (lambda state: state.update(counter=3), "counter: expected a mapping, got a int"),
    ],
)
def test_a_state_that_does_not_fit_names_what_is_wrong(change: object, message: str) -> None:
    state = Engine({"counter": Counter()}).state_dict()
    assert callable(change)
    change(state)
    with pytest.raises(StateError, match=message):
        Engine({"counter": Counter()}).load_state_dict(state)


def test_a_part_is_asked_for_by_name_and_kind() -> None:
    engine = Engine({"counter": Counter()})
    with pytest.raises(EngineError, match="no part 'conter'; did you mean 'counter'"):
        engine.part("conter", Counter)
    with pytest.raises(EngineError, match="is a Counter, not a Meters"):
        engine.part("counter", Meters)
    with pytest.raises(EngineError, match="may not be called 'hooks'"):
        Engine({"hooks": Counter()})


def test_requests_merge_into_one_checkpoint_at_the_commit() -> None:
    saves = Saves()
    engine = Engine(checkpointer=saves)
    engine.request_checkpoint("every 2 steps")
    engine.request_checkpoint("best", "best")
    engine.request_checkpoint("best", "best")
    assert not saves.saved
    engine.commit(steps=1)
    engine.commit(steps=1)
    assert [(step, reason, pointers) for _, step, reason, pointers in saves.saved] == [
        (1, "every 2 steps, best", ["latest", "best"])
    ]


def test_a_request_without_a_checkpointer_is_an_error_not_silence() -> None:
    engine = Engine()
    engine.request_checkpoint("now")
    with pytest.raises(EngineError, match="no checkpointer"):
        engine.commit()


def test_records_carry_the_commit_that_delivered_them() -> None:
    engine = Engine()
    found: list[Record] = []
    engine.subscribe(found.append)
    engine.publish({"a": 1.0})
    assert not found
    engine.commit(steps=3)
    engine.publish({"a": 2.0})
    engine.commit(epochs=1)
    assert found == [Record({"a": 1.0}, 3, 0, 1, 1), Record({"a": 2.0}, 3, 1, 2, 1)]


def test_a_request_that_no_commit_carried_out_is_carried_out_at_the_end_of_the_run() -> None:
    class Stops(Hook):
        def before_run(self, engine: Engine) -> None:
            engine.request_checkpoint("SIGTERM")
            engine.request_stop("SIGTERM")

    saves = Saves()
    engine = Engine(checkpointer=saves)
    engine.attach(Stops())
    engine.run()
    assert [reason for _, _, reason, _ in saves.saved] == ["SIGTERM"]


def test_hooks_are_printed_in_their_order() -> None:
    class Late(Hook):
        priority = 90

        def after_run(self, engine: Engine) -> None:
            pass

    class Early(Hook):
        priority = 95
        before = ("late",)

        def before_run(self, engine: Engine) -> None:
            pass

    engine = Engine()
    engine.attach(Late(), "late")
    engine.attach(Early(), "early")
    assert [line.split() for line in engine.describe_hooks().splitlines()] == [
        ["95", "early", "before_run"],
        ["90", "late", "after_run"],
    ]


class TwoPlayers(Hook):
    """The hook points of a loop that trains two networks in turns."""

    def before_generator(self, engine: Engine, noise: object, /) -> None:
        """Before the generator's step."""

    def after_generator(self, engine: Engine, noise: object, /) -> None:
        """After it."""


def test_a_loop_fires_points_of_its_own() -> None:
    heard: list[object] = []

    class Listens(TwoPlayers):
        def before_generator(self, engine: Engine, noise: object) -> None:
            heard.append(noise)

        def before_run(self, engine: Engine) -> None:
            heard.append(engine)

    engine = Engine(points=TwoPlayers)
    engine.attach(Listens())
    engine.fire("before_generator", 3)
    engine.fire("after_generator", 4)
    assert heard == [3]
    engine.run()
    assert heard == [3, engine]
    assert "before_generator" in engine.describe_hooks()
    with pytest.raises(EngineError, match="did you mean 'before_generator'"):
        engine.fire("before_generater", 3)
    with pytest.raises(EngineError, match="no hook point 'before_run' of a loop's own"):
        engine.fire("before_run")


def test_own_points_are_checked_as_all_others() -> None:
    class Misspelt(TwoPlayers):
        def before_generater(self, engine: Engine, noise: object) -> None: ...

    class Short:
        def before_generator(self, engine: Engine) -> None: ...

    engine = Engine(points=TwoPlayers)
    with pytest.raises(HookError, match="did you mean 'before_generator'"):
        engine.attach(Misspelt())
    with pytest.raises(HookError, match=r"before_generator\(engine, noise\)"):
        engine.attach(Short())
    with pytest.raises(HookError, match="'after_generator' is not a hook point"):
        Engine().attach(TwoPlayers())


def test_an_error_while_a_run_ends_for_a_defect_says_so() -> None:
    class Fails(Hook):
        def after_train(self, engine: Engine) -> None:
            raise ValueError("a defect")

        def before_run(self, engine: Engine) -> None:
            engine.fail(OSError("the disk is full"))
            engine.fail(ValueError("a later one"))
            raise KeyError("another")

    engine = Engine()
    engine.attach(Fails(), "fails")
    with pytest.raises(KeyError) as caught:
        engine.run()
    assert "the run was stopping: OSError: the disk is full" in caught.value.__notes__


def test_a_handler_may_be_any_callable() -> None:
    heard: list[Engine] = []

    class Plain:
        def __init__(self) -> None:
            self.before_run = heard.append

    engine = Engine()
    engine.attach(Plain())
    engine.run()
    assert heard == [engine]


def test_a_priority_that_is_no_number_is_refused() -> None:
    class Loud(Hook):
        priority = "HIGH"  # type: ignore[assignment]  # the mistake under test

        def after_run(self, engine: Engine) -> None:
            pass

    with pytest.raises(HookError, match="priority is 'HIGH', not an integer"):
        Engine().attach(Loud())


def test_meters_give_weighted_means_and_begin_anew() -> None:
    meters = Meters()
    meters.gauges["lr"] = lambda: 0.5
    meters.add("loss", 1.0, weight=3)
    meters.add("loss", 2.0, weight=1)
    assert meters.drain() == {"loss": 1.25, "lr": 0.5}
    assert meters.drain() == {"lr": 0.5}
    meters.add("loss", Fraction(1, 2))
    meters.add("loss", 1.5)
    assert meters.state_dict() == {"loss": [2.0, 2.0]}
    assert meters.drain() == {"loss": 1.0, "lr": 0.5}
    with pytest.raises(StateError, match=r"meters\.loss"):
        meters.load_state_dict({"loss": [1.0]})


class Read:
    """A number that knows how often somebody wanted it."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.times = 0

    def __float__(self) -> float:
        self.times += 1
        return self.value


def test_meters_read_what_was_added_when_they_are_read_or_when_thousands_wait() -> None:
    meters = Meters()
    values = [Read(1.0), Read(4.0)]
    meters.add("loss", values[0])
    meters.add("loss", values[1], weight=2)
    assert [value.times for value in values] == [0, 0]
    assert meters.state_dict() == {"loss": [9.0, 3.0]}
    assert meters.drain() == {"loss": 3.0}
    assert [value.times for value in values] == [1, 1]
    for _ in range(10_000):  # nobody reads meanwhile
        meters.add("loss", values[0])
    assert values[0].times > 5000
    assert meters.drain() == {"loss": 1.0}


def test_a_state_that_meters_take_replaces_what_waits() -> None:
    meters = Meters()
    meters.add("loss", 7.0)
    meters.load_state_dict({"loss": [4.0, 2.0]})
    assert meters.drain() == {"loss": 2.0}


def test_a_hook_is_called_at_no_point_where_it_is_idle_when_before_run_is_over() -> None:
    class Worker(Hook):
        def __init__(self, before: tuple[str, ...], later: tuple[str, ...]) -> None:
            self.idle = before
            self.later = later
            self.calls = 0

        def before_run(self, engine: Engine) -> None:
            self.idle = self.later

        def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
            self.calls += 1

    class Once:
        def run(self, engine: Engine) -> None:
            if fire := engine.points.after_train_iter:
                fire(engine, 0, None, None)

        def state_dict(self) -> dict[str, object]:
            return {}

        def load_state_dict(self, state_dict: dict[str, object]) -> None:
            pass

    engine = Engine()
    hook = Worker(("after_train_iter",), ("after_train_iter",))
    engine.attach(hook)
    assert engine.points.after_train_iter is None, "a point where all are idle costs a call"
    engine.run(Once())
    assert hook.calls == 0
    becomes, wakes = Worker((), ("after_train_iter",)), Worker(("after_train_iter",), ())
    engine.attach(becomes, "becomes idle")
    engine.attach(wakes, "wakes")
    engine.run(Once())
    assert (hook.calls, becomes.calls, wakes.calls) == (0, 0, 1)
    wakes.later = ("after_train_iter",)
    hook.later = ()
    engine.run(Once())
    assert (hook.calls, becomes.calls, wakes.calls) == (1, 0, 1)


def test_mixed_seeds_do_not_collide_where_sums_do() -> None:
    assert mix(0, 1) != mix(1, 0)
    assert mix(1) != mix("1")
    assert mix("a", "b") != mix("ab")
    assert len({mix(seed, epoch) for seed in range(50) for epoch in range(50)}) == 2500
    assert mix(3, 4, "order") == 536410104295562366  # fixed: states of other machines depend on it
