"""Metrics."""

from treenail.adapters.evaluation.accuracy import Accuracy

__all__ = ["Accuracy"]
