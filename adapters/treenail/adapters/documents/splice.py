"""Changes to the text of a YAML or JSON file that leave every other character as it is."""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from treenail.adapters.documents.document import TreePath
from treenail.adapters.documents.emit import INDENT, fits, yaml_block, yaml_inline, yaml_key

_PLACEHOLDER: Final = "\n"


class _Entry(NamedTuple):
    """Where an entry of a mapping or an item of a list stands in the text."""

    start: int  # of the key; of an item in a flow list; of the dash in a block list
    lead: int  # end of the colon or the dash, or the item's start
    value: int
    end: int


class Splicer:
    """One text, its nodes, and what can be done to it. Each act returns the new text.

    Args:
        text: A file that has been read without mistakes.
        data: What it holds.
        is_json: Write values as JSON.
    """

    def __init__(self, text: str, data: object, *, is_json: bool) -> None:
        self._text = text
        self._data = data
        self._json = is_json
        self._newline = "\r\n" if "\r\n" in text else "\n"
        # JSON may be indented by tabs, YAML may not: a space is as long, and the text itself keeps its tabs.
        yaml = YAML(typ="safe", pure=True)
        self._root: Node = yaml.compose(text.replace("\t", " ") if is_json else text)

    def replace(self, path: TreePath, value: object) -> str:
        """Put another value at a place that is there."""
        if not path:
            end = self._end_of(self._root, 0)
            return self._spliced(self._root.start_mark.index, end, self._inline(value))
        parent, entry = self._entry(path)
        if _is_flow(parent):
            return self._spliced(entry.value, entry.end, self._inline(value))
        gap = self._text[entry.lead : entry.value]
        column = self._column(entry.start)
        lines = yaml_block(value, column + INDENT)
        if isinstance(parent, SequenceNode):
            first, *rest = lines
            text = _PLACEHOLDER.join((first[column + INDENT :], *rest))
            return self._spliced(entry.value, entry.end, text if gap else f" {text}")
        one_line = fits(value, column + INDENT + len(str(path[-1])))
        new = yaml_inline(value) if one_line else _PLACEHOLDER + _PLACEHOLDER.join(lines)
        if "#" in gap:  # a comment between the key and a block below it stays behind the key
            comment = gap.rstrip()
            return self._spliced(entry.lead, entry.end, f" {new}{comment}" if one_line else f"{comment}{new}")
        space = (gap if gap and "\n" not in gap else " ") if one_line else ""
        return self._spliced(entry.lead, entry.end, space + new)

    def insert(self, path: TreePath, key: str | int, value: object) -> str:
        """Put a new entry at the end of the mapping or list at a place."""
        node, data = self._node(path)
        entries = self._entries(node)
        if _is_flow(node):
            return self._insert_in_flow(node, entries, key, value)
        assert isinstance(data, dict | list)
        column = node.start_mark.column
        if isinstance(data, list):
            lines = yaml_block([value], column)
            if fits([value], column):  # the list of one, in flow style: here it is an item of a block
                lines = [f"{' ' * column}- {yaml_inline(value)}"]
        else:
            lines = self._entry_lines(key, value, column)
        line_end = self._line_end(entries[-1].end)
        return self._spliced(line_end, line_end, "".join(_PLACEHOLDER + line for line in lines))

    def remove(self, path: TreePath) -> str:
        """Take out an entry or an item, with the comment on its line."""
        parent, entry = self._entry(path)
        entries = self._entries(parent)
        index = entries.index(entry)
        if len(entries) == 1:
            return self.replace(path[:-1], {} if isinstance(parent, MappingNode) else [])
        if _is_flow(parent):
            if index + 1 < len(entries):
                return self._spliced(entry.start, entries[index + 1].start, "")
            return self._spliced(entries[index - 1].end, entry.end, "")
        line_start = self._text.rfind("\n", 0, entry.start) + 1
        if self._text[line_start : entry.start].strip():  # behind a dash
            return self._spliced(entry.start, entries[index + 1].start, "")
        line_end = self._text.find("\n", entry.end) + 1
        return self._spliced(line_start, line_end or len(self._text), "")

    def _insert_in_flow(self, node: Node, entries: list[_Entry], key: str | int, value: object) -> str:
        is_list = isinstance(node, SequenceNode)
        name = json.dumps(str(key)) if self._json else yaml_key(key)
        if not entries:
            text = self._inline(value) if is_list else f"{name}: {self._inline(value)}"
            return self._spliced(node.start_mark.index + 1, node.end_mark.index - 1, text)
        last = entries[-1]
        colon = "" if is_list else name + ":" + (self._text[last.lead : last.value] or "")
        before = node.start_mark.index if len(entries) == 1 else self._text.index(",", entries[-2].end)
        gap = self._text[before + 1 : last.start]
        usable = not gap.strip() and ("\n" in gap or len(entries) > 1)
        return self._spliced(last.end, last.end, "," + (gap if usable else " ") + colon + self._inline(value))

    def _entry_lines(self, key: str | int, value: object, column: int) -> list[str]:
        name = " " * column + yaml_key(key) + ":"
        if fits(value, len(name) + 1):
            return [f"{name} {yaml_inline(value)}"]
        return [name, *yaml_block(value, column + INDENT)]

    def _node(self, path: TreePath) -> tuple[Node, object]:
        node, data = self._root, self._data
        for part in path:
            node = _children(node)[_position(data, part)]
            data = data[part]  # type: ignore[index]  # the path leads through mappings and lists only
        return node, data

    def _entry(self, path: TreePath) -> tuple[Node, _Entry]:
        parent, data = self._node(path[:-1])
        return parent, self._entries(parent)[_position(data, path[-1])]

    def _entries(self, node: Node) -> list[_Entry]:
        found = []
        position = node.start_mark.index
        if isinstance(node, MappingNode):
            for key, value in node.value:
                lead = self._text.index(":", key.end_mark.index) + 1
                found.append(_Entry(key.start_mark.index, lead, self._start_of(value, lead), self._end_of(value, lead)))
        elif isinstance(node, SequenceNode):
            for item in node.value:
                start = item.start_mark.index
                if not _is_flow(node):
                    start = self._text.index("-", position)
                lead = start if _is_flow(node) else start + 1
                position = self._end_of(item, lead)
                found.append(_Entry(start, lead, self._start_of(item, lead), position))
        return found

    def _start_of(self, node: Node, lead: int) -> int:
        return lead if _is_empty(node) else node.start_mark.index

    def _end_of(self, node: Node, lead: int) -> int:
        """Return where the last character of a node ends: a block's own mark stands behind the comments that follow."""
        if _is_empty(node):
            return lead
        if isinstance(node, MappingNode | SequenceNode) and not _is_flow(node):
            return self._entries(node)[-1].end
        return len(self._text[: node.end_mark.index].rstrip())

    def _inline(self, value: object) -> str:
        if self._json:
            return json.dumps(value, ensure_ascii=self._text.isascii() and "\\u" in self._text, allow_nan=False)
        return yaml_inline(value)

    def _column(self, offset: int) -> int:
        return offset - (self._text.rfind("\n", 0, offset) + 1)

    def _line_end(self, offset: int) -> int:
        end = self._text.find("\n", offset)
        if end < 0:
            return len(self._text)
        return end - 1 if self._text[end - 1] == "\r" else end

    def _spliced(self, start: int, end: int, text: str) -> str:
        return self._text[:start] + text.replace(_PLACEHOLDER, self._newline) + self._text[end:]


def _children(node: Node) -> list[Node]:
    return [value for _, value in node.value] if isinstance(node, MappingNode) else list(node.value)


def _position(data: object, part: str | int) -> int:
    if isinstance(data, dict):
        return list(data).index(part)
    assert isinstance(part, int)
    return part


def _is_flow(node: Node) -> bool:
    return isinstance(node, MappingNode | SequenceNode) and bool(node.flow_style)


def _is_empty(node: Node) -> bool:
    return isinstance(node, ScalarNode) and bool(node.start_mark.index == node.end_mark.index)
