"""A config of data as the typed Python that a person would write for the same run."""

from __future__ import annotations

from typing import NamedTuple

from treenail.adapters.config.catalog import Catalog
from treenail.adapters.config.freezing.imports import Imports
from treenail.adapters.config.freezing.layout import Span, Writer
from treenail.adapters.config.freezing.printing import Printer
from treenail.adapters.config.freezing.transcript import transcribe
from treenail.adapters.config.freezing.written import WrittenText
from treenail.adapters.config.load import Source
from treenail.adapters.documents import Document, TreePath


class Frozen(NamedTuple):
    """A config as Python.

    Args:
        text: The module.
        document: What it was made of.
        spans: Where the parts of the config stand in the text, outer ones before those in them.
    """

    text: str
    document: Document
    spans: tuple[Span, ...]

    def place(self, line: int, column: int) -> TreePath:
        """Return the innermost part of the config that stands at a line, from 1, and column, from 0."""
        around = [span for span in self.spans if span.start <= (line, column) < span.end]
        return max(around, key=lambda span: (span.start, -span.end[0], -span.end[1])).path if around else ()


def freeze(source: Source, catalog: Catalog) -> str:
    """Return the module of Python that describes the same run as a config of data.

    Args:
        source: The config, with overrides and overlays.
        catalog: What ``type:`` may name.

    Raises:
        InvalidConfigError: Everything that is wrong in the config; or what typed Python cannot say.
        ConfigError: It cannot be read, or is Python.
    """
    return freeze_with_places(source, catalog).text


def freeze_with_places(source: Source, catalog: Catalog) -> Frozen:
    """Return what `freeze` does, with the place of each part.

    Raises:
        InvalidConfigError: Everything that is wrong in the config; or what typed Python cannot say.
        ConfigError: It cannot be read, or is Python.
    """
    document, run = transcribe(source, catalog)
    written = WrittenText(source.path, document)
    imports = Imports(["run"])
    for name in ("spec", "late", "partial"):  # only where they are used does an import stand for them
        imports.keep("treenail.kernel", name)
    printer = Printer(document, catalog, imports, written)
    body = printer.record(run, (), spread=True)
    writer = Writer()
    writer.write(_docstring(written.leading))
    writer.write(f"{imports.text()}\n")
    for function in printer.functions:
        writer.write(f"\n\n{function.head}\n    return ")
        writer.expression(function.body, 4)
        writer.write("\n")
    writer.write("\n\nrun = " if printer.functions else "\nrun = ")
    writer.expression(body)
    writer.write("\n")
    return Frozen(writer.text, document, tuple(writer.spans))


def _docstring(lines: list[str]) -> str:
    """Return a comment as the docstring of a module, or as a comment where a docstring could not hold it."""
    text = "\n".join(line.rstrip() for line in lines).strip()
    if not text:
        return ""
    if '"""' in text or "\\" in text or text.endswith('"'):
        return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines()) + "\n"
    end = "\n" if "\n" in text else ""
    return f'"""{text}{end}"""\n\n'
