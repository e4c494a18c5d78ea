"""YAML as plain data that knows where each part was written. Reading it runs no code."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from treenail.kernel import ConfigError

TreePath = tuple[str | int, ...]

NOTHING: Final = object()
"""What stands for an original that there is not."""

_CORE = "tag:yaml.org,2002:"
_MAX_NODES = 100_000


class Mistake(NamedTuple):
    """One thing that is wrong in a config.

    Args:
        where: ``file:line:column``, or the override on the command line.
        path: Where in the tree: ``optimizer.lr``.
        message: What, and what to do.
    """

    where: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.path}: {self.message}" if self.path else f"{self.where}: {self.message}"


class InvalidConfigError(ConfigError):
    """Everything that is wrong in a config, one line each."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = tuple(mistakes)


class Document:
    """A config as plain data, and the place of each of its parts.

    Args:
        source: Name of the file, as people gave it.
        data: Mappings, lists and scalars.
        keys: Line and column (from 1) of each mapping key, by path.
        values: Line and column (from 1) of each value, by path.
        originals: For a config that comes from Python: what `data` describes, by path.

    Attributes:
        overrides: What replaced parts of the file, by path: texts for messages.
    """

    def __init__(
        self,
        source: str,
        data: object,
        keys: dict[TreePath, tuple[int, int]] | None = None,
        values: dict[TreePath, tuple[int, int]] | None = None,
        originals: dict[TreePath, object] | None = None,
    ) -> None:
        self.source = source
        self.data = data
        self.overrides: dict[TreePath, str] = {}
        self._keys = keys or {}
        self._values = values or {}
        self._originals = originals or {}

    def original(self, path: TreePath) -> object:
        """Return what stood at a place of a Python config; NOTHING where an override put something else."""
        replaced = any(path[: len(part)] == part for part in self.overrides)
        return NOTHING if replaced else self._originals.get(path, NOTHING)

    def led_through(self, path: TreePath) -> bool:
        """Return whether an override leads to a part of the value at a place."""
        return any(len(part) > len(path) and part[: len(path)] == path for part in self.overrides)

    def locate(self, path: TreePath, *, key: bool = False) -> str:
        """Return ``file:line:column`` of a value, or of its key; of the nearest part around it if it was not written."""
        overridden = [part for part in self.overrides if path[: len(part)] == part]
        if overridden:
            return f"override '{self.overrides[max(overridden, key=len)]}'"
        created = [text for part, text in self.overrides.items() if part[: len(path)] == path]
        if created and path not in self._values:
            return f"override '{created[-1]}'"
        if key and path in self._keys:
            return self._format(self._keys[path])
        for length in range(len(path), -1, -1):
            if path[:length] in self._values:
                return self._format(self._values[path[:length]])
        return self.source

    def _format(self, position: tuple[int, int]) -> str:
        return f"{self.source}:{position[0]}:{position[1]}"


def dotted(path: TreePath) -> str:
    """Return ``model.args[0].bias`` for ("model", "args", 0, "bias")."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_text(path: Path) -> str:
    """Read a config file.

    Raises:
        ConfigError: It does not exist, is a directory, is not UTF-8, or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("there is no such file", where=str(path)) from None
    except IsADirectoryError:
        raise ConfigError("this is a directory", where=str(path), mend="name a .yaml or .py file in it") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"the file is not UTF-8 text: {error.reason} at byte {error.start}", where=str(path)
        ) from None
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", where=str(path)) from error


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
    return Document(source, data, reader.keys, reader.values)


def parse_value(text: str, source: str) -> object:
    """Parse a YAML value on the command line: ``3e-4``, ``[1, 2]``, ``{type: adamw}``; an empty text is the empty string.

    Raises:
        InvalidConfigError: The syntax is wrong.
    """
    return parse_yaml(text, source).data if text.strip() else ""


class _Reader:
    """Turns YAML nodes into plain data and notes their places."""

    def __init__(self, yaml: YAML, source: str) -> None:
        self._constructor = yaml.constructor
        self._source = source
        self._count = 0
        self.keys: dict[TreePath, tuple[int, int]] = {}
        self.values: dict[TreePath, tuple[int, int]] = {}
        self.mistakes: list[Mistake] = []

    def read(self, node: Node, path: TreePath) -> object:
        """Return a node's content; notes its place and the mistakes in it."""
        self._count += 1
        if self._count > _MAX_NODES:  # aliases of aliases grow exponentially
            raise ConfigError(f"the file expands to more than {_MAX_NODES:,} values", where=self._source)
        place = (node.start_mark.line + 1, node.start_mark.column + 1)
        self.values[path] = place
        expected = "map" if isinstance(node, MappingNode) else "seq" if isinstance(node, SequenceNode) else None
        if expected and str(node.tag) != _CORE + expected:
            self._refuse_tag(node, path)
            return None
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: MappingNode, path: TreePath) -> dict[str | int, object]:
        found: dict[str | int, object] = {}
        for key_node, value_node in node.value:
            before = len(self.mistakes)
            key = self._scalar(key_node, path) if isinstance(key_node, ScalarNode) else None
            if not isinstance(key, str | int):
                if len(self.mistakes) == before:
                    self._mistake(key_node, path, "a key must be a word or a whole number")
                continue
            if key in found:
                line = self.keys[(*path, key)][0]
                self._mistake(key_node, (*path, key), f"this key occurs twice, first in line {line}")
                continue
            self.keys[(*path, key)] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
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
