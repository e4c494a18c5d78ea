"""The laws of the engine's hook dispatch."""

from __future__ import annotations

import operator
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from treenail.contracts.laws._listening import Work, arguments_of, bound_points, fire, noting, told_hook
from treenail.contracts.laws._support import accepted, examples, refused
from treenail.contracts.laws.commits import CommitLaws
from treenail.kernel import HOOK_POINTS, Engine, Hook, HookError, TrainingError

NAMES = ("alfa", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel")  # none is nearly another

_points = st.sampled_from(HOOK_POINTS)
_AFTERWARDS = [
    point for point in HOOK_POINTS if point.startswith("after_") and point not in ("after_run", "after_load_checkpoint")
]
_priorities = st.integers(-3, 3)
_TAKES: tuple[Callable[..., None], ...] = (  # methods that take so many arguments besides self
    lambda self: None,
    lambda self, a: None,
    lambda self, a, b: None,
    lambda self, a, b, c: None,
    lambda self, a, b, c, d: None,
    lambda self, a, b, c, d, e: None,
)


class HookDispatchLaws(CommitLaws):
    """What every engine obeys that dispatches hooks: subclass it, define `make`, and let pytest collect the subclass."""

    def _refuses(self, hook: object, what: str, *, engine: Engine | None = None, name: str | None = None) -> str:
        """Attach what must be refused, see that nothing changed, and return the message."""
        engine = engine or self.make()
        heard: list[str] = []
        engine.attach(told_hook(["before_run"], noting(heard, "present")), "present")
        before = list(engine.hooks), bound_points(engine)
        with refused(f"attaching {what}", HookError) as refusal:
            engine.attach(hook, name)
        assert list(engine.hooks) == before[0], f"after refusing {what} the hooks are {list(engine.hooks)}"
        assert bound_points(engine) == before[1], f"refusing {what} changed which points fire"
        fire(engine, "before_run", engine)
        assert heard == ["present"], f"after refusing {what} the hooks attached before heard {heard}"
        return refusal.text

    # Order

    @given(priorities=st.lists(_priorities, min_size=1, max_size=8), point=_points)
    @examples(50)
    def test_hooks_run_by_priority_then_attachment(self, priorities: list[int], point: str) -> None:
        """Smaller priorities run first, equal ones in the order of attachment, at every point."""
        engine, heard = self.make(), list[tuple[int, int]]()
        for number, priority in enumerate(priorities):
            listener = noting(heard, (priority, number))
            engine.attach(told_hook([point], listener, priority=priority), f"{number}th")
        fire(engine, point, *arguments_of(engine, point))
        assert heard == sorted(heard), f"ran as (priority, attachment) {heard}"
        assert len(heard) == len(priorities), f"{len(heard)} of {len(priorities)} hooks ran"

    @given(data=st.data(), order=st.permutations(NAMES), attached=st.permutations(NAMES))
    @examples(50)
    def test_before_and_after_are_respected(self, data: st.DataObject, order: list[str], attached: list[str]) -> None:
        """Declared `before` and `after` hold whatever the priorities and the order of attachment."""
        forward = [(first, second) for number, first in enumerate(order) for second in order[number + 1 :]]
        befores = data.draw(st.lists(st.sampled_from(forward), max_size=6, unique=True), "(hook, before)")
        afters = data.draw(st.lists(st.sampled_from(forward), max_size=6, unique=True), "(after, hook)")
        engine, heard = self.make(), list[str]()
        for name in attached:
            before = tuple(second for first, second in befores if first == name)
            after = tuple(first for first, second in afters if second == name)
            priority = data.draw(_priorities, f"priority of {name}")
            hook = told_hook(["after_run"], noting(heard, name), priority=priority, before=before, after=after)
            engine.attach(hook, name)
        fire(engine, "after_run", engine)
        assert sorted(heard) == sorted(NAMES), f"attached {sorted(NAMES)}, ran {heard}"
        for first, second in (*befores, *afters):
            assert heard.index(first) < heard.index(second), f"'{first}' is declared before '{second}', ran {heard}"
        assert list(engine.hooks) == heard, f"engine.hooks says {list(engine.hooks)}, ran {heard}"

    def test_absent_names_constrain_nothing(self) -> None:
        """A `before` or `after` of a hook that is not attached is no error and does not change the order."""
        engine = self.make()
        with accepted("attaching hooks whose `before` and `after` name hooks that are not attached"):
            engine.attach(told_hook(["after_run"], before=("zulu",)), "alfa")
            engine.attach(told_hook(["after_run"], after=("yankee",)), "bravo")
        assert list(engine.hooks) == ["alfa", "bravo"], f"the order is {list(engine.hooks)}"

    @given(cycle=st.integers(1, 5).flatmap(lambda n: st.permutations(NAMES[:n])), flips=st.integers(0, 31))
    @examples(40)
    def test_cycles_are_refused_and_named(self, cycle: list[str], flips: int) -> None:
        """The hook that closes a cycle of `before` and `after` is refused, and every hook of the cycle named."""
        engine = self.make()
        followers = dict(zip(cycle, [*cycle[1:], cycle[0]], strict=True))
        before: dict[str, tuple[str, ...]] = dict.fromkeys(cycle, ())
        after: dict[str, tuple[str, ...]] = dict.fromkeys(cycle, ())
        for number, (first, second) in enumerate(followers.items()):
            if flips >> number & 1:
                before[first] = (second,)
            else:
                after[second] = (first,)
        hooks = [told_hook(["after_run"], before=before[name], after=after[name]) for name in cycle]
        for name, hook in zip(cycle[:-1], hooks, strict=False):
            engine.attach(hook, name)
        text = self._refuses(hooks[-1], f"the last hook of the cycle {cycle}", engine=engine, name=cycle[-1])
        missing = [name for name in cycle if name not in text]
        assert not missing, f"the message does not name {missing} of the cycle {cycle}: {text}"

    # What may be attached

    @given(point=_points, at=st.integers(0, 6), edit=st.sampled_from(("drop", "double", "swap")))
    @examples(60)
    def test_a_misspelt_point_is_refused_with_a_hint(self, point: str, at: int, edit: str) -> None:
        """A method whose name is nearly a point's is refused, the point it means is named, and nothing is attached."""
        edits = {"drop": point[at + 1 :], "double": 2 * point[at] + point[at + 1 :]}
        misspelt = point[:at] + edits.get(edit, point[at + 1] + point[at] + point[at + 2 :])
        if misspelt == point:  # two equal letters swapped
            return
        hook = told_hook(["before_run"], **{misspelt: lambda *_arguments: None})
        text = self._refuses(hook, f"a hook with '{misspelt}'")
        assert misspelt in text, f"the message does not name '{misspelt}': {text}"
        hinted = "did you mean" in text and point in text
        assert hinted, f"'{misspelt}' is nearly '{point}', the message does not say so: {text}"

    def test_a_point_nobody_knows_is_refused(self) -> None:
        """A method that begins as points do, but is none, is refused and named."""
        for name in ("after_everything", "before_lunch", "on_success", "after_backward"):
            text = self._refuses(told_hook(["before_run"], **{name: lambda *_arguments: None}), f"a hook with '{name}'")
            assert name in text, f"the message does not name '{name}': {text}"

    @given(point=_points, surplus=st.sampled_from((-1, 1)))
    @examples(50)
    def test_a_wrong_signature_is_refused(self, point: str, surplus: int) -> None:
        """A point that cannot take what the engine passes is refused and named, and nothing is attached."""
        method = _TAKES[len(arguments_of(self.make(), point)) + surplus]
        text = self._refuses(told_hook([], **{point: method}), f"a hook whose '{point}' has {surplus:+} parameter")
        assert point in text, f"the message does not name '{point}': {text}"

    def test_an_object_without_points_is_refused(self) -> None:
        """What overrides no point at all is refused, and so is a class in place of its object."""
        for nothing in (object(), told_hook([]), Hook(), type(told_hook(["after_run"]))):
            self._refuses(nothing, "an object without a point")

    def test_a_name_is_taken_once(self) -> None:
        """A second hook of the same name is refused, and the first stays."""
        text = self._refuses(told_hook(["before_run"]), "a second hook named 'present'", name="present")
        assert "present" in text, f"the message does not name 'present': {text}"

    def test_any_object_with_a_point_is_a_hook(self) -> None:
        """An object needs no base class: a method named as a point is fired."""
        heard: list[object] = []

        class Plain:
            def after_run(self, engine: object) -> None:
                heard.append(engine)

        engine = self.make()
        with accepted("attaching an object that has a point but not the base class"):
            engine.attach(Plain())
        fire(engine, "after_run", engine)
        assert heard == [engine], f"a plain object heard {heard}"

    # Firing

    @given(points=st.sets(_points))
    @examples(40)
    def test_a_point_nobody_overrides_is_none(self, points: set[str]) -> None:
        """points.x is None exactly where no attached hook overrides x, so that it costs nothing."""
        engine = self.make()
        if points:
            engine.attach(told_hook(points))
        bound = bound_points(engine)
        assert bound == points, f"hooks override {sorted(points)}, not None are {sorted(bound)}"

    def test_every_point_fires_once_with_its_arguments(self) -> None:
        """Each firing of each of the points calls a hook once, with the very objects given, and no other point."""
        heard: list[tuple[str, tuple[object, ...]]] = []
        engine = self.make()
        engine.attach(told_hook(HOOK_POINTS, lambda point, arguments: heard.append((point, arguments))))
        for point in HOOK_POINTS:
            arguments = arguments_of(engine, point)
            heard.clear()
            fire(engine, point, *arguments)
            assert [name for name, _ in heard] == [point], f"firing {point} once called {[name for name, _ in heard]}"
            given_back = heard[0][1]
            same = len(given_back) == len(arguments) and all(map(operator.is_, given_back, arguments))
            assert same, f"{point} was fired with {arguments}, the hook got {given_back}"

    @given(point=st.sampled_from(_AFTERWARDS))
    @examples(25)
    def test_a_defect_of_a_hook_keeps_no_other_from_running(self, point: str) -> None:
        """After a step, what a hook raises that is no TreenailError stops the run at its next commit, and ends it then."""
        error, heard = ValueError("spilled"), list[str]()

        def spill(_point: str, _arguments: tuple[object, ...]) -> None:
            raise error

        engine = self.make()
        engine.attach(told_hook([point], spill), "culprit")
        engine.attach(told_hook([point], noting(heard, "bystander")), "bystander")

        def work(engine: Engine) -> None:
            with accepted(f"firing {point} of a hook that has a defect"):
                fire(engine, point, *arguments_of(engine, point))
            assert heard == ["bystander"], f"{point}: of the other hooks, {heard} ran"
            assert "culprit" in str(engine.stop_reason), f"the run stops because of {engine.stop_reason!r}"
            engine.commit(steps=1)

        with refused("running a loop in which a hook has a defect", ValueError) as refusal:
            engine.run(Work(work), Work(lambda _engine: heard.append("a later loop")))
        assert refusal.error is error, f"{point}: another exception arrived, {refusal.error!r}"
        assert "a later loop" not in heard, f"after a defect at {point} a later loop was run"
        assert engine.step == 1, f"the step of the defect was not committed, {engine.step} were"
        notes = "\n".join(getattr(error, "__notes__", ()))
        assert "culprit" in notes, f"no note names the hook 'culprit': {notes!r}"
        assert point in notes, f"no note names the point '{point}': {notes!r}"

    @given(point=st.sampled_from([point for point in HOOK_POINTS if point != "on_exception"]))
    @examples(25)
    def test_an_exception_goes_on_and_names_the_hook(self, point: str) -> None:
        """What a hook refuses reaches the caller as it is, with a note that names hook and point."""
        error = TrainingError("spilled")

        def spill(_point: str, _arguments: tuple[object, ...]) -> None:
            raise error

        engine = self.make()
        engine.attach(told_hook([point]), "bystander")
        engine.attach(told_hook([point], spill), "culprit")
        with refused(f"firing {point} of a hook that raises", TrainingError) as refusal:
            fire(engine, point, *arguments_of(engine, point))
        assert refusal.error is error, f"{point}: another exception arrived, {refusal.error!r}"
        notes = "\n".join(getattr(error, "__notes__", ()))
        assert "culprit" in notes, f"no note names the hook 'culprit': {notes!r}"
        assert point in notes, f"no note names the point '{point}': {notes!r}"
        assert "bystander" not in notes, f"a note names a hook that did nothing wrong: {notes!r}"
