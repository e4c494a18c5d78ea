"""Updating a model."""

from treenail.adapters.optim.step import SupervisedStep

__all__ = ["SupervisedStep"]
