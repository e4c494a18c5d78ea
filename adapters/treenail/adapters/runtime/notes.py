"""What an exception of a run does not say by itself."""

from __future__ import annotations

_TOO_FEW = "more than 1 value per channel"  # torch's batch normalisation, in training


def note_batch_size(error: Exception, world_size: int) -> None:
    """Say what to do where a batch normalisation of torch's got one sample only."""
    if _TOO_FEW not in str(error):
        return
    if world_size == 1:
        error.add_note("a batch has one sample: choose another batch_size, or drop_last: true")
        return
    error.add_note(
        f"of a batch, this one of {world_size} ranks has one sample or none: choose a batch_size that leaves two or more "
        "to each, of the last batch too unless drop_last is true; or let the ranks normalise together, "
        "distributed.parallel: {type: data_parallel, sync_batchnorm: true}"
    )


def with_notes(error: BaseException) -> str:
    """Return an exception's message in one line, with what was noted."""
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return " ".join(str(error).split()) + notes
