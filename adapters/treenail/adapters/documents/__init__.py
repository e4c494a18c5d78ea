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
    value_at,
)
from treenail.adapters.documents.dump import describe_document, dump_document
from treenail.adapters.documents.edit import Edit, edit_document, replace_text
from treenail.adapters.documents.files import Format, parse_document, read_document, read_text
from treenail.adapters.documents.inheritance import load_document, resolve_references
from treenail.adapters.documents.json import parse_json
from treenail.adapters.documents.secrets import MASK, holds_secret, is_secret, literal_secrets, mask
from treenail.adapters.documents.toml import parse_toml
from treenail.adapters.documents.uris import Location, Uri, location
from treenail.adapters.documents.yaml import parse_value, parse_yaml

__all__ = [
    "MASK",
    "NOTHING",
    "Document",
    "Edit",
    "Format",
    "InvalidConfigError",
    "Location",
    "Map",
    "Mark",
    "Mistake",
    "Seq",
    "TreePath",
    "Uri",
    "describe_document",
    "dotted",
    "dump_document",
    "edit_document",
    "holds_secret",
    "is_secret",
    "literal_secrets",
    "load_document",
    "location",
    "mask",
    "parse_document",
    "parse_json",
    "parse_toml",
    "parse_value",
    "parse_yaml",
    "read_document",
    "read_text",
    "replace_text",
    "resolve_references",
    "value_at",
]
