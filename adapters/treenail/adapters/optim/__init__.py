"""Updating a model."""

from treenail.adapters.optim.step import SupervisedStep, as_pair

__all__ = ["SupervisedStep", "as_pair"]
