"""The command ``treenail``."""

from treenail.adapters.cli.main import main

__all__ = ["main"]
