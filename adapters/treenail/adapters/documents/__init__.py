"""Configuration files as plain data that knows where each part was written."""

from treenail.adapters.documents.document import (
    NOTHING,
    Document,
    InvalidConfigError,
    Map,
    Mark,
    Mistake,
    Seq,
    TreePath,
    dotted,
    read_text,
)
from treenail.adapters.documents.yaml import parse_value, parse_yaml

__all__ = [
    "NOTHING",
    "Document",
    "InvalidConfigError",
    "Map",
    "Mark",
    "Mistake",
    "Seq",
    "TreePath",
    "dotted",
    "parse_value",
    "parse_yaml",
    "read_text",
]
