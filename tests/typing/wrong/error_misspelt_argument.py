"""What the user can do about an error is called mend."""

from treenail.kernel import TrainingError


def fail(step: int) -> None:
    raise TrainingError(f"no loss at step {step}", hint="lower the rate")  # E: Unexpected keyword argument "hint"
