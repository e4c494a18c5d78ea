"""What a check hands on: the parts that it visited, and the objects that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from treenail.adapters.config.form import Form
from treenail.adapters.config.schema import Choice, ComponentSchema, Kind, RecordSchema, Word
from treenail.adapters.documents import TreePath
from treenail.kernel import Component


class Visit(NamedTuple):
    """A component or record that a config holds, for rules between the parts.

    Args:
        path: Its place.
        schema: What it is.
        given: What the config gives it, unconverted.
    """

    path: TreePath
    schema: ComponentSchema | RecordSchema
    given: Mapping[str | int, object]


Rules = Callable[[object, Sequence[Visit]], Iterable[tuple[TreePath, str]]]
"""What the parts of a config demand of each other: (data, what was visited) → (place, message) of each mistake."""


class Maker(Protocol):
    """Makes the objects of a run from what was checked."""

    def component(self, form: Form, args: tuple[object, ...], kwargs: dict[str, object], where: str) -> object:
        """Return a `Spec` or `Late`."""

    def record(self, key: str, fields: dict[str, object], *, inside: bool) -> object:
        """Return a Struct, NamedTuple or dict; `inside` a component, what it builds to."""

    def leaf(self, value: object, kind: Choice | Word) -> object:
        """Return the Enum member, path, device or dtype that a leaf stands for."""

    def function(self, schema: ComponentSchema) -> object:
        """Return what a schema was derived from."""

    def form_of(self, component: Component[object]) -> Form:
        """Return the form that a component of a Python config has."""

    def kind_of(self, original: object, kind: Kind) -> Kind:
        """Return the kind to convert a part of a Python config to: what it is says more than the slot."""

    def keeps(self, original: object, kind: Kind) -> bool:
        """Return whether a part of a Python config may stay where a kind is wanted, though data could not say it."""
