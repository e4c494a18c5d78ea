"""A configuration file as plain data that knows where each part was written, and what is wrong in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from treenail.kernel import ConfigError

TreePath = tuple[str | int, ...]
"""A place in a tree: ("model", "args", 0, "bias")."""

NOTHING: Final = object()
"""What stands for a value that there is not."""


class Mark(NamedTuple):
    """Where a part of a document was written.

    Args:
        source: The file as people named it, or ``override 'optimizer.lr=1'``.
        line: Line of the value, from 1; 0 where the source has no lines.
        column: Column of the value, from 1.
        key_line: Line of the key before the value; 0 where there is none.
        key_column: Column of the key.
        written: What stands in the file, where `${env:…}` or another reference was resolved.
    """

    source: str
    line: int = 0
    column: int = 0
    key_line: int = 0
    key_column: int = 0
    written: str | None = None

    def place(self, *, key: bool = False) -> str:
        """Return ``file:line:column`` of the value, or of its key."""
        line, column = (self.key_line, self.key_column) if key and self.key_line else (self.line, self.column)
        return f"{self.source}:{line}:{column}" if line else self.source


class Map(dict[str | int, object]):
    """A mapping whose entries know where they were written; entries without a mark have their parent's place.

    Attributes:
        marks: The place of each entry.
        removed: Keys whose inherited value a null took the place of.
    """

    __slots__ = ("marks", "removed")

    def __init__(
        self, entries: Mapping[str | int, object] | None = None, marks: Mapping[str | int, Mark] | None = None
    ) -> None:
        super().__init__(entries or {})
        self.marks: dict[str | int, Mark] = dict(marks or {})
        self.removed: frozenset[str | int] = frozenset()


class Seq(list[object]):
    """A list whose items know where they were written; `marks` has one for each item, or none at all."""

    __slots__ = ("marks",)

    def __init__(self, items: Iterable[object] = (), marks: Iterable[Mark] = ()) -> None:
        super().__init__(items)
        self.marks: list[Mark] = list(marks)


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
        data: Mappings (`Map` where places are known), lists (`Seq`) and scalars.
        mark: Where the whole begins.
        originals: For a config that comes from Python: what `data` describes, by path.

    Attributes:
        overrides: What replaced parts of the file, by path: texts for messages.
        may_refer: Whether a text in it may hold a reference like ``${env:HOME}``; a reader may know that none does.
        created: Places that an override without ``+`` made new, and what to write instead.
    """

    def __init__(
        self,
        source: str,
        data: object,
        mark: Mark | None = None,
        originals: Mapping[TreePath, object] | None = None,
    ) -> None:
        self.source = source
        self.data = data
        self.mark = mark or Mark(source)
        self.overrides: dict[TreePath, str] = {}
        self.created: dict[TreePath, str] = {}
        self.may_refer = True
        self._originals = originals or {}

    @property
    def has_originals(self) -> bool:
        """Whether the config comes from Python."""
        return bool(self._originals)

    def original(self, path: TreePath) -> object:
        """Return what stood at a place of a Python config; NOTHING where an override put something else."""
        if not self._originals:
            return NOTHING
        replaced = any(path[: len(part)] == part for part in self.overrides)
        return NOTHING if replaced else self._originals.get(path, NOTHING)

    def led_through(self, path: TreePath) -> bool:
        """Return whether an override leads to a part of the value at a place."""
        return any(len(part) > len(path) and part[: len(path)] == path for part in self.overrides)

    def mark_of(self, path: TreePath) -> tuple[Mark, bool]:
        """Return the mark of a place, or of the nearest part around it; and whether it is of the very place."""
        mark, exact, node = self.mark, True, self.data
        for part in path:
            if isinstance(node, dict):
                there = part in node
            else:
                there = isinstance(node, list) and isinstance(part, int) and 0 <= part < len(node)
            inner = _mark_in(node, part) if there else None
            mark, exact = inner or mark, inner is not None
            if not there:
                break
            node = node[part]  # type: ignore[index]  # it is there
        return mark, exact

    def locate(self, path: TreePath, *, key: bool = False) -> str:
        """Return ``file:line:column`` of a value, or of its key; of the nearest part around it if it was not written."""
        mark, exact = self.mark_of(path)
        return mark.place(key=key and exact)


def _mark_in(node: object, part: str | int) -> Mark | None:
    if isinstance(node, Map):
        return node.marks.get(part)
    return node.marks[part] if isinstance(node, Seq) and isinstance(part, int) and part < len(node.marks) else None


def value_at(data: object, path: TreePath) -> object:
    """Return what stands at a place of plain data; NOTHING where there is nothing."""
    for part in path:
        try:
            data = data[part]  # type: ignore[index]  # what has no parts says so
        except (TypeError, LookupError):
            return NOTHING
    return data


def dotted(path: TreePath) -> str:
    """Return ``model.args[0].bias`` for ("model", "args", 0, "bias")."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
