"""Groups of a model's parameters: which are trained with which settings, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class ParameterGroup(NamedTuple):
    """Parameters that are trained with equal settings.

    Args:
        name: No other group's, for people.
        parameters: Full names in the model. Of one that modules share any of its names, once.
        lr_mult: What the optimizer's learning rate is multiplied with.
        decay_mult: What its weight decay is multiplied with.
        options: Other settings of the group by the names of the optimizer's arguments: momentum, betas …
    """

    name: str
    parameters: tuple[str, ...]
    lr_mult: float = 1.0
    decay_mult: float = 1.0
    options: Mapping[str, object] = MappingProxyType({})


class ParameterGroups(NamedTuple):
    """The groups that an optimizer gets: every parameter that requires a gradient is in exactly one of them.

    They hold names, since FSDP2 replaces the tensors of a model that is sharded after its groups were made.

    Args:
        groups: In the order in which the optimizer gets them.
        frozen: Names of the parameters that were made to require no gradient; they are in no group.
    """

    groups: tuple[ParameterGroup, ...]
    frozen: tuple[str, ...] = ()
