"""YAML 1.2 as plain data that knows where each part was written. Reading it runs no code."""

from __future__ import annotations

from collections.abc import Hashable

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from treenail.adapters.documents.document import Document, InvalidConfigError, Map, Mark, Mistake, Seq, TreePath, dotted
from treenail.kernel import ConfigError

_CORE = "tag:yaml.org,2002:"
_MAX_NODES = 100_000


def parse_yaml(text: str, source: str) -> Document:
    """Parse one YAML 1.2 document.

    Raises:
        InvalidConfigError: The syntax is wrong, a key occurs twice, or there is a tag, which could name code.
        ConfigError: The document is empty.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        node = yaml.compose(text)
        if node is None:
            raise ConfigError(
                "the file is empty", where=source, mend="a run needs at least model, loss, optimizer, train, loop"
            )
        reader = _Reader(yaml, source)
        data = reader.read(node, ())
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise InvalidConfigError([Mistake(where, "", f"YAML syntax: {error.problem or error.context}")]) from None
    except YAMLError as error:
        raise InvalidConfigError([Mistake(source, "", f"YAML syntax: {' '.join(str(error).split())}")]) from None
    except RecursionError:
        raise ConfigError("the file is nested too deeply", where=source) from None
    if reader.mistakes:
        raise InvalidConfigError(reader.mistakes)
    return Document(source, data, reader.mark(node))


def parse_value(text: str, source: str) -> Document:
    """Parse a YAML value on the command line: ``3e-4``, ``[1, 2]``, ``{type: adamw}``; an empty text is the empty string.

    Raises:
        InvalidConfigError: The syntax is wrong.
    """
    return parse_yaml(text, source) if text.strip() else Document(source, "")


class _Reader:
    """Turns YAML nodes into plain data and notes their places."""

    def __init__(self, yaml: YAML, source: str) -> None:
        self._constructor = yaml.constructor
        self._source = source
        self._count = 0
        self.mistakes: list[Mistake] = []

    def mark(self, node: Node, key: Node | None = None) -> Mark:
        """Return where a node was written."""
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        if key is None:
            return Mark(self._source, line, column)
        return Mark(self._source, line, column, key.start_mark.line + 1, key.start_mark.column + 1)

    def read(self, node: Node, path: TreePath) -> object:
        """Return a node's content; notes the mistakes in it."""
        self._count += 1
        if self._count > _MAX_NODES:  # aliases of aliases grow exponentially
            raise ConfigError(f"the file expands to more than {_MAX_NODES:,} values", where=self._source)
        expected = "map" if isinstance(node, MappingNode) else "seq" if isinstance(node, SequenceNode) else None
        if expected and str(node.tag) != _CORE + expected:
            self._refuse_tag(node, path)
            return None
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            items = [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
            return Seq(items, [self.mark(item) for item in node.value])
        return self._scalar(node, path)

    def _mapping(self, node: MappingNode, path: TreePath) -> Map:
        found = Map()
        for key_node, value_node in node.value:
            before = len(self.mistakes)
            key = self._scalar(key_node, path) if isinstance(key_node, ScalarNode) else None
            if not isinstance(key, str | int):
                if len(self.mistakes) == before:
                    self._mistake(key_node, path, "a key must be a word or a whole number")
                continue
            if key in found:
                line = found.marks[key].key_line
                self._mistake(key_node, (*path, key), f"this key occurs twice, first in line {line}")
                continue
            found.marks[key] = self.mark(value_node, key_node)
            found[key] = self.read(value_node, (*path, key))
        return found

    def _scalar(self, node: Node, path: TreePath) -> Hashable:
        tag = str(node.tag)
        if tag in (_CORE + "int", _CORE + "float", _CORE + "bool", _CORE + "null"):
            value: Hashable = self._constructor.construct_object(node, deep=True)
            return value
        if tag not in (_CORE + "str", _CORE + "timestamp"):
            self._refuse_tag(node, path)
            return None
        return str(node.value)

    def _refuse_tag(self, node: Node, path: TreePath) -> None:
        if str(node.tag) == _CORE + "merge":
            self._mistake(node, path, "merge keys (<<) are not supported; write the fields out")
            return
        tag = str(node.tag).replace(_CORE, "!!")
        self._mistake(node, path, f"the tag {tag} is not allowed, tags can name code; write plain values")

    def _mistake(self, node: Node, path: TreePath, message: str) -> None:
        where = f"{self._source}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
        self.mistakes.append(Mistake(where, dotted(path), message))
