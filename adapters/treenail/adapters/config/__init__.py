"""Configs: YAML or typed Python, and overrides, to a checked `Run`."""

from treenail.adapters.config.catalog import PORTS, Catalog
from treenail.adapters.config.convert import convert
from treenail.adapters.config.describe import describe
from treenail.adapters.config.load import load_run
from treenail.adapters.config.overrides import apply_overrides
from treenail.adapters.documents import Document, InvalidConfigError, Mistake, parse_yaml

__all__ = [
    "PORTS",
    "Catalog",
    "Document",
    "InvalidConfigError",
    "Mistake",
    "apply_overrides",
    "convert",
    "describe",
    "load_run",
    "parse_yaml",
]
