"""Registries: names to callables, declared without importing."""

import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from treenail.kernel import Adapter, MissingDependencyError, Namespace, Registry, RegistryError, installed_adapters


def registry(*declared: Adapter | Namespace, scope: str = "ours") -> Registry[object]:
    found: Registry[object] = Registry("hook")
    for each in declared:
        found.declare(each, scope)
    return found


COUNTER = Adapter(port="hook", name="counter", target="collections:Counter", aliases=("Counter", "Tally"))


def test_a_name_and_its_aliases_lead_to_the_callable() -> None:
    from collections import Counter

    found = registry(COUNTER)
    assert [found.resolve(name) for name in ("counter", "Counter", "Tally", "ours:counter")] == [Counter] * 4


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(RegistryError, match=r"unknown hook 'conter'; did you mean 'counter'\?"):
        registry(COUNTER).resolve("conter")


def test_a_name_of_two_packages_must_be_told_apart() -> None:
    found = registry(COUNTER)
    found.declare(Adapter(port="hook", name="counter", target="itertools:count"), "theirs")
    with pytest.raises(RegistryError, match="write one of 'ours:counter', 'theirs:counter'"):
        found.resolve("counter")
    import itertools

    assert found.resolve("theirs:counter") is itertools.count


def test_a_name_taken_twice_in_a_package_is_refused() -> None:
    found = registry(COUNTER)
    with pytest.raises(RegistryError, match="'counter' is registered twice"):
        found.declare(COUNTER, "ours")
    with pytest.raises(RegistryError, match="'Tally' is registered twice"):
        found.register("Tally")(dict)


def test_a_declaration_for_another_port_is_refused() -> None:
    with pytest.raises(RegistryError, match="for the port 'sampler'"):
        registry(Adapter(port="sampler", name="x", target="a:b"))


def test_a_class_of_this_process_can_be_registered_by_a_decorator() -> None:
    found: Registry[object] = Registry("hook")

    @found.register("mine", "Mine")
    class Mine:
        pass

    assert found.resolve("Mine") is Mine
    assert found.names() == ["mine", "Mine"]


def test_declaring_imports_nothing() -> None:
    sys.modules.pop("this", None)
    registry(Adapter(port="hook", name="zen", target="this:s", requires=("this",)))
    assert "this" not in sys.modules


def test_a_missing_dependency_names_what_to_install() -> None:
    found = registry(Adapter(port="hook", name="x", target="a:b", requires=("no_such_package",), install="ours[x]"))
    with pytest.raises(MissingDependencyError, match=r"'x' needs no_such_package, .*pip install 'ours\[x\]'"):
        found.resolve("x")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("json", "write 'package.module:attribute'"),
        ("no_such_module:x", "No module named"),
        ("json:dupms", "did you mean 'dump"),
        ("json:__name__", "is a str, not a class or function"),
    ],
)
def test_a_target_that_leads_nowhere_says_why(target: str, message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        registry(Adapter(port="hook", name="x", target=target)).resolve("x")


def test_a_namespace_offers_the_classes_below_its_base() -> None:
    found = registry(Namespace(port="hook", module="collections", base="builtins:dict", match="[^C].*"))
    assert {"OrderedDict", "defaultdict"} <= set(found.names())
    assert "Counter" not in found
    assert "deque" not in found


def test_entry_points_of_installed_packages_are_found_and_bad_ones_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = dict(installed_adapters())
    assert "treenail" in ours
    points = EntryPoints([EntryPoint("broken", "no_such_module:x", "treenail.adapters")])
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: points)
    with pytest.raises(RegistryError, match="adapters of 'broken' cannot be loaded"):
        list(installed_adapters())
