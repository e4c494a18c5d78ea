"""What was committed does not change."""

from treenail.kernel import Record


def sink(record: Record) -> None:
    record.values["train/loss"] = 0.0  # E: Unsupported target for indexed assignment ("Mapping[str, float]")
