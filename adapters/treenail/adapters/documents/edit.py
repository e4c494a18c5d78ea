"""Edits of a config file as a person would make them: what is not meant keeps its comments, quotes, order and spaces."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple
from uuid import uuid4

from treenail.adapters.documents.document import NOTHING, Document, InvalidConfigError, Mistake, TreePath, dotted
from treenail.adapters.documents.dump import refused_key, refused_scalar
from treenail.adapters.documents.files import Format, parse_document, read_document
from treenail.adapters.documents.splice import Splicer
from treenail.kernel import ConfigError, FileError, did_you_mean, require

_OTHER_FORMS: Final[dict[str, Format]] = {".json": "json", ".toml": "toml"}
_BY_HAND: Final = "edit it by hand; anchors, tuples and unusual layouts are not changed by a command"


class Edit(NamedTuple):
    """One change of a file.

    Args:
        path: Keys and list numbers: ``("optimizer", "lr")``.
        value: What to write there, texts as they are; left out to remove.
        action: ``set`` replaces what is there, or makes the key and the mappings around it; ``add`` makes a key that must
            not be there yet, or appends to a list where `path` ends with its length; ``remove`` takes out what must be there.
    """

    path: TreePath
    value: object = NOTHING
    action: Literal["set", "add", "remove"] = "set"


class _Step(NamedTuple):
    """An edit that is known to be possible: in which mapping or list, which entry, and what to do there."""

    inside: TreePath
    key: str | int
    value: object
    kind: Literal["replace", "insert", "remove"]


def edit_document(path: Path, edits: Sequence[Edit]) -> str:
    """Return a file's text after some edits; writes nothing.

    Args:
        path: A YAML, JSON or TOML file.
        edits: In order.

    Raises:
        InvalidConfigError: The file is wrong, or an edit leads to nothing; nothing after it is done.
        ConfigError: The file cannot be read, or an edit cannot be made without changing other parts of it.
        MissingDependencyError: TOML is edited by `tomlkit`, which is not installed.
    """
    document = read_document(path)
    form = _OTHER_FORMS.get(path.suffix.lower(), "yaml")
    with path.open(encoding="utf-8", newline="") as file:  # line ends are kept as they are
        text = file.read()
    for edit in edits:
        step = _step(document, edit)
        refusal = None if step.kind == "remove" else _refused(step.value, form)
        if refusal is not None:
            raise InvalidConfigError([Mistake(document.locate(edit.path), dotted(edit.path), refusal)])
        expected = deepcopy(_plain(document.data))
        _apply(expected, step)
        try:
            text = _edited_text(form, text, document.data, step)
            changed = parse_document(text, str(path), form)
        except (ValueError, LookupError, ConfigError) as error:
            raise _refusal(document, step) from error
        if not _same(_plain(changed.data), expected):
            raise _refusal(document, step)
        document = changed
    return text


def replace_text(path: Path, text: str) -> None:
    """Write a file so that readers see its old or its new text, never a part; its mode is kept.

    The text goes to a file beside it, is flushed to the disk (fsync) and renamed over it (POSIX rename(2)).

    Raises:
        FileError: It cannot be written; the old text is still there.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    temporary = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
        try:
            with temporary.open("x", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if mode is not None:
                temporary.chmod(mode)
            temporary.replace(target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise FileError(f"the file cannot be written: {error.strerror}", where=str(path)) from error


def _step(document: Document, edit: Edit) -> _Step:
    """Find out what an edit does to a document, or why it cannot be made."""

    def wrong(message: str) -> InvalidConfigError:
        return InvalidConfigError([Mistake(document.locate(edit.path), dotted(edit.path), message)])

    if not edit.path:
        raise wrong("name a key; a whole file is not replaced by an edit")
    if (edit.value is NOTHING) != (edit.action == "remove"):
        raise wrong("a removal has no value; everything else has one")
    node = document.data
    for index, part in enumerate(edit.path):
        inside, last = edit.path[:index], index == len(edit.path) - 1
        if node is None and index and edit.action != "remove":  # `hooks:` with nothing behind it
            return _Step(inside[:-1], inside[-1], _nested(edit.path[index:], edit.value, wrong), "replace")
        problem = _missing(node, part, inside)
        if problem is None:
            if last and edit.action == "add":
                raise wrong("this is there already; leave out the + to replace it")
            node = node[part]  # type: ignore[index]  # nothing is missing: it is a mapping or a list that has the part
            continue
        appends = isinstance(node, list) and part == len(node) and edit.action == "add"
        if edit.action == "remove" or not (isinstance(node, dict) or appends):
            raise wrong(problem)
        return _Step(inside, part, _nested(edit.path[index + 1 :], edit.value, wrong), "insert")
    kind: Literal["remove", "replace"] = "remove" if edit.action == "remove" else "replace"
    return _Step(edit.path[:-1], edit.path[-1], _plain(edit.value), kind)


def _missing(node: object, part: str | int, inside: TreePath) -> str | None:
    """Return why a mapping or list has no such part; None if it has."""
    name = f"'{dotted(inside)}'" if inside else "the file"
    if isinstance(node, dict):
        if part in node:
            return None
        hint = did_you_mean(str(part), map(str, node)) or f"there are {', '.join(map(str, node)) or 'no keys'}"
        return f"there is no '{part}' in {name}; {hint}"
    if isinstance(node, list):
        if isinstance(part, int) and 0 <= part < len(node):
            return None
        mend = f"; +{dotted((*inside, len(node)))} appends to it" if isinstance(part, int) else ""
        return f"{name} is a list of {len(node)}; '{part}' is not one of its numbers{mend}"
    return f"{name} is neither a mapping nor a list, it has no '{part}'"


def _nested(path: TreePath, value: object, wrong: Callable[[str], InvalidConfigError]) -> object:
    nested = _plain(value)
    for part in reversed(path):
        if isinstance(part, int):
            raise wrong(f"there is no list for the number {part}; write the list as the value")
        nested = {part: nested}
    return nested


def _refused(value: object, form: Format) -> str | None:
    """Return why a format cannot hold a value; None if it can."""
    if isinstance(value, dict):
        reasons = [reason for key, inner in value.items() for reason in (refused_key(key, form), _refused(inner, form))]
    elif isinstance(value, list):
        reasons = [_refused(inner, form) for inner in value]
    else:
        reasons = [refused_scalar(value, form)]
    return next((reason for reason in reasons if reason is not None), None)


def _apply(tree: Any, step: _Step) -> None:  # Any: `_step` has found that mappings and lists lead to the place
    for part in step.inside:
        tree = tree[part]
    if step.kind == "remove":
        del tree[step.key]
    elif step.kind == "insert" and isinstance(tree, list):
        tree.append(deepcopy(step.value))
    else:
        tree[step.key] = deepcopy(step.value)


def _edited_text(form: Format, text: str, data: object, step: _Step) -> str:
    if form == "toml":
        return _edited_toml(text, step)
    splicer = Splicer(text, data, is_json=form == "json")
    if step.kind == "insert":
        return splicer.insert(step.inside, step.key, step.value)
    where = (*step.inside, step.key)
    return splicer.remove(where) if step.kind == "remove" else splicer.replace(where, step.value)


def _edited_toml(text: str, step: _Step) -> str:
    tomlkit = require("tomlkit", extra="toml", purpose="editing TOML")
    try:
        tree = tomlkit.parse(text)
        _apply(tree, step)
        edited: str = tomlkit.dumps(tree)
    except Exception as error:  # it raises errors of any class, for example for a number among [[tables]]
        raise ValueError(f"tomlkit cannot make this edit: {error}") from error
    return edited


def _refusal(document: Document, step: _Step) -> ConfigError:
    place = (*step.inside, step.key)
    return ConfigError(
        f"{dotted(place)} cannot be changed here without touching other parts of the file",
        where=document.locate(place),
        mend=_BY_HAND,
    )


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _same(first: object, second: object) -> bool:
    """Return whether two trees are equal in types too; NaN equals NaN. The order of keys is the format's affair."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_same, first, second))
    return type(first) is type(second) and (first == second or (first != first and second != second))  # noqa: PLR0124
