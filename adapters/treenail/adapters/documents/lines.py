"""Offsets in a text as the lines and columns that editors show."""

from __future__ import annotations

import re
from bisect import bisect_right


class Lines:
    r"""Where the lines of a text begin.

    Args:
        text: The text, with ``\n`` between its lines.
        source: Name of the file, for messages.
    """

    def __init__(self, text: str, source: str) -> None:
        self._starts = [0, *(found.end() for found in re.finditer("\n", text))]
        self._source = source

    def at(self, offset: int) -> tuple[int, int]:
        """Return line and column of an offset, from 1."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def where(self, offset: int) -> str:
        """Return ``file:line:column`` of an offset."""
        line, column = self.at(offset)
        return f"{self._source}:{line}:{column}"
