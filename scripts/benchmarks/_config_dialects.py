"""A config of the corpus in the idiom of another system, the same single mistake in it.

The text is composed to YAML nodes, which keep doubled keys, quotes and aliases; the nodes are changed and written out.
Text that no YAML parser reads stays text: there only the word for `type` is changed.
"""

# PyYAML has no types where the types are checked.
# mypy: disable-error-code="import-untyped,no-untyped-call,unused-ignore"

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import yaml
from scripts.benchmarks._config_corpus import Case
from scripts.benchmarks._config_parts import component_paths, path_of
from scripts.benchmarks._config_systems import base_text
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

_FLOAT = re.compile(r"([-+]?\d+)([eE][-+]?\d+)")  # a float in YAML 1.2, a string in YAML 1.1
_FLOAT_WORD = re.compile(r"(?<![\w.])[-+]?\d+[eE][-+]?\d+(?![\w.])")
_VARIABLE = re.compile(r"\$\{env:(\w+)\}")
_LATE_KEYS = ("optimizer", "scheduler", "sampler", "loop")

Path = tuple[str | int, ...]


class Dialect(NamedTuple):
    """How a system writes a component.

    Args:
        marker: Its word for ``type``.
        misspelt: The same word, with the slip of ``tpye``.
        dotted: Whether components are named by module and class.
        nested: Key below which the arguments stand, if there is one.
        late: A key that a component has whose first argument comes later.
        positional: Its word for the arguments of ``Sequential``.
        variable: How a variable of the environment is written; None where it cannot be.
    """

    marker: str = "type"
    misspelt: str = "tpye"
    dotted: bool = False
    nested: str | None = None
    late: str | None = None
    positional: str = "args"
    variable: str | None = None


class Translation:
    """Writes cases in a dialect.

    Args:
        dialect: The dialect.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._paths = component_paths()

    def write(self, case: Case) -> str:
        """Return the text of a case in the dialect."""
        base = yaml.compose(base_text(case), Loader=yaml.SafeLoader)
        components: set[Path] = set()
        written: set[str] = set()
        _survey(base, (), components, written)
        if case.kind == "mistake":  # its author writes numbers that the system reads, unless they are the mistake
            written |= set(_FLOAT_WORD.findall(case.text))
        try:
            node = yaml.compose(case.text, Loader=yaml.SafeLoader)
        except yaml.YAMLError:
            return re.sub(r"\btype(?=: )", self._dialect.marker, case.text)
        changed = _Change(self._dialect, lambda name: path_of(name, self._paths), components, written)
        text: str = yaml.serialize(changed.change(node, ()), allow_unicode=True, width=1000)
        return text


def _survey(node: Node, path: Path, components: set[Path], written: set[str]) -> None:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if key.value == "type":
                components.add(path)
            _survey(value, (*path, key.value), components, written)
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            _survey(item, (*path, index), components, written)
    else:
        written.add(node.value)


class _Change:
    def __init__(
        self, dialect: Dialect, rename: Callable[[str], str], components: set[Path], written: set[str]
    ) -> None:
        self._dialect, self._rename = dialect, rename
        self._components, self._written = components, written
        self._done: dict[int, Node] = {}

    def change(self, node: Node, path: Path) -> Node:
        """Return a node in the dialect; a node that an alias repeats stays one node."""
        if id(node) not in self._done:
            self._done[id(node)] = self._changed(node, path)
        return self._done[id(node)]

    def _changed(self, node: Node, path: Path) -> Node:
        if isinstance(node, SequenceNode):
            items = [self.change(item, (*path, index)) for index, item in enumerate(node.value)]
            return SequenceNode(node.tag, items, flow_style=node.flow_style)
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        return self._scalar(node)

    def _mapping(self, node: MappingNode, path: Path) -> Node:
        pairs = [(key, value) for key, value in node.value if not (path == () and key.value == "imports")]
        keys = {key.value for key, _ in pairs}
        is_component = "type" in keys or "tpye" in keys or path in self._components
        name = next((str(value.value) for key, value in pairs if key.value == "type"), "")
        changed = []
        for key, value in pairs:
            if is_component and key.value in ("type", "tpye"):
                changed.append((self._key(key), self._type(value)))
            elif name == "Sequential" and key.value == "args":
                positional = ScalarNode(key.tag, self._dialect.positional)
                changed.append((positional, self.change(value, (*path, key.value))))
            else:
                changed.append((key, self.change(value, (*path, key.value))))
        if is_component and self._dialect.late and self._is_late(path):
            truth = ScalarNode("tag:yaml.org,2002:bool", "true")
            changed.insert(1, (ScalarNode("tag:yaml.org,2002:str", self._dialect.late), truth))
        if is_component and self._dialect.nested:
            changed = self._nest(changed, node)
        return MappingNode(node.tag, changed, flow_style=node.flow_style)

    def _nest(self, pairs: list[tuple[Node, Node]], node: MappingNode) -> list[tuple[Node, Node]]:
        markers = (self._dialect.marker, self._dialect.misspelt)
        own = [pair for pair in pairs if pair[0].value in markers]
        arguments = [pair for pair in pairs if pair[0].value not in markers]
        if not arguments:
            return own
        inner = MappingNode("tag:yaml.org,2002:map", arguments, flow_style=node.flow_style)
        return [*own, (ScalarNode("tag:yaml.org,2002:str", self._dialect.nested), inner)]

    def _is_late(self, path: Path) -> bool:
        return bool(path) and (path[-1] in _LATE_KEYS or (path[0] == "vis" and len(path) == 2))

    def _key(self, key: ScalarNode) -> ScalarNode:
        return ScalarNode(key.tag, self._dialect.marker if key.value == "type" else self._dialect.misspelt)

    def _type(self, value: Node) -> Node:
        if not isinstance(value, ScalarNode) or not self._dialect.dotted or value.tag != "tag:yaml.org,2002:str":
            return value
        if value.value == "Sequential" and self._dialect.positional != "args":  # it takes positional arguments itself
            return ScalarNode(value.tag, "torch.nn.Sequential", style=value.style)
        return ScalarNode(value.tag, self._rename(value.value), style=value.style)

    def _scalar(self, node: ScalarNode) -> ScalarNode:
        value = node.value
        if node.style is None and value in self._written and (match := _FLOAT.fullmatch(value)):
            return ScalarNode("tag:yaml.org,2002:float", f"{match[1]}.0{match[2]}")
        if self._dialect.variable and (found := _VARIABLE.fullmatch(value)):
            return ScalarNode(node.tag, self._dialect.variable.format(found[1]), style="'")
        return ScalarNode(node.tag, value, style=node.style)


def component_prefixes(case: Case) -> Mapping[Path, str]:
    """Return the places of the base config's components, and their types' names."""
    node = yaml.compose(base_text(case), Loader=yaml.SafeLoader)
    found: dict[Path, str] = {}
    _names(node, (), found)
    return found


def _names(node: Node, path: Path, found: dict[Path, str]) -> None:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if key.value == "type":
                found[path] = value.value
            _names(value, (*path, key.value), found)
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            _names(item, (*path, index), found)
