"""Expressions as lines of Python: laid out as ruff and black do, and each part remembered with its place."""

from __future__ import annotations

from typing import Final, NamedTuple

from treenail.adapters.documents import TreePath

WIDTH: Final = 120


class Text(NamedTuple):
    """An expression that is never broken.

    Args:
        text: As Python writes it.
        path: The part of the config that it stands for.
    """

    text: str
    path: TreePath | None = None


class Item(NamedTuple):
    """An argument or entry.

    Args:
        prefix: What stands before the value: ``lr=`` or ``"key": ``.
        value: The value.
        above: Comments to stand above it.
        beside: A comment to stand behind it, if the line has room.
    """

    prefix: str
    value: Text | Group
    above: tuple[str, ...] = ()
    beside: str = ""


class Group(NamedTuple):
    """An expression in brackets: a call, list, tuple, mapping or set.

    Args:
        head: What stands before the bracket: ``nn.Sequential``, or nothing.
        brackets: Both of them.
        items: What is inside.
        path: The part of the config that it stands for.
        spread: One item a line even where all would fit in one.
    """

    head: str
    brackets: str
    items: tuple[Item, ...]
    path: TreePath | None = None
    spread: bool = False


class Span(NamedTuple):
    """Where a part of a config stands: from its first character to after its last; lines from 1, columns from 0."""

    start: tuple[int, int]
    end: tuple[int, int]
    path: TreePath


class Writer:
    """Writes lines, and remembers where the parts of the config came to stand.

    Attributes:
        spans: Of each part, outer ones before those in them.
    """

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._written: list[str] = []
        self._line, self._column = 1, 0

    @property
    def text(self) -> str:
        """What was written."""
        return "".join(self._written)

    def write(self, text: str) -> None:
        """Write a text as it is."""
        self._written.append(text)
        lines = text.count("\n")
        self._line += lines
        self._column = len(text) - text.rindex("\n") - 1 if lines else self._column + len(text)

    def expression(self, node: Text | Group, indent: int = 0, after: str = "") -> None:
        """Write an expression, broken where it is too long.

        Args:
            node: The expression.
            indent: Indentation of the line that it begins in.
            after: What its last line goes on with.
        """
        place = len(self.spans)
        start = self._line, self._column
        if not _spreads(node) and self._column + len(_flat(node)) + len(after) <= WIDTH:
            self._on_one_line(node)
        elif isinstance(node, Text) or not node.items:
            self.write(_flat(node))
        else:
            self._broken(node, indent)
        if node.path is not None:
            self.spans.insert(place, Span(start, (self._line, self._column), node.path))

    def _on_one_line(self, node: Text | Group) -> None:
        if isinstance(node, Text):
            self.write(node.text)
            return
        self.write(node.head + node.brackets[0])
        for index, item in enumerate(node.items):
            self.write((", " if index else "") + item.prefix)
            self.expression(item.value)
        self.write(("," if _is_single(node) else "") + node.brackets[1])

    def _broken(self, node: Group, indent: int) -> None:
        inner = indent + 4
        self.write(node.head + node.brackets[0] + "\n" + " " * inner)
        together = ", ".join(item.prefix + _flat(item.value) for item in node.items)
        is_call = bool(node.head)
        if is_call and not _spreads(node) and inner + len(together) <= WIDTH:
            for index, item in enumerate(node.items):
                self.write((", " if index else "") + item.prefix)
                self.expression(item.value, inner)
        else:
            for index, item in enumerate(node.items):
                self.write("\n" + " " * inner if index else "")
                self._line_of(item, inner)
        self.write("\n" + " " * indent + node.brackets[1])

    def _line_of(self, item: Item, indent: int) -> None:
        beside = f"  {item.beside}" if item.beside else ""
        room = indent + len(f"{item.prefix}{_flat(item.value)},{beside}") <= WIDTH and not _spreads(item.value)
        for comment in item.above if room or not beside else (*item.above, item.beside):
            self.write(f"{comment}\n{' ' * indent}")
        self.write(item.prefix)
        self.expression(item.value, indent, ",")
        self.write(f",{beside}" if room else ",")


def _spreads(node: Text | Group) -> bool:
    return isinstance(node, Group) and (
        node.spread or any(item.above or item.beside or _spreads(item.value) for item in node.items)
    )


def _is_single(node: Group) -> bool:
    """Return whether a group is a tuple of one, which needs its comma."""
    return node.brackets == "()" and not node.head and len(node.items) == 1


def _flat(node: Text | Group) -> str:
    if isinstance(node, Text):
        return node.text
    inside = ", ".join(item.prefix + _flat(item.value) for item in node.items)
    return f"{node.head}{node.brackets[0]}{inside}{',' if _is_single(node) else ''}{node.brackets[1]}"


def text_literal(value: str) -> str:
    """Return a text as Python writes it, in double quotes unless that needs more escapes."""
    written = repr(value)
    if written[0] == '"' or value.count('"') > value.count("'"):
        return written
    inside = written[1:-1].replace("\\'", "'").replace('"', '\\"')
    return f'"{inside}"'
