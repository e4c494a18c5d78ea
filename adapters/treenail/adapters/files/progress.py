"""How far a transfer is, on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from treenail.kernel import require


@contextmanager
def transfer_progress(name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show on standard error, where it is a terminal, how much was transferred, how fast, and how long it will take.

    Args:
        name: What is transferred.
        total: Its size in bytes; None where it is not known.

    Yields:
        A function that is called with how many bytes were transferred since the last call.

    Raises:
        MissingDependencyError: rich is not installed.
    """
    require("rich", extra="train", purpose="the progress bar")
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=total)
        yield lambda count: progress.advance(task, count)
