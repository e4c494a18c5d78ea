"""A config of data as the typed Python that a person would write for the same run."""

from __future__ import annotations

import bisect
import keyword
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple, NoReturn, cast

import msgspec

from treenail.adapters.config.catalog import Catalog
from treenail.adapters.config.freezing.annotations import awaited_type, type_text
from treenail.adapters.config.freezing.imports import Imports, public_place
from treenail.adapters.config.freezing.layout import Group, Item, Span, Text, Writer, text_literal
from treenail.adapters.config.freezing.transcript import Call, Leaf, Record, Reference, transcribe
from treenail.adapters.config.freezing.written import UnsayableError, WrittenText, from_environment
from treenail.adapters.config.form import Form
from treenail.adapters.config.load import RUN, Source
from treenail.adapters.config.schema import (
    Choice,
    ComponentSchema,
    Kind,
    ListOf,
    MapOf,
    Nested,
    OneOf,
    RecordOf,
    TupleOf,
)
from treenail.adapters.documents import Document, InvalidConfigError, Mistake, TreePath, dotted
from treenail.kernel import ConfigError
