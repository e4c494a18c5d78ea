"""Loads and checks the config of a run, from files of data or from typed Python."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from treenail.adapters.config.catalog import Catalog, Names, a
from treenail.adapters.config.check import Checker
from treenail.adapters.config.imports import allowed_imports, import_components, make_importable
from treenail.adapters.config.maker import Maker, Rules
from treenail.adapters.config.overrides import apply_overrides
from treenail.adapters.config.rules import DEFAULTS, name_default_hooks, rules_of_run
from treenail.adapters.config.schema import RecordOf
from treenail.adapters.documents import (
    Document,
    InvalidConfigError,
    Location,
    Mistake,
    TreePath,
    Uri,
    load_document,
    location,
    read_text,
)
from treenail.kernel import ConfigError, mix

if TYPE_CHECKING:
    from treenail.contracts import Run

S = TypeVar("S")

RUN = "treenail.contracts.run:Run"
"""Key of the schema of a run."""


class Source(NamedTuple):
    """Where the config of a run comes from.

    Args:
        path: A ``.yaml``, ``.yml``, ``.json`` or ``.toml`` file; or a ``.py`` file, which is executed and whose variable
            ``run`` is a `Run`. With ``imports:``, modules beside it can be imported from then on. A file of data may lie
            in a store.
        overrides: ``key=value`` texts, applied in order. What a Python config holds stays the very object elsewhere.
        overlays: Files that are merged over the config, later ones win.
        imports: Prefixes of modules that ``type:`` may import from, besides the config's own ``imports:``.
    """

    path: Location
    overrides: Sequence[str] = ()
    overlays: Sequence[Location] = ()
    imports: Sequence[str] = ()

    @property
    def folder(self) -> Path | None:
        """Where modules lie that it may import; none in a store, from which no code is run."""
        return None if isinstance(self.path, Uri) else self.path.absolute().parent


class Checked(NamedTuple):
    """What a check found out.

    Args:
        document: The config as plain data.
        unchecked: (component, parameter) of what the config gives to parameters without an annotation.
    """

    document: Document
    unchecked: tuple[tuple[str, str], ...]


class Loaded(NamedTuple):
    """A run, and the config that it comes from.

    Args:
        run: What was checked and converted.
        document: As plain data, overrides applied.
    """

    run: Run
    document: Document


def load_run(
    path: str | Location,
    overrides: Sequence[str] = (),
    catalog: Catalog | None = None,
    *,
    overlays: Sequence[str | Location] = (),
    imports: Sequence[str] = (),
) -> Run:
    """Load and check the config of a run; nothing is built.

    Args:
        path: A ``.yaml``, ``.yml``, ``.json`` or ``.toml`` file, or the URI of one; or a ``.py`` file, which is executed
            and whose variable ``run`` is a `Run`. With ``imports:``, modules beside it can be imported from then on.
        overrides: ``key=value`` texts, applied in order. What a Python config holds stays the very object elsewhere.
        catalog: What ``type:`` may name; everything installed when None.
        overlays: Files that are merged over the config, later ones win.
        imports: Prefixes of modules that ``type:`` may import from, besides the config's own ``imports:``.

    Raises:
        InvalidConfigError: Everything that is wrong in the config.
        ConfigError: The file cannot be read.
    """
    source = Source(location(path), overrides, [location(each) for each in overlays], imports)
    return load(source, catalog).run


def load(source: Source, catalog: Catalog | None = None) -> Loaded:
    """Load and check the config of a run, and keep what it was made from; nothing is built.

    Args:
        source: Where the config comes from.
        catalog: What ``type:`` may name; everything installed when None.

    Raises:
        InvalidConfigError: Everything that is wrong in the config.
        ConfigError: The file cannot be read.
    """
    document, rules = read_source(source)
    return Loaded(convert(document, _run(), catalog or Catalog(), rules, source.imports), document)


def convert(
    document: Document, kind: type[S], catalog: Catalog, rules: Rules | None = None, imports: Sequence[str] = ()
) -> S:
    """Convert a document to a Struct. What a Python config holds and no override touches stays the very object.

    Args:
        document: The config.
        kind: The Struct.
        catalog: What ``type:`` may name.
        rules: Further mistakes.
        imports: Prefixes of modules that ``type:`` may import from, besides the document's own ``imports:``.

    Raises:
        InvalidConfigError: All the mistakes in the document.
    """
    from treenail.adapters.config.make import Making

    key = catalog.derivation.record(kind)
    found, _ = _walk(document, key, catalog, rules, imports, Making(catalog))
    return cast(S, found)  # a Struct of `kind`, or there was a mistake


def check_document(document: Document, rules: Rules, names: Names, imports: Sequence[str] = ()) -> Checked:
    """Check the config of a run and build nothing.

    Args:
        document: The config.
        rules: Of a run.
        names: What ``type:`` may name.
        imports: Prefixes of modules that ``type:`` may import from, besides the config's own ``imports:``.

    Raises:
        InvalidConfigError: Everything that is wrong in the config.
    """
    maker: Maker | None = None
    if isinstance(names, Catalog):
        names.derivation.record(_run())
        if document.has_originals:  # parts of a Python config are what they are
            from treenail.adapters.config.make import Making

            maker = Making(names)
    _, checker = _walk(document, RUN, names, rules, imports, maker)
    return Checked(document, tuple(checker.unchecked))


def _run() -> type[Run]:
    from treenail.contracts import Run

    return Run


def _walk(
    document: Document,
    root: str,
    names: Names,
    rules: Rules | None,
    imports: Sequence[str],
    maker: Maker | None = None,
) -> tuple[object, Checker]:
    allowed = (*allowed_imports(document.data), *imports)
    checker = Checker(document, names, allowed, maker)
    for path, message in import_components(document.data, names, allowed):
        checker.wrong(path, message)
    found = checker.convert(document.data, RecordOf(root), ())
    for path, message in rules(document.data, checker.visits) if rules else ():
        checker.wrong(path, message)
    if checker.mistakes:
        raise InvalidConfigError(checker.mistakes)
    return found, checker


def read_source(source: Source) -> tuple[Document, Rules]:
    """Read a config with its overrides; return it with the rules of a run.

    Raises:
        InvalidConfigError: Its syntax, or an override, is wrong.
        ConfigError: The file cannot be read.
    """
    path = source.path
    if path.suffix == ".py":
        if isinstance(path, Uri):
            mend = "copy it here (treenail copy), look at it, then name the copy"
            raise ConfigError("a Python config is code, and none is run from a store", where=str(path), mend=mend)
        from treenail.adapters.config.describe import describe

        originals: dict[TreePath, object] = {}
        document = Document(str(path), describe(_run_python(path), originals), originals=originals)
        if source.overlays:
            mend = "import it in the Python config, or write the config in YAML"
            raise ConfigError("overlays are merged over files of data, not over Python", where=str(path), mend=mend)
    else:
        document = load_document(path, overlays=source.overlays)
    rules = rules_of_run(document.data)
    apply_overrides(document, source.overrides, DEFAULTS)
    name_default_hooks(document.data)
    imports = isinstance(document.data, dict) and (document.data.get("imports") or source.imports)
    if imports and source.folder is not None:
        make_importable(source.folder)
    return document, rules


def _run_python(path: Path) -> Run:
    text = read_text(path)
    # Its own name in sys.modules: loader workers must find the classes that the config defines.
    name = f"treenail_config_{path.stem}_{mix(str(path.absolute())):x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError("Python cannot import this file", where=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    make_importable(path.absolute().parent)
    try:  # a Python config is code, and documented so
        exec(compile(text, str(path), "exec", dont_inherit=True), vars(module))
    except SyntaxError as error:
        where = f"{path}:{error.lineno}:{error.offset}"
        raise InvalidConfigError([Mistake(where, "", f"Python syntax: {error.msg}")]) from None
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{path}:{lines[-1]}" if lines else str(path)
        raise InvalidConfigError([Mistake(where, "", f"{type(error).__name__}: {error}")]) from error
    run = getattr(module, "run", None)
    if not isinstance(run, _run()):
        found = "has no variable 'run'" if run is None else f"has a 'run' that is {a(type(run).__name__)}"
        raise ConfigError(f"the file {found}", where=str(path), mend="define run = Run(model=spec(…)(…), …)")
    return run
