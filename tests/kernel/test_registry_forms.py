"""Registering classes and functions of this process: every form, replacing and forgetting."""

import functools
from collections import Counter, OrderedDict
from typing import assert_type

import pytest

from treenail.kernel import Adapter, Registry, RegistryError


def hooks() -> Registry[object]:
    found: Registry[object] = Registry("hook")
    found.declare(Adapter(port="hook", name="counter", target="collections:Counter", aliases=("Tally",)), "ours")
    return found


def test_every_form_registers_and_gives_back_what_it_got() -> None:
    found: Registry[int] = Registry("number")

    @found.register
    def bare(start: int) -> int:
        return start

    @found.register()
    def called(start: int) -> int:
        return start

    @found.register("third", "troisième")
    def named(start: int) -> int:
        return start

    def direct(start: int) -> int:
        return start

    assert found.register(direct) is direct
    assert found.register(direct, "fifth", "cinquième") is direct
    assert_type(bare(1) + called(1) + named(1), int)
    assert dict(found.registered) == {
        "bare": bare,
        "called": called,
        "third": named,
        "troisième": named,
        "direct": direct,
        "fifth": direct,
        "cinquième": direct,
    }
    assert [found.resolve(name) for name in found.names()] == list(found.registered.values())


def test_classes_keep_their_type() -> None:
    found: Registry[object] = Registry("hook")

    @found.register
    class Mine:
        size = 3

    @found.register(force=True)
    class Other:
        size = 4

    assert (Mine.size, Other.size, found.names()) == (3, 4, ["Mine", "Other"])


def test_one_decorator_registers_each_under_its_own_name() -> None:
    found: Registry[object] = Registry("hook")
    register = found.register()
    register(Counter)
    register(OrderedDict)
    assert found.names() == ["Counter", "OrderedDict"]


@pytest.mark.parametrize("taken", ["counter", "Tally", "mine"])
def test_a_taken_name_is_refused_whole(taken: str) -> None:
    found = hooks()
    found.register(dict, "mine")
    with pytest.raises(RegistryError, match=f"the hook '{taken}' is registered twice; choose another name"):
        found.register(list, "free", taken)
    assert "free" not in found


def test_force_replaces_and_unregister_brings_a_declaration_back() -> None:
    found = hooks()
    found.register(dict, "counter", force=True)
    assert found.resolve("counter") is dict
    assert found.resolve("ours:counter") is Counter
    found.register(list, "counter", force=True)
    assert found.resolve("counter") is list
    found.unregister("counter")
    assert found.resolve("counter") is Counter


def test_only_what_was_registered_can_be_forgotten() -> None:
    found = hooks()
    found.register(dict, "mine")
    with pytest.raises(RegistryError, match="no hook 'counter' was registered"):
        found.unregister("counter")
    with pytest.raises(RegistryError, match=r"no hook 'mien' was registered; did you mean 'mine'\?"):
        found.unregister("mien")


def test_what_has_no_name_needs_one() -> None:
    found = hooks()
    first: functools.partial[dict[str, int]] = functools.partial(dict, a=1)
    with pytest.raises(RegistryError, match="has no name of its own; choose another name"):
        found.register(first)
    assert found.register(first, "first") is first
    assert found.resolve("first")() == {"a": 1}


def test_what_is_registered_is_shown_as_a_copy() -> None:
    found = hooks()
    assert found.registered == {}
    before = found.registered
    found.register(dict, "mine")
    assert (before, found.registered) == ({}, {"mine": dict})
