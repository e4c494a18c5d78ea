"""Line charts: as a text for terminals, and as image files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Final, NamedTuple

from treenail.kernel import FileError, require

FORMATS: Final = ("png", "pdf", "svg")
"""What `save_plot` writes, by the file's suffix."""

_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of the dots of a Braille character, by row and column (Unicode, block U+2800)."""


class Panel(NamedTuple):
    """A chart.

    Args:
        title: Above it.
        x_label: What x is, with its unit.
        y_label: What y is, with its unit.
        lines: By name, the x and the y of each line's points. What is not finite is left out.
        log_x: Whether x is drawn by its logarithm; points at 0 and below are then left out.
    """

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    log_x: bool = False


def check_plot(path: Path) -> None:
    """Find out whether `save_plot` could write a file, before there is something to draw.

    Args:
        path: The file.

    Raises:
        FileError: Its suffix is none of `FORMATS`, or it lies in no directory.
        MissingDependencyError: matplotlib is not installed.
    """
    if _kind(path) not in FORMATS:
        raise FileError(
            f"'{path.name}' has no suffix of an image", where=str(path), mend=f"one of .{', .'.join(FORMATS)}"
        )
    if not path.parent.is_dir():
        raise FileError("there is no such directory", where=str(path.parent), mend="make it first")
    if path.is_dir():
        raise FileError("this is a directory", where=str(path), mend="name a file in it")
    require("matplotlib", extra="plot", purpose=f"writing {path.name}")


def _kind(path: Path) -> str:
    return path.suffix.removeprefix(".").lower()


def save_plot(panels: Sequence[Panel], path: Path) -> None:
    """Draw charts below each other into a file.

    Args:
        panels: The charts.
        path: Where to; its suffix is one of `FORMATS`.

    Raises:
        FileError: As `check_plot` says, or the file cannot be written.
        MissingDependencyError: matplotlib is not installed.
    """
    check_plot(path)
    # Without pyplot, which keeps its figures in a global registry and may look for a display.
    figures = require("matplotlib.figure", extra="plot", purpose=f"writing {path.name}")
    figure = figures.Figure(figsize=(8, 3.2 * max(len(panels), 1)), layout="constrained")
    for axes, panel in zip(figure.subplots(len(panels), squeeze=False)[:, 0] if panels else (), panels, strict=True):
        for name, (x, y) in panel.lines.items():
            axes.plot(x, y, label=name, linewidth=1.5)
        axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
        axes.grid(visible=True, alpha=0.3)
        if panel.log_x:
            axes.set_xscale("log")
        if len(panel.lines) > 1:
            axes.legend()
    drawn = BytesIO()
    figure.savefig(drawn, format=_kind(path), dpi=120)
    try:
        path.write_bytes(drawn.getvalue())
    except OSError as error:
        raise FileError(f"cannot write: {error.strerror}", where=str(path)) from error


def plot_text(panels: Sequence[Panel], width: int, height: int) -> str:
    """Draw charts below each other as a text of Braille characters.

    Args:
        panels: The charts.
        width: Columns that each may take; at least 40 are.
        height: Rows of each, its title and the numbers below it included; at least 6 are.
    """
    return "\n\n".join(_text(panel, max(width, 40), max(height, 6)) for panel in panels)


def _text(panel: Panel, width: int, height: int) -> str:
    points = {name: list(_points(*line, log_x=panel.log_x)) for name, line in panel.lines.items()}
    drawn = [point for line in points.values() for point in line]
    if not drawn:
        return f"{panel.title}\n(there is no point to draw)"
    (left, right), (low, high) = (_range(axis) for axis in zip(*drawn, strict=True))
    rows = height - 3
    numbers = {0: _number(high), rows - 1: _number(low)}
    if rows % 2 and rows > 4:  # there is a row in the middle
        numbers[rows // 2] = _number((low + high) / 2)
    gutter = max(len(each) for each in numbers.values())
    names = {name: _shortened(name, width // 4) for name in points} if len(points) > 1 else {}
    columns = width - gutter - 2 - max((len(each) + 1 for each in names.values()), default=0)
    canvas = _Canvas(columns, rows)
    beside: dict[int, list[str]] = {}
    for name, line in points.items():
        dots = [
            (
                round((x - left) / (right - left) * (2 * columns - 1)),
                round((high - y) / (high - low) * (4 * rows - 1)),
            )
            for x, y in line
        ]
        canvas.draw(dots)
        if names and dots:
            beside.setdefault(_free_row(dots[-1][1] // 4, rows, beside), []).append(names[name])
    found = [panel.title]
    for row, cells in enumerate(canvas.lines()):
        name = " " + ", ".join(beside[row]) if row in beside else ""
        found.append(f"{numbers.get(row, ''):>{gutter}} {'┤' if row in numbers else '│'}{cells}{name}".rstrip())
    first, last = (_number(10**each if panel.log_x else each) for each in (left, right))
    label = f"{panel.x_label} (log)" if panel.log_x else panel.x_label
    middle = f"{label:^{max(columns - len(first) - len(last), 0)}}"
    return "\n".join([*found, f"{'':>{gutter}} └{'─' * columns}", f"{'':>{gutter}}  {first}{middle}{last}".rstrip()])


class _Canvas:
    """Characters of 2 x 4 dots."""

    def __init__(self, columns: int, rows: int) -> None:
        self._cells = [[0] * columns for _ in range(rows)]

    def draw(self, dots: Sequence[tuple[int, int]]) -> None:
        """Set dots, and those between each and the next one."""
        before = None
        for dot in dots:
            if dot != before:
                for column, row in _between(before or dot, dot):
                    self._cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
            before = dot

    def lines(self) -> Iterator[str]:
        """Return the rows as text."""
        return ("".join(chr(0x2800 + cell) if cell else " " for cell in row) for row in self._cells)


def _between(start: tuple[int, int], end: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the dots of a straight line."""
    across, down = end[0] - start[0], end[1] - start[1]
    count = max(abs(across), abs(down), 1)
    for index in range(count + 1):
        yield start[0] + round(across * index / count), start[1] + round(down * index / count)


def _points(xs: Sequence[float], ys: Sequence[float], *, log_x: bool) -> Iterator[tuple[float, float]]:
    for x, y in zip(xs, ys, strict=True):
        if math.isfinite(x) and math.isfinite(y) and (x > 0 or not log_x):
            yield math.log10(x) if log_x else x, y


def _range(values: Iterable[float]) -> tuple[float, float]:
    """Return the least and the greatest value; around a single one some room."""
    values = list(values)
    low, high = min(values), max(values)
    room = 0.0 if high > low else abs(low) / 2 or 1.0
    return low - room, high + room


def _number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e7 else f"{value:.3g}"


def _shortened(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _free_row(wanted: int, rows: int, taken: Mapping[int, object]) -> int:
    """Return the row nearest to one that has no name yet; the wanted one where all have."""
    free = [row for row in range(rows) if row not in taken]
    return min(free, key=lambda row: abs(row - wanted), default=wanted)
