"""Any sequence of operations: attributes and items of a config agree with a dict, and a frozen one stays as it is."""

import contextlib
import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from treenail.adapters.trees import ConfigList, ConfigTree, FrozenConfigError
from treenail.kernel import ConfigError

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from("abcde")


class TreeMachine(RuleBasedStateMachine):
    """A tree and a dict to which the same is done; what one refuses, the other must not have done."""

    @initialize(entries=st.dictionaries(KEYS, VALUES))
    def begin(self, entries: dict[str, Any]) -> None:
        self.tree, self.model, self.frozen = ConfigTree(entries), copy.deepcopy(entries), False

    def both(self, act: Callable[[Any], Any]) -> None:
        if self.frozen:
            before = copy.deepcopy(self.model)
            with contextlib.suppress(FrozenConfigError, KeyError, IndexError, ValueError):
                act(self.tree)
            assert self.tree == before
            return
        outcomes: list[Any] = []
        for each in (self.tree, self.model):
            try:
                outcomes.append(act(each))
            except (KeyError, IndexError, ValueError) as error:
                outcomes.append([kind for kind in (KeyError, IndexError, ValueError) if isinstance(error, kind)])
        assert outcomes[0] == outcomes[1]

    @rule(key=KEYS, value=VALUES)
    def set_item(self, key: str, value: Any) -> None:
        self.both(lambda it: it.__setitem__(key, copy.deepcopy(value)))

    @rule(key=KEYS, value=VALUES)
    def set_attribute(self, key: str, value: Any) -> None:
        self.both(lambda it: setattr(it, key, value) if isinstance(it, ConfigTree) else it.update({key: value}))

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.both(lambda it: it.__delitem__(key))

    @rule(key=KEYS, default=VALUES)
    def pop(self, key: str, default: Any) -> None:
        self.both(lambda it: it.pop(key, default))

    @rule(key=KEYS, default=VALUES)
    def setdefault(self, key: str, default: Any) -> None:
        self.both(lambda it: it.setdefault(key, copy.deepcopy(default)))

    @rule()
    def popitem(self) -> None:
        self.both(lambda it: it.popitem())

    @rule(entries=st.dictionaries(KEYS, VALUES, max_size=2))
    def update(self, entries: dict[str, Any]) -> None:
        self.both(lambda it: it.update(copy.deepcopy(entries)))

    @rule(entries=st.dictionaries(KEYS, VALUES, max_size=2))
    def join(self, entries: dict[str, Any]) -> None:
        self.both(lambda it: it | copy.deepcopy(entries))

    @rule(data=st.data(), value=VALUES)
    def change_inside(self, data: st.DataObject, value: Any) -> None:
        parts = [path for path, part in inner_parts(self.model, ()) if path]
        if not parts:
            return
        path = data.draw(st.sampled_from(parts))
        act = data.draw(st.sampled_from(["set", "delete", "add", "clear", "reverse"]))

        def change(it: Any) -> Any:
            for step in path:
                it = it[step]
            if act == "clear":
                return it.clear()
            if isinstance(it, dict):
                return it.__setitem__("a", copy.deepcopy(value)) if act in ("set", "add") else it.__delitem__("a")
            if act == "reverse":
                return it.reverse()
            if act == "add":
                return it.append(copy.deepcopy(value))
            return it.__setitem__(0, copy.deepcopy(value)) if act == "set" else it.__delitem__(0)

        self.both(change)

    @rule(key=KEYS, other=KEYS)
    def assign_a_part_elsewhere(self, key: str, other: str) -> None:
        self.both(lambda it: it.__setitem__(other, it[key] if isinstance(it, ConfigTree) else copy.deepcopy(it[key])))

    @rule(other=st.dictionaries(KEYS, VALUES, max_size=2))
    def merge(self, other: dict[str, Any]) -> None:
        try:
            self.tree.merge(other)
        except FrozenConfigError:
            assert self.frozen
        except ConfigError:
            pass  # nothing may have been changed
        else:
            assert not self.frozen
            merge_by_hand(self.model, other)

    @rule(frozen=st.booleans())
    def freeze(self, frozen: bool) -> None:
        self.tree.freeze(frozen)
        self.frozen = frozen

    @rule()
    def go_on_with_a_copy(self) -> None:
        self.tree = pickle.loads(pickle.dumps(self.tree)).copy()

    @invariant()
    def the_views_agree(self) -> None:
        if not hasattr(self, "tree"):
            return
        assert self.tree == self.model
        assert self.tree.to_dict() == self.model
        assert list(self.tree) == list(self.model)
        assert {key: getattr(self.tree, key) for key in self.tree} == {key: self.tree[key] for key in self.tree}
        assert json.dumps(self.tree) == json.dumps(self.model)
        assert msgspec.json.encode(self.tree) == msgspec.json.encode(
            self.model
        )  # reads what Python's methods do not show
        assert self.tree.is_frozen() == self.frozen
        for path, part in inner_parts(self.tree, ()):
            assert isinstance(part, ConfigTree | ConfigList)
            assert self.tree.get(".".join(map(str, path))) is part if path else part is self.tree


def inner_parts(value: Any, path: tuple[Any, ...]) -> list[tuple[tuple[Any, ...], Any]]:
    """Return the mappings and lists in a value with their paths."""
    found = [(path, value)] if isinstance(value, dict | list) else []
    if isinstance(value, dict | list | tuple):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            found += inner_parts(inner, (*path, key))
    return found


def merge_by_hand(below: dict[str, Any], above: dict[str, Any]) -> None:
    for key, value in copy.deepcopy(above).items():
        if isinstance(value, dict) and key in below:
            merge_by_hand(below[key], value)
        else:
            below[key] = value


TestSequences = TreeMachine.TestCase
TestSequences.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
