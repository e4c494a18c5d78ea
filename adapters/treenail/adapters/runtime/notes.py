"""What an exception of a run does not say by itself."""

from __future__ import annotations

from treenail.contracts import Run

_TOO_FEW = "more than 1 value per channel"  # torch's batch normalisation, in training


def note_batch_size(error: Exception, world_size: int, accumulative_counts: int = 1) -> None:
    """Say what to do where a batch normalisation of torch's got one sample only.

    Args:
        error: What torch raised.
        world_size: Number of ranks.
        accumulative_counts: Micro-batches of a batch.
    """
    if _TOO_FEW not in str(error):
        return
    if accumulative_counts > 1:
        error.add_note(
            f"a batch is split into {accumulative_counts} micro-batches, and one of them has one sample: lower "
            "accumulative_counts, or choose a larger batch_size, of the last batch too unless drop_last is true"
        )
        return
    if world_size == 1:
        error.add_note("a batch has one sample: choose another batch_size, or drop_last: true")
        return
    error.add_note(
        f"of a batch, this one of {world_size} ranks has one sample or none: choose a batch_size that leaves two or more "
        "to each, of the last batch too unless drop_last is true; or let the ranks normalise together, "
        "distributed.parallel: {type: data_parallel, sync_batchnorm: true}"
    )


def note_torch_checks(error: Exception, run: Run, steps: int) -> None:
    """Say which setting of a run made torch refuse what a model does, and when.

    Args:
        error: What torch raised.
        run: The config.
        steps: How many training steps were made before.
    """
    text = str(error)
    if run.deterministic is True and "deterministic" in text.lower():
        error.add_note(f"after {steps} steps, by deterministic: true; deterministic: warn goes on, and warns of it")
    elif run.detect_anomaly and "returned nan values" in text:
        error.add_note(f"after {steps} steps, by detect_anomaly: true; the warning before shows the operation")


def with_notes(error: BaseException) -> str:
    """Return an exception's message in one line, with what was noted."""
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return " ".join(str(error).split()) + notes
