"""A checked config as a tree of what it says, for it to be said again in Python."""

from __future__ import annotations

from typing import NamedTuple, NoReturn

from treenail.adapters.config.catalog import Catalog
from treenail.adapters.config.check import WRONG, Checker
from treenail.adapters.config.form import Form
from treenail.adapters.config.imports import allowed_imports
from treenail.adapters.config.load import RUN, Source, convert, read_source
from treenail.adapters.config.rules import DEFAULTS
from treenail.adapters.config.schema import Choice, ComponentSchema, Kind, RecordOf, Word
from treenail.adapters.documents import Document, InvalidConfigError
from treenail.kernel import Component, ConfigError


class Call(NamedTuple):
    """A component: how it is made, and its arguments."""

    form: Form
    args: tuple[object, ...]
    kwargs: dict[str, object]


class Record(NamedTuple):
    """A record by its key, and its fields."""

    key: str
    fields: dict[str, object]


class Leaf(NamedTuple):
    """A value that stands for an Enum's member, a path, device or dtype, or one of a Literal's."""

    value: object
    kind: Choice | Word


class Reference(NamedTuple):
    """A callable itself."""

    schema: ComponentSchema


class _Transcribing:
    """Makes nodes where `Making` makes objects; see `treenail.adapters.config.maker.Maker`."""

    def component(self, form: Form, args: tuple[object, ...], kwargs: dict[str, object], where: str) -> object:
        return Call(form, args, kwargs)

    def record(self, key: str, fields: dict[str, object], *, inside: bool) -> object:
        return Record(key, fields)

    def leaf(self, value: object, kind: Choice | Word) -> object:
        return Leaf(value, kind)

    def function(self, schema: ComponentSchema) -> object:
        return Reference(schema)

    def form_of(self, component: Component[object]) -> Form:
        _from_python()

    def kind_of(self, original: object, kind: Kind) -> Kind:
        _from_python()

    def keeps(self, original: object, kind: Kind) -> bool:
        return False  # a file of data holds no objects


def _from_python() -> NoReturn:
    raise ConfigError("this config is Python already")


def transcribe(source: Source, catalog: Catalog) -> tuple[Document, Record]:
    """Read and check a config; return it with what it says.

    Raises:
        InvalidConfigError: Everything that is wrong in the config.
        ConfigError: It cannot be read, or is Python.
    """
    if source.path.suffix == ".py":
        raise ConfigError("this config is Python already", where=str(source.path), mend="use it as it is")
    from treenail.contracts import Run  # imports torch

    document, rules = read_source(source)
    convert(document, Run, catalog, rules, source.imports)
    allowed = (*allowed_imports(document.data), *source.imports)
    checker = Checker(document, catalog, allowed, _Transcribing())
    found = checker.convert(document.data, RecordOf(RUN), ())
    if found is WRONG or not isinstance(found, Record):
        raise InvalidConfigError(checker.mistakes)
    return document, found._replace(fields={name: _kept(name, value) for name, value in found.fields.items()})


def _kept(section: str, value: object) -> object:
    """Return a section without the entries that a null removed from the file itself, where they are gone now."""
    if section not in DEFAULTS or not isinstance(value, dict):
        return value
    return {name: entry for name, entry in value.items() if entry is not None or name in DEFAULTS[section]}
