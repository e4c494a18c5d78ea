"""Curves in TensorBoard over resumes: each point once."""

from __future__ import annotations

from pathlib import Path

from treenail.adapters.vis import TensorBoard
from treenail.kernel import Record


def points(directory: Path, name: str) -> list[tuple[int, float]]:
    """Return what TensorBoard shows of a curve."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_a_validation_that_a_resumed_run_repeats_has_its_point_once(tmp_path: Path) -> None:
    # As a run does it that saves at an epoch's end, validates then, and is killed in the next epoch.
    for attempt, begin, end in ((1, 0, 3), (2, 2, 4), (3, 4, 6)):
        curves = TensorBoard(tmp_path)
        curves.start(run="r", attempt=attempt, step=begin, commit=begin)
        if attempt == 2:
            curves.scalars(Record({"val/loss": 20.0}, 2, 1, 2, 2))
        if attempt == 3:  # this one was killed before it could validate
            curves.scalars(Record({"val/loss": 40.0}, 4, 2, 4, 3))
        for step in range(begin + 1, end + 1):
            curves.scalars(Record({"train/loss": float(attempt)}, step, 0, step, attempt))
            if step % 2 == 0 and (attempt, step) != (2, 4):
                curves.scalars(Record({"val/loss": step * 10.0, "val/accuracy": 0.5}, step, step // 2, step, attempt))
        curves.close()
    assert points(tmp_path, "val/loss") == [(2, 20.0), (4, 40.0), (6, 60.0)]
    assert points(tmp_path, "val/accuracy") == [(2, 0.5), (6, 0.5)]
    assert points(tmp_path, "train/loss") == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0), (5, 3.0), (6, 3.0)]
