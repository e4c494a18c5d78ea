"""Any registered component, or a whole run, as a commented YAML skeleton.

A line that begins with ``# `` is prose; one that begins with ``#`` and a key is an optional parameter with its default, right
as it is once the ``#`` is gone. A required value is the tag ``!required``: no config with it loads, whatever type the value
has, and the message names its line.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from treenail.adapters.config.candidates import Candidates, Match, kind_text, parts_of
from treenail.adapters.config.catalog import Names, a
from treenail.adapters.config.check import SCOPE, Checker
from treenail.adapters.config.form import Form
from treenail.adapters.config.leaves import kind_name
from treenail.adapters.config.load import RUN
from treenail.adapters.config.schema import (
    ComponentSchema,
    Field,
    Kind,
    Nested,
    OneOf,
    RecordOf,
)
from treenail.adapters.documents import Document, InvalidConfigError, parse_value

REQUIRED: Final = "!required"
"""What stands where a value must be written."""

RUN_NAME: Final = "run"
"""The name of the skeleton of a whole run."""

_WIDTH: Final = 100
_SHOWN: Final = 8
_PLAIN_WORD: Final = re.compile(r"[A-Za-z_][\w./+-]*(:[\w.]+)?")


def template(names: Names, name: str, imports: Sequence[str] = ()) -> str:
    """Return the skeleton of a component, or of a whole run.

    Args:
        names: What can be named.
        name: ``run``, or a component by any name that `Candidates.find` knows.
        imports: Prefixes of modules that ``module:attribute`` may be imported from.

    Raises:
        RegistryError: There is no such component, or several.
        MissingDependencyError: The component needs a package that is not installed.
    """
    writer = _Writer(Candidates(names), tuple(imports))
    lines = writer.run() if name == RUN_NAME else writer.component(writer.candidates.find(name, imports))
    return "\n".join(lines) + "\n"


class _Writer:
    """Writes lines.

    Args:
        candidates: What can be named.
        imports: Prefixes of modules that may be imported.
    """

    def __init__(self, candidates: Candidates, imports: tuple[str, ...]) -> None:
        self.candidates = candidates
        self._names = candidates.names
        self._imports = imports

    def run(self) -> Iterator[str]:
        """Yield the lines of a run."""
        record = self._names.record(RUN)
        yield from _prose([record.summary])
        yield from _prose(_HOW_TO_READ)
        yield from self._fields(record.fields, "")

    def component(self, matches: Sequence[Match]) -> Iterator[str]:
        """Yield the lines of the first of some matches; mention the others."""
        match, *others = matches
        slot, form = self.candidates.form(match)
        schema = match.schema
        yield from _prose([schema.summary])
        yield from _prose([self._sort_of(match, slot, form)])
        if others:
            yield from _prose([f"Not meant, though of the same name: {', '.join(map(str, others))}."])
        yield from _prose(_HOW_TO_READ)
        yield f"type: {_flow(match.name)}"
        yield from self._fields(list(form.fields.values()), "")
        if form.further is not None:
            about = f"Further keys: {form.further.description or kind_name(form.further.kind)}"
            yield from ["", *_prose([about])]

    def _sort_of(self, match: Match, slot: Nested, form: Form) -> str:
        """Return a sentence on what a component is, and what it gets from the run."""
        schema = match.schema
        sort = f"{a(match.port).capitalize()}" if match.port else "A component"
        given = [field.name for field in schema.fields[: form.awaited] if field.how in ("name", "position")]
        given += [form.receives] if form.receives else []
        comes = f"; the run gives it {' and '.join(given)}" if given else ""
        aliases = self._aliases(match, schema)
        called = f"; also called {', '.join(aliases)}" if aliases else ""
        return f"{sort}{comes}{called}."

    def _aliases(self, match: Match, schema: ComponentSchema) -> list[str]:
        if match.port is None:
            return []
        known = self.candidates.of_port(match.port).items()
        return [name for name, each in known if each.target == schema.target and name != match.name and ":" not in name]

    def _fields(self, fields: Iterable[Field], indent: str) -> Iterator[str]:
        for field in fields:
            if field.name in ("type", SCOPE):
                continue
            yield ""
            yield from _prose([field.description, self._takes(field)], indent)
            yield from self._entry(field, indent)

    def _takes(self, field: Field) -> str:
        """Return a sentence on what a parameter takes, with the components that fit it."""
        takes = f"Takes {kind_text(field.kind)}{'' if field.annotated else ', for it has no annotation'}"
        for slot in dict.fromkeys(part for part in parts_of(field.kind) if isinstance(part, Nested | RecordOf)):
            if isinstance(slot, Nested):
                takes += self._choices(slot)
            if isinstance(slot, RecordOf) and not field.required:
                record = self._names.record(slot.record)
                takes += f"; {record.name} is a mapping of {', '.join(each.name for each in record.fields)}"
        if field.how in ("args", "position"):
            takes += "; what is in it is passed by position" if field.how == "args" else "; passed by position"
        if field.required:
            return f"{takes}; required."
        written = field.default_text is not None and self._default(field) is None
        return f"{takes}; by default {field.default_text}, which no config can write." if written else f"{takes}."

    def _choices(self, slot: Nested) -> str:
        """Return how a nested component is written: with which names, as far as they can be listed."""
        known = self.candidates.primary_names(slot)
        if slot.port is None and not 0 < len(known) <= _SHOWN:
            return f"; {a(slot.name)} is written {{type: module:name, …}}"
        more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
        return f"; {a(slot.name)} is written {{type: …}} with one of {', '.join(known[:_SHOWN])}{more}"

    def _entry(self, field: Field, indent: str) -> Iterator[str]:
        """Yield the lines of a key."""
        if not field.required:
            default = self._default(field)
            if default is not None:
                yield f"{indent}#{field.name}: {default}"
            return
        match field.kind:
            case RecordOf(record=key):
                yield f"{indent}{field.name}:"
                yield from self._fields(self._names.record(key).fields, f"{indent}  ")
            case Nested() | OneOf(members=(Nested(), *_)):
                yield f"{indent}{field.name}:"
                yield f"{indent}  type: {REQUIRED}"
            case _:
                yield f"{indent}{field.name}: {REQUIRED}"

    def _default(self, field: Field) -> str | None:
        """Return a default as YAML; None where it is no plain data, or not what the annotation says."""
        if field.how == "args":
            return "[]"
        if field.how == "kwargs" or field.default_text is None:
            return None
        text = self._of_record(field.kind) if field.default is None and field.default_text != "None" else None
        text = text or (_flow(field.default) if field.default is not None or field.default_text == "None" else None)
        return text if text is not None and self._is_right(text, field.kind) else None

    def _of_record(self, kind: Kind) -> str | None:
        if not isinstance(kind, RecordOf):
            return None
        fields = self._names.record(kind.record).fields
        entries = [f"{each.name}: {default}" for each in fields if (default := self._default(each)) is not None]
        return f"{{{', '.join(entries)}}}"

    def _is_right(self, text: str, kind: Kind) -> bool:
        try:
            value = parse_value(text, "default").data
        except InvalidConfigError:
            return False
        checker = Checker(Document("default", value), self._names, self._imports)
        checker.convert(value, kind, ())
        return not checker.mistakes


_HOW_TO_READ: Final = (
    f"Write a value for each {REQUIRED}. The lines that begin with # and a key are defaults: take the # away to change one.",
)


def _prose(paragraphs: Iterable[str], indent: str = "") -> Iterator[str]:
    for paragraph in paragraphs:
        text = "".join(character if character.isprintable() else " " for character in paragraph)
        for line in textwrap.wrap(
            text, _WIDTH - len(indent) - len("# "), break_long_words=False, break_on_hyphens=False
        ):
            yield f"{indent}# {line}"


def _flow(value: object) -> str:
    """Return plain data as YAML in one line."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else {math.inf: ".inf", -math.inf: "-.inf"}.get(value, ".nan")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_flow(key)}: {_flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, str):
        plain = _PLAIN_WORD.fullmatch(value) and parse_value(value, "text").data == value
        return value if plain else json.dumps(value, ensure_ascii=False)
    return str(value)
