"""What is wrong with a checkpoint that is not damaged."""

from __future__ import annotations

from treenail.kernel import CheckpointError


class UnsuitableError(CheckpointError):
    """A checkpoint is not damaged, but of a later format, of another model, or out of reach: no other one stands in for it."""
