"""What was committed does not change."""

from treenail.kernel import Record


def sink(record: Record) -> None:
    record.step = 0  # E: Property "step" defined in "Record" is read-only
