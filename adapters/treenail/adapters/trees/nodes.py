"""The mappings and lists of a config: one store with two views, items and attributes, which can be frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple, Self, SupportsIndex

from treenail.adapters.documents import NOTHING
from treenail.adapters.trees.errors import AttributeAccessError, FrozenConfigError, MissingEntryError
from treenail.adapters.trees.merge import MAX_DEPTH, is_name, plain, too_deep
from treenail.adapters.trees.ownership import Part, is_frozen, place_of, refuse_if_frozen, root_of
from treenail.kernel import ConfigError, did_you_mean

if TYPE_CHECKING:
    from _collections_abc import dict_items, dict_keys, dict_values

# `Any` stands in this file for the values of a config: they may be of every type, and whoever reads one knows which.
# Keys are `Any` to the type checker, words or whole numbers in fact: `f(**tree)` needs str, `classes[0]` an int.


class Origin(NamedTuple):
    """Where a config was read from: the file as it was named, and its text."""

    filename: str | None
    text: str


class Node(dict[Any, Any]):
    """A mapping of a config; `ConfigTree` is the one that people use.

    The entries are in a private store. The dict that this class is, for `isinstance` and for C code such as json's and
    msgspec's, is a copy of it that each change renews; ``dict.__setitem__(node, …)`` changes that copy and not the config.

    Args:
        entries: A mapping or pairs.
        more: More entries, which win.
    """

    __slots__ = ("_content", "_frozen", "_origin", "_owner")
    _content: dict[Any, Any]
    _frozen: bool
    _origin: Origin | None
    _owner: Part | None

    @property
    def _kind(self) -> type[Node]:
        return type(self)

    def __new__(cls, *_args: object, **_more: object) -> Self:
        """Make an empty tree, so that no half-made one exists."""
        tree = super().__new__(cls)
        for slot, value in (("_content", {}), ("_frozen", False), ("_origin", None), ("_owner", None)):
            object.__setattr__(tree, slot, value)
        return tree

    def __init__(self, entries: Mapping[Any, Any] | Iterable[tuple[Any, Any]] | None = None, /, **more: Any) -> None:
        self.update(plain(entries) if isinstance(entries, Mapping) else entries or (), **more)

    # --- reading ---

    def __getitem__(self, key: Any) -> Any:
        if key not in self._content:
            raise MissingEntryError(f"there is no entry {key!r}", where=place_of(self), mend=_hint(key, self._content))
        return self._content[key]

    def __getattr__(self, name: str) -> Any:
        if name not in self._content:
            known = [*filter(is_name, self._content), *(n for n in dir(type(self)) if not n.startswith("_"))]
            raise AttributeAccessError(f"there is no entry '{name}'", where=place_of(self), mend=_hint(name, known))
        return self._content[name]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._content)

    def __reversed__(self) -> Iterator[Any]:
        yield from reversed(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def __contains__(self, key: object) -> bool:
        return key in self._content

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *filter(is_name, self._content)})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self._content == (other._content if isinstance(other, Node) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # as dict's

    def keys(self) -> dict_keys[Any, Any]:
        """Return a view of the keys."""
        return self._content.keys()

    def values(self) -> dict_values[Any, Any]:
        """Return a view of the values."""
        return self._content.values()

    def items(self) -> dict_items[Any, Any]:
        """Return a view of keys and values."""
        return self._content.items()

    def get(self, key: Any, default: Any = None) -> Any:
        """Return an entry, or the one at a path such as ``model.layers.0.width``; the default if there is none."""
        found = self._find(key)
        return default if found is NOTHING else found

    def have(self, key: Any) -> bool:
        """Return whether there is an entry, or something at a path such as ``model.layers.0.width``."""
        return self._find(key) is not NOTHING

    def _find(self, key: Any) -> Any:
        if key in self._content or not isinstance(key, str):
            return self._content.get(key, NOTHING)
        found: Any = self
        for part in key.split("."):
            number = int(part) if part.isdecimal() else None
            if isinstance(found, Node):
                found = found._content.get(part, found._content.get(number, NOTHING))
            elif isinstance(found, list | tuple) and number is not None and number < len(found):
                found = found[number]
            else:
                return NOTHING
        return found

    # --- writing: every change comes through these two ---

    def __setitem__(self, key: Any, value: Any) -> None:
        refuse_if_frozen(self, key)
        old = self._content.get(key, NOTHING)
        if old is not value:
            self._put(key, _adopted(value, self))
            _release(old)

    def _put(self, key: Any, adopted: Any) -> None:
        if not isinstance(key, str | int):
            raise ConfigError(f"a key must be a word or a whole number, not {key!r}", where=place_of(self))
        self._content[key] = adopted
        dict.__setitem__(self, key, adopted)

    def __delitem__(self, key: Any) -> None:
        refuse_if_frozen(self, key)
        _release(self[key])
        del self._content[key]
        dict.pop(self, key, None)

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse_method(name)
        self[name] = value

    def __delattr__(self, name: str) -> None:
        self._refuse_method(name)
        if name not in self._content:
            getattr(self, name)  # raises, with the message
        del self[name]

    def _refuse_method(self, name: str) -> None:
        if not any(name in vars(kind) for kind in type(self).__mro__):
            return
        raise AttributeAccessError(
            f"'{name}' is a part of every config, not an entry", where=place_of(self), mend=f"write tree['{name}']"
        )

    def update(self, entries: Any = (), /, **more: Any) -> None:
        """Set entries, each one whole; `merge` goes into mappings.

        Args:
            entries: A mapping or pairs.
            more: More entries, which win.

        Raises:
            ConfigError: The entries are neither.
        """
        try:
            found = dict(entries, **more)
        except (TypeError, ValueError):
            kind = type(entries).__name__
            raise ConfigError(f"entries are a mapping or pairs, not a {kind}", where=place_of(self)) from None
        for key, value in found.items():
            self[key] = value

    def pop(self, key: Any, *default: Any) -> Any:
        """Remove and return an entry; the default, if one is given, when there is none."""
        if default and key not in self._content:
            return default[0]
        value = self[key]
        del self[key]
        return value

    def clear(self) -> None:
        """Remove all entries."""
        for key in tuple(self._content):
            del self[key]

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return an entry; set it first if there is none."""
        if key not in self._content:
            self[key] = default
        return self[key]

    def popitem(self) -> tuple[Any, Any]:
        """Remove and return the last entry."""
        if not self._content:
            raise MissingEntryError("there is no entry", where=place_of(self))
        key = next(reversed(self._content))
        return key, self.pop(key)

    def __or__(self, other: Any) -> Self:
        if not isinstance(other, Mapping):
            return NotImplemented
        joined = self.copy(frozen=False)
        joined.update(plain(other))
        return joined

    def __ror__(self, other: Any) -> Self:
        return type(self)(other) | self if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    # --- freezing ---

    def freeze(self, frozen: bool = True) -> None:
        """Freeze or unfreeze this tree and all in it. A frozen one refuses every change, of its lists too.

        Raises:
            FrozenConfigError: A part of a frozen tree was to be unfrozen by itself.
        """
        if frozen:
            object.__setattr__(self, "_frozen", True)
            return
        if self._owner is not None and is_frozen(self._owner):
            raise FrozenConfigError("this belongs to a frozen config", where=place_of(self), mend="unfreeze the whole")
        for tree in _nodes(self):
            object.__setattr__(tree, "_frozen", False)

    def is_frozen(self) -> bool:
        """Return whether this tree, or one that it belongs to, is frozen."""
        return is_frozen(self)

    # --- copies ---

    def copy(self, *, frozen: bool | None = None) -> Self:
        """Return a copy, whatever the depth; objects other than mappings, lists and tuples are in both.

        Args:
            frozen: Whether the copy is frozen; as this one, part by part, when None.
        """
        made = type(self).__new__(type(self))
        object.__setattr__(made, "_origin", self._origin)
        for key, value in self._content.items():
            made._put(key, _adopted(value, made, keep_frozen=frozen is None))
        if frozen or (frozen is None and self.is_frozen()):
            made.freeze()
        return made

    def deep_copy(self) -> Self:
        """Return a copy in which every object is copied, as by `copy.deepcopy`; it is frozen if this one is."""
        return deepcopy(self)

    __copy__ = copy

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return _rebuilt, (type(self), dict(self._content), self._origin, self.is_frozen())

    def to_dict(self) -> dict[Any, Any]:
        """Return plain dicts, lists and tuples."""
        entries: dict[Any, Any] = plain(self)
        return entries


class ConfigList(list[Any]):
    """A list in a config: mappings in it are nodes, and it is frozen when the config is.

    As with `Node`, the items are in a private store, and the list that this class is only copies it.

    Args:
        items: What it holds first.
        kind: What mappings in it become.
    """

    __slots__ = ("_content", "_kind", "_owner")
    _content: list[Any]
    _frozen = False  # by itself; what it belongs to may be
    _kind: type[Node]
    _owner: Part | None

    def __new__(cls, _items: object, kind: type[Node]) -> Self:
        """Make an empty list."""
        made = super().__new__(cls)
        made._content, made._kind, made._owner = [], kind, None
        return made

    def __init__(self, items: Iterable[Any], _kind: type[Node]) -> None:
        self[:] = items

    def __getitem__(self, index: Any) -> Any:
        return self._content[index]

    def __len__(self) -> int:
        return len(self._content)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._content)

    def __reversed__(self) -> Iterator[Any]:
        yield from reversed(self._content)

    def __contains__(self, value: object) -> bool:
        return value in self._content

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list):
            return NotImplemented
        return self._content == (other._content if isinstance(other, ConfigList) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # as list's

    def __repr__(self) -> str:
        return repr(self._content)

    def __add__(self, other: Any) -> Any:
        return self._content + list(other) if isinstance(other, list) else NotImplemented

    def __radd__(self, other: Any) -> Any:
        return list(other) + self._content if isinstance(other, list) else NotImplemented

    def __mul__(self, times: SupportsIndex) -> Any:
        return self._content * times

    __rmul__ = __mul__

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return type(self), (list(self._content), self._kind)

    def __setitem__(self, index: Any, value: Any) -> None:
        refuse_if_frozen(self, *([] if isinstance(index, slice) else [index]))
        old = self._content[index]
        if isinstance(index, slice):
            self._content[index] = [_adopted(item, self) for item in value]
            _release(tuple(old))
        elif old is not value:
            self._content[index] = _adopted(value, self)
            _release(old)
        self._renew()

    def __delitem__(self, index: Any) -> None:
        refuse_if_frozen(self)
        old = self._content[index]
        del self._content[index]
        _release(tuple(old) if isinstance(index, slice) else old)
        self._renew()

    def insert(self, index: SupportsIndex, value: Any) -> None:
        """Put an item before the one at the index."""
        refuse_if_frozen(self)
        self._content.insert(index, _adopted(value, self))
        self._renew()

    def append(self, value: Any) -> None:
        """Put an item at the end."""
        self.insert(len(self._content), value)

    def extend(self, items: Iterable[Any]) -> None:
        """Put items at the end."""
        self[len(self._content) :] = items

    def pop(self, index: SupportsIndex = -1) -> Any:
        """Remove and return an item."""
        value = self._content[index]
        del self[index]
        return value

    def remove(self, value: Any) -> None:
        """Remove the first item that is equal."""
        del self[self._content.index(value)]

    def clear(self) -> None:
        """Remove all items."""
        del self[:]

    def index(self, value: Any, *bounds: SupportsIndex) -> int:
        """Return the number of the first item that is equal."""
        return self._content.index(value, *bounds)

    def count(self, value: Any) -> int:
        """Return how many items are equal."""
        return self._content.count(value)

    def reverse(self) -> None:
        """Reverse the order, in place."""
        refuse_if_frozen(self)
        self._content.reverse()
        self._renew()

    def sort(self, *, key: Callable[[Any], Any] | None = None, reverse: bool = False) -> None:
        """Sort, in place."""
        refuse_if_frozen(self)
        try:
            self._content.sort(key=key, reverse=reverse)
        finally:
            self._renew()  # a comparison that fails leaves another order, too

    def __iadd__(self, items: Iterable[Any]) -> Self:  # type: ignore[misc]  # + gives a plain list, as += cannot
        self.extend(items)
        return self

    def __imul__(self, times: SupportsIndex) -> Self:
        self[:] = self._content * times
        return self

    def copy(self) -> ConfigList:
        """Return a copy that belongs to no config, as `Node.copy` does."""
        return ConfigList(plain(self), self._kind)

    def _renew(self) -> None:
        list.__setitem__(self, slice(None), self._content)


def _adopted(value: Any, owner: Node | ConfigList, depth: int = 0, *, keep_frozen: bool = False) -> Any:
    """Return what a part holds for a value: trees and lists that belong to it, other objects as they are."""
    if depth > MAX_DEPTH:
        raise too_deep(place_of(owner))
    if isinstance(value, Node | ConfigList) and value._owner is None and root_of(owner) is not value:
        object.__setattr__(value, "_owner", owner)
        return value
    if type(value) is tuple:  # a named tuple is an object of its own kind
        return tuple(_adopted(item, owner, depth + 1, keep_frozen=keep_frozen) for item in value)
    if isinstance(value, list):
        made = ConfigList((), owner._kind)
        made._content[:] = [_adopted(item, made, depth + 1, keep_frozen=keep_frozen) for item in value]
        made._renew()
        made._owner = owner
        return made
    if isinstance(value, Mapping):
        tree = owner._kind.__new__(owner._kind)
        for key, inner in value.items():
            tree._put(key, _adopted(inner, tree, depth + 1, keep_frozen=keep_frozen))
        if keep_frozen and isinstance(value, Node) and value._frozen:
            tree.freeze()
        object.__setattr__(tree, "_owner", owner)
        return tree
    return value


def _nodes(value: Any) -> Iterator[Node]:
    """Yield the nodes in a value, itself first."""
    if isinstance(value, Node):
        yield value
    if isinstance(value, Node | ConfigList) or type(value) is tuple:
        for inner in value.values() if isinstance(value, Node) else value:
            yield from _nodes(inner)


def _rebuilt(kind: type[Node], content: dict[Any, Any], origin: Origin | None, frozen: bool) -> Node:
    """Return a node from its state; what copy and pickle call."""
    tree = kind.__new__(kind)
    for key, value in content.items():
        tree[key] = value
    object.__setattr__(tree, "_origin", origin)
    object.__setattr__(tree, "_frozen", frozen)
    return tree


def _hint(key: object, known: Iterable[Any]) -> str | None:
    return did_you_mean(key, filter(_is_text, known)) if isinstance(key, str) else None


def _is_text(key: object) -> bool:
    return isinstance(key, str)


def _release(value: Any) -> None:
    for item in value if type(value) is tuple else (value,):
        if type(item) is tuple:
            _release(item)
        elif isinstance(item, Node | ConfigList):
            object.__setattr__(item, "_owner", None)
