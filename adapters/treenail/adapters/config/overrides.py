"""``key=value``, ``+key=value`` and ``~key`` on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from treenail.adapters.documents import (
    Document,
    Edit,
    InvalidConfigError,
    Map,
    Mark,
    Mistake,
    Seq,
    TreePath,
    dotted,
    parse_value,
    resolve_references,
)
from treenail.kernel import did_you_mean

_ROOT: TreePath = ()
_ACTIONS: Mapping[str, Literal["add", "remove"]] = {"+": "add", "~": "remove"}


class Override(NamedTuple):
    """One override, taken apart.

    Args:
        text: As it was written.
        action: ``add`` is ``+``, ``remove`` is ``~``.
        parts: The key, taken apart at its dots.
        value: What it sets; None for ``~``.
        mark: What messages call its place, and how a reference in it was written.
    """

    text: str
    action: Literal["set", "add", "remove"]
    parts: tuple[str, ...]
    value: object
    mark: Mark

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"override '{self.text}'"


def parse_override(text: str) -> Override:
    """Take an override apart.

    Raises:
        InvalidConfigError: It has no ``=``, an empty key, or wrong YAML.
    """
    where = f"override '{text}'"
    action: Literal["set", "add", "remove"] = _ACTIONS.get(text[:1], "set")
    key, equals, value = (text if action == "set" else text[1:]).partition("=")
    parts = tuple(part.strip() for part in key.replace("[", ".").replace("]", "").split("."))
    if action == "remove" and equals:
        raise InvalidConfigError([Mistake(where, "", f"~ removes and takes no value; write ~{key}")])
    if not all(parts) or (not equals and action != "remove"):
        raise InvalidConfigError([Mistake(where, "", "write key=value, for example optimizer.lr=3e-4")])
    try:
        found, mark = resolve_references(parse_value(value, where))
        return Override(text, action, parts, _placed(found, where), Mark(where, written=mark.written))
    except InvalidConfigError as error:
        raise InvalidConfigError([Mistake(where, "", mistake.message) for mistake in error.mistakes]) from None


def _placed(value: object, where: str) -> object:
    """Return a value whose places are the override as a whole: it is short enough to be one."""
    if isinstance(value, Map):
        marks = {key: Mark(where, written=mark.written) for key, mark in value.marks.items()}
        return Map({key: _placed(item, where) for key, item in value.items()}, marks)
    if isinstance(value, Seq):
        return Seq(
            [_placed(item, where) for item in value], [Mark(where, written=each.written) for each in value.marks]
        )
    return value


def apply_overrides(
    document: Document, overrides: Sequence[str], defaults: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Change parts of a document: ``optimizer.lr=3e-4``, ``schedules.0.every=step``, ``+hooks.ema={type: ema}``, ``~val``.

    Values are YAML. An item of a list is named by its number, or by the ``type`` or ``name`` that only it has. A key that
    nothing takes is found when the document is checked.

    Args:
        document: Changed in place.
        overrides: In order; later ones win.
        defaults: Entries that sections have without being written, which null removes.

    Raises:
        InvalidConfigError: All overrides that cannot be read, or lead nowhere.
    """
    mistakes: list[Mistake] = []
    for text in overrides:
        try:
            override = parse_override(text)
            path = _Change(document, override, defaults or {}).apply()
            document.overrides[path] = text
        except InvalidConfigError as error:
            mistakes += error.mistakes
        except LookupError as error:
            mistakes.append(Mistake(f"override '{text}'", "", str(error.args[0])))
    if mistakes:
        raise InvalidConfigError(mistakes)


def edits_of(data: object, overrides: Sequence[str]) -> list[Edit]:
    """Return overrides as edits of a file.

    Args:
        data: What the file holds now.
        overrides: In order.

    Raises:
        InvalidConfigError: All overrides that cannot be read, or lead nowhere.
    """
    edits: list[Edit] = []
    mistakes: list[Mistake] = []
    for text in overrides:
        try:
            override = parse_override(text)
            edits.append(_edit(data, override))
        except InvalidConfigError as error:
            mistakes += error.mistakes
        except LookupError as error:
            mistakes.append(Mistake(f"override '{text}'", "", str(error.args[0])))
    if mistakes:
        raise InvalidConfigError(mistakes)
    return edits


def _edit(data: object, override: Override) -> Edit:
    node, path = data, _ROOT
    for index, part in enumerate(override.parts):
        if override.action == "add" and isinstance(node, list) and part == str(len(node)):
            path = (*path, len(node))
            break
        key = _key(node, part, path)
        path = (*path, key)
        there = isinstance(node, list) or (isinstance(node, dict) and node.get(key) is not None)
        if not there:
            path = (*path, *override.parts[index + 1 :])
            break
        node = node[key]  # type: ignore[index]  # a list has an int key here, a dict any
    else:
        if override.action == "add" and isinstance(node, list) and not isinstance(override.value, list):
            path = (*path, len(node))
    if override.action == "remove":
        return Edit(path, action="remove")
    return Edit(path, override.value, "add" if override.action == "add" else "set")


class _Change:
    def __init__(self, document: Document, override: Override, defaults: Mapping[str, Sequence[str]]) -> None:
        self._document = document
        self._override = override
        self._defaults = defaults

    def apply(self) -> TreePath:
        """Change the document; return the place of the change."""
        node, path = self._document.data, _ROOT
        created: TreePath | None = None
        for part in self._override.parts[:-1]:
            key = _key(node, part, path)
            place: TreePath = (*path, key)
            if isinstance(node, dict) and node.get(key) is None:
                if self._override.action == "remove":
                    raise LookupError(f"there is no '{dotted(place)}' to remove{_mend(key, node)}")
                created = created or (None if key in node or self._is_default(place) else place)
                self._put(node, key, Map())
            node, path = node[key], place  # type: ignore[index]  # a list has an int key here, a dict any
        return self._change(node, path, created)

    def _change(self, node: object, path: TreePath, created: TreePath | None) -> TreePath:
        action, part, value = self._override.action, self._override.parts[-1], self._override.value
        if action == "add" and isinstance(node, list) and part == str(len(node)):
            return self._append(node, path)
        key = _key(node, part, path)
        place: TreePath = (*path, key)
        there = isinstance(node, list) or (isinstance(node, dict) and key in node)
        if action == "remove":
            self._remove(node, key, place, there=there)
        elif action == "add" and there:
            present = node[key]  # type: ignore[index]  # it is there
            if isinstance(present, list) and not isinstance(value, list):
                return self._append(present, place)
            if present is not None:
                raise LookupError(f"'{dotted(place)}' exists already; write {self._override.text[1:]} to change it")
            self._put(node, key, value)
        else:
            if action == "set" and not there and not self._is_default(place):
                created = created or place
            self._put(node, key, value)
        removes_default = value is None and str(place[0]) in self._defaults  # a rule says which ones there are
        if created is not None and action == "set" and not removes_default:
            self._document.created[created] = self._mend_new(created)
        return place

    def _mend_new(self, created: TreePath) -> str:
        section = self._document.data
        for part in created[:-1]:
            section = section[part]  # type: ignore[index]  # the override led through it
        others = [str(key) for key in section if key != created[-1]] if isinstance(section, dict) else []
        defaults = self._defaults.get(str(created[0]), ()) if len(created) == 2 else ()
        guess = did_you_mean(str(created[-1]), [*others, *defaults])
        return f"{f'{guess}; ' if guess else ''}write '+{self._override.text}' to add it"

    def _append(self, items: list[object], path: TreePath) -> TreePath:
        items.append(self._override.value)
        if isinstance(items, Seq) and len(items.marks) == len(items) - 1:
            items.marks.append(self._override.mark)
        return (*path, len(items) - 1)

    def _remove(self, node: object, key: int | str, place: TreePath, *, there: bool) -> None:
        if self._is_default(place):
            self._put(node, key, None)  # null removes what is there without being written
        elif isinstance(node, dict) and there:
            del node[key]
            if isinstance(node, Map):
                node.marks.pop(key, None)
        elif isinstance(node, list) and isinstance(key, int):
            del node[key]
            if isinstance(node, Seq) and node.marks:
                del node.marks[key]
        else:
            defaults = self._defaults.get(str(place[0]), ()) if len(place) == 2 else ()
            raise LookupError(f"there is no '{dotted(place)}' to remove{_mend(key, node, defaults)}")

    def _put(self, node: object, key: int | str, value: object) -> None:
        node[key] = value  # type: ignore[index]  # a list has an int key here, a dict any
        if isinstance(node, Map) or (isinstance(node, Seq) and node.marks):
            node.marks[key] = self._mark_of(value)  # type: ignore[index]  # likewise

    def _mark_of(self, value: object) -> Mark:
        return self._override.mark if value is self._override.value else Mark(self._override.where)

    def _is_default(self, place: TreePath) -> bool:
        return len(place) == 2 and place[1] in self._defaults.get(str(place[0]), ())


def _key(node: object, part: str, path: TreePath) -> int | str:
    """Return the key or number that a part of an override's key stands for.

    Raises:
        LookupError: There is nothing of this name.
    """
    if isinstance(node, dict):
        return int(part) if part not in node and part.isdecimal() and int(part) in node else part
    if not isinstance(node, list):
        raise LookupError(f"'{dotted(path)}' is neither a mapping nor a list, it has no '{part}'")
    if part.isdecimal() and part.isascii():
        if int(part) < len(node):
            return int(part)
        raise LookupError(f"'{dotted(path)}' is a list of {len(node)}; '{part}' is not one of its numbers")
    names = [_names(item) for item in node]
    found = [index for index, each in enumerate(names) if part in each]
    if len(found) == 1:
        return found[0]
    if found:
        places = ", ".join(dotted((*path, index)) for index in found)
        raise LookupError(f"'{dotted(path)}' has several '{part}'; say which by number: {places}")
    mend = did_you_mean(part, [name for each in names for name in each])
    raise LookupError(
        f"'{dotted(path)}' is a list of {len(node)}; '{part}' is not one of its numbers"
        f"{' or names' if any(names) else ''}{f'; {mend}' if mend else ''}"
    )


def _names(item: object) -> list[str]:
    """Return what an item of a list can be called."""
    if not isinstance(item, dict):
        return []
    kind = item.get("type")
    return [
        name
        for name in (item.get("name"), kind, kind.rpartition(":")[2] if isinstance(kind, str) else None)
        if isinstance(name, str)
    ]


def _mend(key: object, node: object, defaults: Sequence[str] = ()) -> str:
    known = [*(str(each) for each in node), *defaults] if isinstance(node, dict) else []
    mend = did_you_mean(str(key), known)
    return f"; {mend}" if mend else ""
