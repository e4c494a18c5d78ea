"""Curves in TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from treenail.contracts.vis import Histogram
from treenail.kernel import FileError, Record, require

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """Writes event files; ``tensorboard --logdir DIRECTORY`` shows them.

    Args:
        directory: Where the event files lie.

    Raises:
        MissingDependencyError: tensorboard is not installed.
    """

    def __init__(self, directory: Path) -> None:
        require("tensorboard", extra="tensorboard", purpose="TensorBoard")
        self.directory = Path(directory)
        self._writer: SummaryWriter | None = None
        self._begin = 0
        self._there: frozenset[str] = frozenset()  # the curves that have a point where this attempt begins

    def start(self, *, run: str, attempt: int, step: int, commit: int) -> None:
        """Open a new event file; TensorBoard drops what earlier ones hold from the step after `step` on.

        A validation that is repeated at `step` itself gives the points that are there already: they are not added again.
        """
        from torch.utils.tensorboard import SummaryWriter

        begun = self.directory.is_dir() and any(self.directory.iterdir())
        self._begin, self._there = step, _names_at(self.directory, step) if begun else frozenset()
        self._writer = SummaryWriter(str(self.directory), purge_step=step + 1 if begun else None)

    def _started(self) -> SummaryWriter:
        if self._writer is None:
            raise FileError("TensorBoard was not started, or is closed", where=str(self.directory))
        return self._writer

    def scalars(self, record: Record) -> None:
        """Add a point to each curve."""
        writer = self._started()
        for name, value in record.values.items():
            if record.step == self._begin and name in self._there:
                continue
            writer.add_scalar(name, value, record.step)

    def image(self, name: str, image: Tensor, *, step: int) -> None:
        """Add a picture."""
        self._started().add_image(name, image, step)

    def graph(self, model: nn.Module, inputs: Tensor) -> None:
        """Trace the model and add its graph."""
        self._started().add_graph(model, inputs)

    def config(self, config: str) -> None:
        """Add the config as a text."""
        self._started().add_text("config", f"```\n{config}\n```", 0)

    def text(self, name: str, text: str, *, step: int) -> None:
        """Add a text."""
        self._started().add_text(name, text, step)

    def histogram(self, name: str, histogram: Histogram, *, step: int) -> None:
        """Add a distribution."""
        edges, counts = histogram.edges, histogram.counts
        self._started().add_histogram_raw(
            name,
            min=edges[0],
            max=edges[-1],
            num=sum(counts),
            sum=histogram.total,
            sum_squares=histogram.squares,
            bucket_limits=list(edges[1:]),
            bucket_counts=list(counts),
            global_step=step,
        )

    def close(self) -> None:
        """Flush and close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _names_at(directory: Path, step: int) -> frozenset[str]:
    """Return the curves that have a point at a step; what earlier attempts wrote beyond their checkpoints counts for nothing."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(directory), size_guidance={SCALARS: 0})  # 0: all of them
    events.Reload()
    names = events.Tags()[SCALARS]
    return frozenset(name for name in names if any(point.step == step for point in events.Scalars(name)))
