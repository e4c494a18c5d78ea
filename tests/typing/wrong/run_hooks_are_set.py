"""A hook taken out of a finished config."""

from treenail.contracts import Run


def without_progress(run: Run) -> None:
    run.hooks["progress"] = None  # E: Unsupported target for indexed assignment
