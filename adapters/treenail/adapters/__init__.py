"""Adapters."""

ADAPTERS = ()
