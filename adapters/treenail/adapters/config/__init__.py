"""Configs: YAML or typed Python, and overrides, to a checked `Run`."""

from treenail.adapters.config.cache import ConfigChecker
from treenail.adapters.config.catalog import Catalog
from treenail.adapters.config.describe import describe, recorded
from treenail.adapters.config.load import Loaded, Source, convert, load, load_run, read_source
from treenail.adapters.config.overrides import apply_overrides, edits_of
from treenail.adapters.config.ports import PORTS
from treenail.adapters.config.slots import check_slots
from treenail.adapters.documents import Document, InvalidConfigError, Mistake, parse_yaml

__all__ = [
    "PORTS",
    "Catalog",
    "ConfigChecker",
    "Document",
    "InvalidConfigError",
    "Loaded",
    "Mistake",
    "Source",
    "apply_overrides",
    "check_slots",
    "convert",
    "describe",
    "edits_of",
    "load",
    "load_run",
    "parse_yaml",
    "read_source",
    "recorded",
]
