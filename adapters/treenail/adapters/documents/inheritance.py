"""Config files put together: `_base_`, references, deployment overlays. Reads the files that are named, and runs no code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from treenail.adapters.documents.bases import find_base
from treenail.adapters.documents.document import Document, InvalidConfigError, Map, Mark, Mistake, Seq, TreePath, dotted
from treenail.adapters.documents.files import read_document
from treenail.adapters.documents.references import References, Spent
from treenail.adapters.documents.uris import Location, Uri
from treenail.kernel import ConfigError

BASE_KEY: Final = "_base_"
DELETE_KEY: Final = "_delete_"
SCOPE_KEY: Final = "_scope_"
MAX_CHAIN: Final = 100

_Node = TypeVar("_Node")


def load_document(
    path: Location,
    *,
    overlays: Sequence[Location] = (),
    environment: Mapping[str, str] | None = None,
    tuples: bool = False,
) -> Document:
    """Read a config file with its bases, lay overlays over it, and resolve the references in all of them.

    Args:
        path: A YAML, JSON or TOML file; ``package::path`` in the configs of an installed package; or a `Uri`, which
            the mounts in use find.
        overlays: Files, or URIs, whose values replace the config's; later ones win. Each may have bases of its own.
        environment: What `${env:…}` reads; None for this process's.
        tuples: Whether a plain scalar of YAML like ``(224, 224)`` is a tuple.

    Raises:
        InvalidConfigError: Everything that is wrong in one of the files, with its places.
        ConfigError: A file cannot be read, or is empty.
    """
    loader = _Loader(os.environ if environment is None else environment, tuples=tuples)
    try:
        file, package = _installed(path)
        main = loader.load(file, (), None)
        tree, mark = main.data, main.mark
        if package is not None and isinstance(tree, Map):
            tree = _scoped(tree, package)
        for overlay in overlays:
            if not isinstance(tree, Map):
                raise InvalidConfigError([Mistake(mark.place(), "", "nothing can be laid over a file without keys")])
            above = loader.load(overlay, (), tree)
            tree = _merged(tree, _keys_of(above.data, above.mark, "an overlay"))
        return Document(str(path), _without_delete(tree) if loader.deletes else tree, mark)
    except RecursionError:
        raise ConfigError("the config is nested too deeply", where=str(path)) from None


def resolve_references(document: Document) -> tuple[object, Mark]:
    """Return the data and mark of a document that is no file, such as a value on the command line, without references.

    Raises:
        InvalidConfigError: A variable is not set, or a reference has no meaning outside of a file.
    """
    why = "there are no bases on the command line"
    references = References(Path(document.source), os.environ, None, why, Spent())
    found = references.resolve(document.data, document.mark)
    if references.mistakes:
        raise InvalidConfigError(references.mistakes)
    return found


def _installed(path: Location) -> tuple[Location, str | None]:
    """Return the file that ``package::path`` names, and the package; another path as it is."""
    if isinstance(path, Uri) or "::" not in str(path) or path.exists():
        return path, None
    try:
        return find_base(str(path), path)
    except LookupError as error:
        raise ConfigError(str(error.args[0]), where=str(path)) from None


class _Loaded(NamedTuple):
    """A file over its bases; `_delete_` still stands in it, for what it may be laid over."""

    data: object
    mark: Mark


class _Link(NamedTuple):
    """A file on the way from the first one to its farthest base."""

    path: Location
    real: str

    def shown(self, first: _Link) -> str:
        if isinstance(self.path, Uri) or isinstance(first.path, Uri):
            return str(self.path)
        return os.path.relpath(self.real, os.path.dirname(first.real))


def _link(path: Location) -> _Link:
    return _Link(path, path.full if isinstance(path, Uri) else os.path.realpath(path))


class _Loader:
    def __init__(self, environment: Mapping[str, str], *, tuples: bool) -> None:
        self._environment = environment
        self._tuples = tuples
        self._spent = Spent()
        self._bases: dict[str, _Loaded] = {}  # a file may be the base of many: each is read once
        self.deletes = False

    def load(self, path: Location, chain: tuple[_Link, ...], under: Map | None) -> _Loaded:
        """Return a file over its bases; `under` is what an overlay will be laid over, for its references."""
        document = read_document(path, tuples=self._tuples)
        data, mark = document.data, document.mark
        if not isinstance(data, Map):
            return _Loaded(self._resolved(document, data, path, under), mark)
        own = Map(data, data.marks)
        bases: Map | None = None
        if BASE_KEY in own:
            named = own.pop(BASE_KEY)
            base_mark = own.marks.pop(BASE_KEY, mark)
            bases = self._load_bases(named, base_mark, (*chain, _link(path)))
        visible = bases if under is None else under if bases is None else _merged(under, bases)
        if visible is not None and self.deletes:
            visible = _without_delete(visible)
        resolved = _keys_of(self._resolved(document, own, path, visible), mark, "a config")
        self._check_reserved(resolved, mark)
        return _Loaded(resolved if bases is None else _merged(bases, resolved), mark)

    def _resolved(self, document: Document, data: object, path: Location, bases: Map | None) -> object:
        if not document.may_refer:
            return data
        no_bases = "this file has no bases; name them at its top: _base_: other.yaml"
        references = References(path, self._environment, bases, no_bases, self._spent)
        found, _ = references.resolve(data, document.mark)
        if references.mistakes:
            raise InvalidConfigError(references.mistakes)
        return found

    def _load_bases(self, named: object, mark: Mark, chain: tuple[_Link, ...]) -> Map:
        references = References(
            chain[-1].path, self._environment, None, "the bases are not known yet where they are named", self._spent
        )
        named, mark = references.resolve(named, mark, (BASE_KEY,))
        if references.mistakes:
            raise InvalidConfigError(references.mistakes)
        entries: Sequence[object] = named if isinstance(named, list | tuple) else [named]
        marks = named.marks if isinstance(named, Seq) and named.marks else [mark] * len(entries)
        together = Map()
        mistakes: list[Mistake] = []
        for index, (entry, entry_mark) in enumerate(zip(entries, marks, strict=True)):
            where = (BASE_KEY, index) if isinstance(named, list | tuple) else (BASE_KEY,)
            base = self._load_base(entry, entry_mark, dotted(where), chain)
            mistakes += _shared_keys(together, base)
            together = _merged(together, base)
        if mistakes:
            raise InvalidConfigError(mistakes)
        return together

    def _load_base(self, entry: object, mark: Mark, where: str, chain: tuple[_Link, ...]) -> Map:
        def wrong(message: str) -> InvalidConfigError:
            return InvalidConfigError([Mistake(mark.place(), where, message)])

        if not isinstance(entry, str) or not entry:
            raise wrong(
                "a base is the name of a file, relative to this one; write _base_: other.yaml, or a list of names"
            )
        if isinstance(chain[-1].path, Uri) and mark.written is not None:
            raise wrong(
                "a config in a store names its bases without variables of the environment, which its store would learn"
            )
        try:
            path, package = find_base(entry, chain[-1].path)
        except LookupError as error:
            raise wrong(str(error.args[0])) from None
        link = _link(path)
        if any(link.real == each.real for each in chain):
            names = [each.shown(chain[0]) for each in (*chain, link)]
            raise wrong(f"the bases go in a circle: {' → '.join(names)}; take one of them out")
        if len(chain) > MAX_CHAIN:
            raise wrong(f"bases of bases go on for more than {MAX_CHAIN} files")
        loaded = self._bases.get(link.real)
        if loaded is None:
            try:
                loaded = self._bases[link.real] = self.load(path, chain, None)
            except ConfigError as error:
                if isinstance(error, InvalidConfigError) or not isinstance(path, Uri):
                    raise
                raise wrong(str(error)) from None  # whether it is there was not known where it is named
        tree = _keys_of(loaded.data, loaded.mark, "a base")
        return _scoped(tree, package) if package is not None else tree

    def _check_reserved(self, top: Map, mark: Mark) -> None:
        mistakes: list[Mistake] = []
        if top.get(DELETE_KEY) is True:
            place = top.marks.get(DELETE_KEY, mark).place(key=True)
            message = (
                "this would drop everything that the file inherits; remove it and the bases, or leave out the overlay"
            )
            mistakes.append(Mistake(place, DELETE_KEY, message))
        self._check_part(top, mark, (), in_list=False, mistakes=mistakes)
        if mistakes:
            raise InvalidConfigError(mistakes)

    def _check_part(self, node: object, mark: Mark, path: TreePath, *, in_list: bool, mistakes: list[Mistake]) -> None:
        if isinstance(node, Map):
            if BASE_KEY in node:
                place = node.marks.get(BASE_KEY, mark).place(key=True)
                message = "bases are named at the top of a file only; for one part write ${base:…}"
                mistakes.append(Mistake(place, dotted((*path, BASE_KEY)), message))
            if DELETE_KEY in node:
                place = node.marks.get(DELETE_KEY, mark).place(key=True)
                wrong = _wrong_delete(node[DELETE_KEY], in_list=in_list)
                if wrong is not None:
                    mistakes.append(Mistake(place, dotted((*path, DELETE_KEY)), wrong))
                elif node[DELETE_KEY] is False:
                    del node[DELETE_KEY]
                    node.marks.pop(DELETE_KEY, None)
                else:
                    self.deletes = True
            for key, inner in node.items():
                if isinstance(inner, Map | Seq):
                    inner_mark = node.marks.get(key, mark)
                    self._check_part(inner, inner_mark, (*path, key), in_list=in_list, mistakes=mistakes)
        elif isinstance(node, Seq):
            for index, inner in enumerate(node):
                if isinstance(inner, Map | Seq):
                    inner_mark = node.marks[index] if node.marks else mark
                    self._check_part(inner, inner_mark, (*path, index), in_list=True, mistakes=mistakes)


def _wrong_delete(value: object, *, in_list: bool) -> str | None:
    if not isinstance(value, bool):
        return "_delete_ is true or false"
    if in_list:
        return "lists are replaced as a whole, so a mapping in one inherits nothing; remove _delete_"
    return None


def _keys_of(data: object, mark: Mark, role: str) -> Map:
    if not isinstance(data, Map):
        raise InvalidConfigError([Mistake(mark.place(), "", f"{role} must be a mapping of keys to values")])
    return data


def _merged(below: Map, above: Map) -> Map:
    """Return `above` over `below`: mappings are merged, everything else is replaced; neither is changed."""
    if above.get(DELETE_KEY) is True:
        return above
    merged = Map(below, below.marks)
    merged.removed = below.removed | above.removed
    for key, value in above.items():
        old = merged.get(key)
        if value is None and old is not None:
            merged.removed |= {key}
        merged[key] = _merged(old, value) if isinstance(old, Map) and isinstance(value, Map) else value
        if key in above.marks:
            merged.marks[key] = above.marks[key]
        else:
            merged.marks.pop(key, None)
    return merged


def _shared_keys(first: Map, second: Map) -> list[Mistake]:
    """Return the keys that two bases set; one that both inherit from the same file, and leave as it is, is none."""
    mistakes = []
    for key in second:
        if key not in first:
            continue
        here, there = second.marks.get(key), first.marks.get(key)
        if here == there and first[key] == second[key]:
            continue
        place, other = (mark.place(key=True) if mark else "another base" for mark in (here, there))
        message = f"two bases set this key, the other at {other}; keep it in one of them, and override it in this file"
        mistakes.append(Mistake(place, dotted((key,)), message))
    return mistakes


def _scoped(tree: Map, package: str) -> Map:
    """Return a base of a package: the names in each of its mappings are looked up in that package first."""
    scoped = Map(tree, tree.marks)
    for key, value in tree.items():
        if isinstance(value, Map) and SCOPE_KEY not in value:
            scoped[key] = Map({**value, SCOPE_KEY: package}, {**value.marks, SCOPE_KEY: tree.marks[key]})
    return scoped


def _without_delete(node: _Node) -> _Node:
    """Return a tree from which `_delete_` has gone; only mappings outside lists can have it."""
    if not isinstance(node, Map):
        return node
    kept = {key: _without_delete(value) for key, value in node.items() if key != DELETE_KEY}
    marks = {key: mark for key, mark in node.marks.items() if key != DELETE_KEY}
    return Map(kept, marks)  # type: ignore[return-value]  # a Map for a Map: mypy does not narrow the variable
