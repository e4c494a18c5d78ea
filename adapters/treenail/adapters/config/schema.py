"""Schemas as data: what `derive` finds out about callables and types, and what checks, editors and caches read.

Nothing here names a class by the class itself, so that a schema can be stored, and read where torch is not imported.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Plain = str | int | float | bool | None


class Scalar(Struct, frozen=True, tag_field="kind", tag="scalar"):
    """A number, text, truth value or null.

    Args:
        type: Its Python type; ``"none"`` is null.
        limits: Constraints, named as `msgspec.Meta` names them: ``ge``, ``lt``, ``pattern``, ``min_length`` …
    """

    type: Literal["bool", "int", "float", "str", "bytes", "none"]
    limits: dict[str, int | float | str] = {}


class Choice(Struct, frozen=True, tag_field="kind", tag="choice"):
    """One of some values: a Literal, or an Enum by the values of its members.

    Args:
        values: What may be written.
        enum: Key of the Enum that a value is turned into, if it is one.
        by_name: Whether the words are the names of its members, for its values cannot be written.
    """

    values: tuple[Plain, ...]
    enum: str | None = None
    by_name: bool = False


class Word(Struct, frozen=True, tag_field="kind", tag="word"):
    """An object that a word names: a path, a torch device or a torch dtype.

    Args:
        of: What it names.
        values: The words, where they can be counted.
    """

    of: Literal["path", "device", "dtype"]
    values: tuple[str, ...] = ()


class ListOf(Struct, frozen=True, tag_field="kind", tag="list"):
    """A list of any length.

    Args:
        item: What each item is.
        container: What the list becomes.
        limits: ``min_length`` and ``max_length``, where they are given.
    """

    item: Kind
    container: Literal["list", "tuple", "set", "frozenset"] = "list"
    limits: dict[str, int] = {}


class TupleOf(Struct, frozen=True, tag_field="kind", tag="tuple"):
    """A list with an own kind for each item."""

    items: tuple[Kind, ...]


class MapOf(Struct, frozen=True, tag_field="kind", tag="map"):
    """A mapping with free keys."""

    key: Kind
    value: Kind


class RecordOf(Struct, frozen=True, tag_field="kind", tag="record"):
    """A mapping with fixed fields: a msgspec Struct, NamedTuple or TypedDict, by its key."""

    record: str


class OneOf(Struct, frozen=True, tag_field="kind", tag="union"):
    """A union."""

    members: tuple[Kind, ...]


class Anything(Struct, frozen=True, tag_field="kind", tag="any"):
    """What is not checked: Any, object, or no annotation. A mapping with a ``type`` in it is a component."""


class Raw(Struct, frozen=True, tag_field="kind", tag="raw"):
    """Plain data that stay as they are written, a ``type`` in them included: what the values of a bare `dict` are."""


class Nested(Struct, frozen=True, tag_field="kind", tag="component"):
    """A nested component, written ``{type: …}``.

    Args:
        wanted: Key of the class or Protocol that it must be; None for a callable, and where anything will do.
        name: What messages call it: a port, or the class's name.
        port: The port whose registry is asked first, if there is one for `wanted`.
        form: `Spec` or `Late` where the config keeps the component, ``"object"`` where the parameter gets what it builds.
        awaited: Port or class name of what a `Late` gets.
        function: Whether a callable is wanted, not an instance of a class.
        arity: For a callable: how many arguments its caller gives, None where that is not said.
    """

    wanted: str | None
    name: str
    port: str | None = None
    form: Literal["spec", "late", "object"] = "object"
    awaited: str | None = None
    function: bool = False
    arity: int | None = None


Kind = Scalar | Choice | Word | ListOf | TupleOf | MapOf | RecordOf | OneOf | Anything | Raw | Nested

ANYTHING = Anything()
RAW = Raw()
NONE = Scalar("none")


class Field(Struct, frozen=True, kw_only=True):
    """A parameter that a config can give.

    Args:
        name: Its name; in a config, the key.
        kind: What it takes.
        required: Whether there is no default.
        how: How it is passed: by ``"name"``, by ``"position"``, as ``"args"`` (a list) or ``"kwargs"`` (further keys).
        default: The default, where it is plain data.
        default_text: The default as Python writes it; None where there is none.
        description: From the docstring.
        annotated: Whether it has an annotation; without one nothing is checked.
    """

    name: str
    kind: Kind
    required: bool = False
    how: Literal["name", "position", "args", "kwargs"] = "name"
    default: object = None
    default_text: str | None = None
    description: str = ""
    annotated: bool = True


class ComponentSchema(Struct, frozen=True, kw_only=True):
    """What a config can say of a callable.

    Args:
        target: ``module:qualname`` of the callable.
        fields: Its parameters, in order.
        is_class: Whether it is a class.
        produces: Key of the class that it makes, None where nothing says so.
        summary: First line of its docstring.
        published: Whether it has a signature at all; some builtins have none, and only the call can check them.
        trains_itself: Of a class: whether it has a ``train_step``; None where that is not told.
        step_takes_metric: Of a scheduler: whether its ``step`` needs an argument; None where that is not told.
        abstract: Methods that a class leaves to its subclasses, so that it cannot be built.
    """

    target: str
    fields: tuple[Field, ...]
    is_class: bool = True
    produces: str | None = None
    summary: str = ""
    published: bool = True
    trains_itself: bool | None = None
    step_takes_metric: bool | None = None
    abstract: tuple[str, ...] = ()


class RecordSchema(Struct, frozen=True, kw_only=True):
    """A class whose fields a mapping gives, without a ``type``."""

    name: str
    fields: tuple[Field, ...]
    summary: str = ""


class ClassSchema(Struct, frozen=True, kw_only=True):
    """What decides whether an object fits a slot.

    Args:
        bases: Keys of the class and all its bases.
        defines: What each class of `bases` defines itself is in its own entry; these are this class's names.
        protocol: Whether it is a Protocol, to be fitted by its methods.
        methods: Of a Protocol: the methods that it asks for.
    """

    bases: tuple[str, ...]
    defines: frozenset[str] = frozenset()
    protocol: bool = False
    methods: tuple[str, ...] = ()


class Schemas(Struct):
    """Schemas by key (``module:qualname``).

    Args:
        components: Of callables.
        records: Of classes that a mapping gives the fields of.
        classes: Of what slots want and callables produce.
    """

    components: dict[str, ComponentSchema] = {}
    records: dict[str, RecordSchema] = {}
    classes: dict[str, ClassSchema] = {}

    def fits(self, component: ComponentSchema, slot: Nested) -> bool:
        """Return whether what a component makes is of a slot's type, as far as declarations tell."""
        if slot.function:
            return not component.is_class or self._has(component.produces, "__call__")
        if slot.wanted is None or component.produces is None:
            return True
        wanted, produced = self.classes.get(slot.wanted), self.classes.get(component.produces)
        if wanted is None or produced is None:
            return True
        if wanted.protocol:
            return all(self._has(component.produces, method) for method in wanted.methods)
        return slot.wanted in produced.bases

    def _has(self, key: str | None, name: str) -> bool:
        produced = self.classes.get(key or "")
        return produced is not None and any(
            name in self.classes[base].defines for base in produced.bases if base in self.classes
        )
