"""Resumable orders of the indices of a dataset."""

from treenail.adapters.sampling.samplers import RandomSampler, SequentialSampler

__all__ = ["RandomSampler", "SequentialSampler"]
