"""A config as a mapping with attributes: read from files, merged, frozen, written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import IO, Any, Final, Self, overload

from treenail.adapters.documents import NOTHING, mask
from treenail.adapters.trees.merge import DELETE, difference, merge_changes, nested_options, plain
from treenail.adapters.trees.nodes import Node, Origin
from treenail.adapters.trees.ownership import path_of, refuse_if_frozen
from treenail.adapters.trees.text import (
    check_inheritable,
    python_text,
    read_composed,
    read_file,
    read_text,
    tree_text,
    write_text,
)
from treenail.kernel import ConfigError

_ELSEWHERE: Final = {
    "cfg_dict": "ConfigTree(mapping)",
    "init_dict": "ConfigTree(mapping)",
    "cfg_file": "ConfigTree.open(path)",
    "cfg_text": "ConfigTree.load(text)",
    "filename": "ConfigTree.fromfile(path)",
    "parser_ins": "add_config_arguments(parser)",
    "load": "ConfigTree(mapping) or ConfigTree.open(path)",
    "logger": "ConfigTree(mapping)",
}  # arguments of other systems' Config: as keywords they would become entries in silence
_ABOUT: Final = ("filename", "text", "pretty_text")


class ConfigTree(Node):
    """A config: a dict whose entries are attributes too; the mappings in it, in lists and tuples too, are of the same kind.

    Keys that are no names, or names of methods such as ``items``, are reached as items only. A part of a config lives in
    one place: to assign it to a second one copies it; a tree that lives nowhere yet is taken as it is.

    Args:
        entries: A mapping, copied whatever its depth, or pairs. Objects other than mappings, lists and tuples are kept
            as they are.
        more: More entries, which win.

    Attributes:
        filename: The file that the config was read from, as it was named, or None. An entry of this name hides it, and
            those that follow.
        text: The text that it was read from, or None.
        pretty_text: The config as assignments of Python.

    Raises:
        ConfigError: A key is neither a word nor a whole number, or the nesting does not end.
    """

    __slots__ = ()

    def __init__(self, entries: Mapping[Any, Any] | Iterable[tuple[Any, Any]] | None = None, /, **more: Any) -> None:
        for name in more.keys() & _ELSEWHERE.keys():
            raise ConfigError(
                f"'{name}' is no argument here and would become an entry",
                mend=f"write {_ELSEWHERE[name]}, or ConfigTree({{'{name}': …}}) for an entry",
            )
        super().__init__(entries, **more)

    def merge(self, other: Mapping[Any, Any], *, allow_list_keys: bool = False) -> None:
        """Lay another config over this one: mappings are merged, all else is replaced; all or nothing.

        Args:
            other: Copied and not changed. A mapping in it that holds ``_delete_: true`` replaces what is here.
            allow_list_keys: Whether a mapping with the keys ``0``, ``1``, … changes the items of a list.

        Raises:
            ConfigError: A mapping would be laid over something else, or an item over a list that is shorter.
            FrozenConfigError: The config is frozen.
        """
        refuse_if_frozen(self)
        changes = merge_changes(self, plain(other), allow_list_keys=allow_list_keys, path=path_of(self))
        for container, _, _ in changes:
            refuse_if_frozen(container)
        for container, key, value in changes:
            if value is NOTHING:
                del container[key]
            else:
                container[key] = value

    def merge_from_dict(self, options: Mapping[str, Any], allow_list_keys: bool = True) -> None:
        """Merge options by their paths: ``{"model.backbone.depth": 50, "pipeline.0.type": "Load"}``; all or nothing.

        Args:
            options: Values by path. Mappings on the way that are not there are made.
            allow_list_keys: Whether numbers in a path lead to the items of a list.

        Raises:
            ConfigError: A path leads through something that is no mapping or list, or to an item that is not there.
            FrozenConfigError: The config is frozen.
        """
        self.merge(nested_options(options), allow_list_keys=allow_list_keys)

    def __getattr__(self, name: str) -> Any:
        if name in self._content or name not in _ABOUT:
            return super().__getattr__(name)
        if name == "pretty_text":
            return python_text(plain(self))
        return getattr(self._origin, name) if self._origin else None

    def __repr__(self) -> str:
        head = f"Config (path: {self._origin.filename}): " if self._origin and self._origin.filename else ""
        return f"{head}{mask(plain(self))!r}"

    @classmethod
    def open(cls, file: str | os.PathLike[str] | IO[str], encoding: str = "utf-8", *, tuples: bool = True) -> Self:
        """Read one file: YAML, JSON or TOML by its suffix, YAML from a file object without a name.

        Args:
            file: The path, or a file object, which is read to its end.
            encoding: Of the file at the path.
            tuples: Whether an unquoted ``(224, 224)`` in YAML is a tuple.

        Raises:
            ConfigError: The file cannot be read, is wrong, or is no mapping.
        """
        return cls._of(*read_file(file, encoding, tuples))

    @classmethod
    def load(cls, text: str, *, tuples: bool = True) -> Self:
        """Read a YAML text; see `open`.

        Raises:
            ConfigError: The text is wrong or no mapping.
        """
        return cls.fromstring(text, "yaml", tuples=tuples)

    @classmethod
    def fromstring(cls, text: str, file_format: str, *, tuples: bool = True) -> Self:
        """Read a text as ``yaml``, ``json`` or ``toml``, with or without a dot before it; see `open`.

        Raises:
            ConfigError: The format is unknown, or the text is wrong or no mapping.
        """
        return cls._of(read_text(text, file_format, tuples), None, text)

    @classmethod
    def fromfile(cls, filename: str | os.PathLike[str], *, tuples: bool = True) -> Self:
        """Read a file, the files it builds on (``_base_``) and its references; see `open`.

        Raises:
            ConfigError: A file cannot be read, is wrong, is no mapping, or builds on itself.
        """
        return cls._of(*read_composed(filename, tuples))

    @classmethod
    def _of(cls, entries: Mapping[Any, Any], filename: str | None, text: str) -> Self:
        tree = cls(entries)
        object.__setattr__(tree, "_origin", Origin(filename, text))
        return tree

    @overload
    def dump(self, file: None = None, *, format: str | None = None, mask_secrets: bool = False) -> str: ...
    @overload
    def dump(
        self,
        file: str | os.PathLike[str] | IO[str],
        *,
        format: str | None = None,
        encoding: str = "utf-8",
        mask_secrets: bool = False,
    ) -> None: ...
    def dump(
        self,
        file: str | os.PathLike[str] | IO[str] | None = None,
        *,
        format: str | None = None,  # noqa: A002  # what it is
        encoding: str = "utf-8",
        mask_secrets: bool = False,
    ) -> str | None:
        """Write the whole config, and return the text if no file is given. `open` and `load` read YAML back as it was.

        JSON has no tuples, they become lists; Python is for people and is not read.

        Args:
            file: The path, or a file object.
            format: ``yaml``, ``json`` or ``py``; by the file's suffix when None, else YAML.
            encoding: Of the file at the path.
            mask_secrets: Whether passwords, keys and tokens are written as stars.

        Raises:
            ConfigError: The format is unknown or cannot say a value, or the file cannot be written.
        """
        entries = plain(mask(plain(self))) if mask_secrets else plain(self)
        written = tree_text(entries, file, format)
        if file is None:
            return written
        write_text(written, file, encoding)
        return None

    def save(self, file: str | os.PathLike[str] | IO[str], encoding: str = "utf-8") -> None:
        """Write the config to a file; see `dump`.

        Raises:
            ConfigError: As `dump`.
        """
        self.dump(file, encoding=encoding)

    def save_difference(self, path: str | os.PathLike[str], base: str | os.PathLike[str]) -> None:
        """Write what differs from another file, which `fromfile` then lays over it.

        A mapping that lost an entry is written whole, with ``_delete_: true``.

        Args:
            path: The file to write.
            base: The other file; it stands in the new one as ``_base_``, relative to it.

        Raises:
            ConfigError: The base cannot be read, the config cannot be written, or lacks a whole entry of the base.
        """
        inherited, _, _ = read_composed(base, tuples=True)
        relative = os.path.relpath(base, os.path.dirname(os.path.abspath(path))).replace(os.sep, "/")
        changed = difference(plain(self), plain(inherited))
        check_inheritable(changed)
        if DELETE in changed:  # not at the top: it would drop the base itself
            raise ConfigError(
                f"the base has an entry '{next(key for key in inherited if key not in self)}' that this config has not",
                where=str(base),
                mend="build on another file, or write the whole with dump",
            )
        ConfigTree({"_base_": relative} | changed).dump(path)
