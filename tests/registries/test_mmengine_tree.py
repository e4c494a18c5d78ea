"""Trees of registries: parents, siblings, scopes, and how names are found in them."""

import contextvars
import importlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treenail.adapters.registries import UnregisteredError
from treenail.adapters.registries.mmengine import DefaultScope, Registry
from treenail.adapters.registries.mmengine.scope import _INSTANCES
from treenail.kernel import RegistryError


@pytest.fixture(autouse=True)
def no_default_scope() -> Iterator[None]:
    """Let each test begin without a default scope, and leave none to the next."""
    token = _INSTANCES.set(())
    yield
    _INSTANCES.reset(token)


class RReLU:
    def __init__(self, lower: float = 0.125, upper: float = 0.333) -> None:
        self.lower, self.upper = lower, upper


class LogSoftmax:
    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim


class Tree(NamedTuple):
    root: Registry[object]
    alpha: Registry[object]
    beta: Registry[object]


@pytest.fixture
def tree() -> Tree:
    """The tree of the documentation: mmengine above mmalpha and mmbeta."""
    root: Registry[object] = Registry("model", scope="mmengine")
    alpha = Registry("model", parent=root, scope="mmalpha")
    beta = Registry("model", parent=root, scope="mmbeta")
    root.register_module(module=RReLU)
    alpha.register_module(module=LogSoftmax)
    return Tree(root, alpha, beta)


def test_a_child_builds_its_own_and_its_parents(tree: Tree) -> None:
    assert isinstance(tree.alpha.build(cfg={"type": "LogSoftmax"}), LogSoftmax)
    built = tree.alpha.build(cfg={"type": "RReLU", "lower": 0.2})
    assert isinstance(built, RReLU)
    assert built.lower == 0.2
    assert isinstance(tree.alpha.build(cfg={"type": "mmengine.RReLU"}), RReLU)


def test_the_parents_module_of_the_same_name_needs_the_scope(tree: Tree) -> None:
    class Other:
        pass

    tree.alpha.register_module("RReLU", module=Other)
    assert tree.alpha.get("RReLU") is Other
    assert tree.alpha.get("mmengine.RReLU") is RReLU
    assert tree.root.get("RReLU") is RReLU


def test_a_sibling_is_reached_by_its_scope_only(tree: Tree) -> None:
    assert isinstance(tree.beta.build(cfg={"type": "mmalpha.LogSoftmax"}), LogSoftmax)
    assert tree.beta.get("LogSoftmax") is None
    message = r"scope 'mmbeta' knows no 'LogSoftmax'; did you mean 'mmalpha.LogSoftmax'\?"
    with pytest.raises(KeyError, match=message):
        tree.beta.build({"type": "LogSoftmax"})


def test_the_own_scope_searches_nowhere_else(tree: Tree) -> None:
    assert tree.alpha.get("mmalpha.LogSoftmax") is LogSoftmax
    assert tree.alpha.get("mmalpha.RReLU") is None
    assert tree.alpha.get("nowhere.RReLU") is None
    assert tree.root.get("nowhere.RReLU") is None
    assert tree.root.get("mmalpha:LogSoftmax") is None


def test_a_scope_of_the_config_holds_for_what_is_built_within(tree: Tree) -> None:
    class Detector:
        def __init__(self, head: dict[str, object]) -> None:
            self.head = tree.beta.build(head)

    tree.alpha.register_module(module=Detector)
    cfg = {"type": "LogSoftmax", "_scope_": "mmalpha"}
    assert isinstance(tree.beta.build(cfg=cfg), LogSoftmax)
    assert cfg == {"type": "LogSoftmax", "_scope_": "mmalpha"}
    detector = tree.beta.build({"type": "Detector", "_scope_": "mmalpha", "head": {"type": "LogSoftmax"}})
    assert isinstance(detector, Detector)
    assert isinstance(detector.head, LogSoftmax)
    with pytest.raises(UnregisteredError):
        tree.beta.build({"type": "LogSoftmax"})
    assert DefaultScope.get_current_instance() is None


def test_a_scope_is_left_after_an_error(tree: Tree) -> None:
    with pytest.raises(UnregisteredError):
        tree.beta.build({"type": "Missing", "_scope_": "mmalpha"})
    assert DefaultScope.get_current_instance() is None


def test_the_build_function_is_inherited() -> None:
    root = Registry("model", build_func=lambda cfg, registry: (cfg, registry.scope), scope="a")
    child = Registry("model", parent=root, scope="b")
    other = Registry("model", build_func=lambda cfg, registry: (None, ""), parent=root, scope="c")
    assert child.build("x") == ("x", "b")
    assert Registry("model", parent=child, scope="d").build("x") == ("x", "d")
    assert other.build("x") == (None, "")


def test_the_scope_is_the_package_that_makes_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mmtwig" / "models"
    package.mkdir(parents=True)
    (package / "nets.py").write_text(
        "from treenail.adapters.registries.mmengine import Registry\n"
        "MODELS = Registry('models')\n"
        "TYPED = Registry[int]('models')\n"
        "INFERRED = Registry.infer_scope()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    nets = importlib.import_module("mmtwig.models.nets")
    assert (nets.MODELS.scope, nets.TYPED.scope, nets.INFERRED) == ("mmtwig", "mmtwig", "mmtwig")
    program = "from treenail.adapters.registries.mmengine import Registry as R; print(R('m').scope, R.infer_scope())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "__main__ __main__\n"


def test_a_key_is_split_at_its_first_scope() -> None:
    assert Registry.split_scope_key("mmdet.ResNet") == ("mmdet", "ResNet")
    assert Registry.split_scope_key("ResNet") == (None, "ResNet")
    assert Registry.split_scope_key("mmdet.sub.ResNet") == ("mmdet", "sub.ResNet")


def scope_name() -> str | None:
    current = DefaultScope.get_current_instance()
    return None if current is None else current.scope_name


def test_the_scope_and_the_registry_are_switched_and_switched_back() -> None:
    root = Registry("models", scope="mmengine")
    detection = Registry("mmdet_model", scope="mmdet", parent=root)
    classification = Registry("mmcls_model", scope="mmcls", parent=root)
    custom = Registry("custom_model", scope="custom", parent=root)
    DefaultScope.get_instance("task", scope_name="custom")
    assert scope_name() == "custom"
    with custom.switch_scope_and_registry(scope="mmcls") as found:
        assert (scope_name(), found) == ("mmcls", classification)
    with custom.switch_scope_and_registry(scope="mmdet") as outer:
        assert (scope_name(), outer) == ("mmdet", detection)
        with custom.switch_scope_and_registry(scope="mmcls") as inner:
            assert (scope_name(), inner) == ("mmcls", classification)
        assert scope_name() == "mmdet"
    assert scope_name() == "custom"
    with detection.switch_scope_and_registry(scope=None) as found:
        assert (scope_name(), found) == ("custom", custom)
    with detection.switch_scope_and_registry(scope="nowhere") as found:
        assert (scope_name(), found) == ("nowhere", detection)


def test_a_default_scope_chooses_the_registry_of_builds(tree: Tree) -> None:
    with pytest.raises(UnregisteredError):
        tree.root.build({"type": "LogSoftmax"})
    DefaultScope.get_instance("task", scope_name="mmalpha")
    assert isinstance(tree.root.build({"type": "LogSoftmax"}), LogSoftmax)
    assert tree.root.get("LogSoftmax") is None


def test_default_scopes_have_names() -> None:
    assert DefaultScope.get_current_instance() is None
    made = DefaultScope.get_instance("task", scope_name="mmdet")
    assert DefaultScope.get_instance("task") is made
    assert (made.name, made.scope_name) == ("task", "mmdet")
    assert DefaultScope.get_current_instance() is made
    other = DefaultScope.get_instance("other", scope_name="mmcls")
    assert DefaultScope.get_instance("task") is made
    assert DefaultScope.get_current_instance() is other
    with pytest.raises(RegistryError, match="the default scope 'task' is 'mmdet', not 'mmcls'"):
        DefaultScope.get_instance("task", scope_name="mmcls")
    with pytest.raises(KeyError, match="no default scope is called 'new' in this context"):
        DefaultScope.get_instance("new")


def test_an_overwritten_scope_comes_back_and_scopes_made_meanwhile_stay() -> None:
    DefaultScope.get_instance("task", scope_name="mmdet")
    with DefaultScope.overwrite_default_scope(None):
        assert scope_name() == "mmdet"
    with DefaultScope.overwrite_default_scope("mmcls"):
        assert scope_name() == "mmcls"
    assert scope_name() == "mmdet"
    with DefaultScope.overwrite_default_scope("mmcls"):
        DefaultScope.get_instance("made inside", scope_name="mmpose")
    assert scope_name() == "mmpose"


def test_a_new_thread_has_no_default_scope_unless_it_is_given_the_context() -> None:
    DefaultScope.get_instance("task", scope_name="mmdet")
    context, seen = contextvars.copy_context(), list[str | None]()

    def look() -> None:
        seen.append(scope_name())

    for run in (look, lambda: context.run(look)):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert seen == [None, "mmdet"]


class Node(NamedTuple):
    """A registry of the naive model: where it hangs, its scope, and its names."""

    parent: int | None
    scope: str
    names: frozenset[str]


def documented_get(nodes: list[Node], number: int, key: str) -> int | None:
    """Follow the documented algorithm in the plainest way: the number of the node that answers."""
    node = nodes[number]
    if "." not in key:
        at: int | None = number
        while at is not None and key not in nodes[at].names:
            at = nodes[at].parent
        return at
    scope, name = key.split(".", 1)
    if scope == node.scope:
        return number if name in node.names else None
    for child, candidate in enumerate(nodes):
        if candidate.parent == number and candidate.scope == scope:
            return documented_get(nodes, child, name)
    return None if node.parent is None else documented_get(nodes, 0, key)


SCOPES, NAMES = ("a", "b", "c"), ("x", "y")


@st.composite
def trees(draw: st.DrawFn) -> list[Node]:
    nodes: list[Node] = []
    for number in range(draw(st.integers(1, 8))):
        parent = draw(st.integers(0, number - 1)) if number else None
        taken = {node.scope for node in nodes if node.parent == parent and parent is not None}
        free = [scope for scope in SCOPES if scope not in taken]
        if free:
            nodes.append(Node(parent, draw(st.sampled_from(free)), draw(st.frozensets(st.sampled_from(NAMES)))))
        else:
            break
    return nodes


KEYS = st.builds(
    lambda scopes, name: ".".join([*scopes, name]),
    st.lists(st.sampled_from((*SCOPES, "nowhere")), max_size=3),
    st.sampled_from((*NAMES, "z")),
)


@given(trees(), KEYS)
def test_names_are_found_by_the_documented_algorithm(nodes: list[Node], key: str) -> None:
    registries: list[Registry[int]] = []
    for number, node in enumerate(nodes):
        parent = None if node.parent is None else registries[node.parent]
        registry: Registry[int] = Registry("r", parent=parent, scope=node.scope)
        for name in node.names:
            registry.register_module(name=name, module=answer(number))
        registries.append(registry)
    for number, registry in enumerate(registries):
        found = registry.get(key)
        expected = documented_get(nodes, number, key)
        assert (None if found is None else found()) == expected
        assert (key in registry) == (expected is not None)


def answer(number: int) -> Callable[[], int]:
    def give() -> int:
        return number

    return give


@given(trees())
def test_the_kernels_registry_knows_all_that_is_below_by_scopes_with_colons(nodes: list[Node]) -> None:
    registries: list[Registry[int]] = []
    paths: list[list[str]] = []
    for number, node in enumerate(nodes):
        parent = None if node.parent is None else registries[node.parent]
        registry: Registry[int] = Registry("r", parent=parent, scope=node.scope)
        registries.append(registry)
        paths.append([] if node.parent is None else [*paths[node.parent], node.scope])
        for name in sorted(node.names):
            registry.register_module(name=name, module=answer(number))
    expected = {":".join([*path, name]): number for number, path in enumerate(paths) for name in nodes[number].names}
    core = registries[0].core
    assert {name: core.resolve(name)() for name in core.names()} == expected
    assert all(set(registry.module_dict) == node.names for registry, node in zip(registries, nodes, strict=True))
