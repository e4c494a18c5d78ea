"""Communicators."""

from treenail.adapters.comm.single import SingleProcess

__all__ = ["SingleProcess"]
