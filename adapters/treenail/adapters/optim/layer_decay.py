"""Learning rates that fall with the distance from the head, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

from msgspec import Meta
from torch import nn

from treenail.adapters.optim.freezing import ancestry, matching, refuse_text
from treenail.adapters.optim.parameters import DEFAULT, Settings, merged, parameter_groups
from treenail.contracts.parameters import ParameterGroups
from treenail.kernel import Late


def layer_decay(
    model: nn.Module,
    *,
    decay: Annotated[float, Meta(gt=0, le=1)] = 0.75,
    layers: tuple[str, ...] | None = None,
    head: tuple[str, ...] = (),
    groups: Late[nn.Module, ParameterGroups] | None = None,
) -> ParameterGroups:
    """Let each layer learn slower than the one above it, as fine-tuning wants it.

    The head, all parameters after the last layer, learns at the full rate; the learning rate of layer i of n is multiplied
    with decay**(n + 1 - i), and that of all before the first with decay**(n + 1). What lies between two layers counts to
    the first of them. Where nothing comes after the last layer, that is the head. (Clark et al. 2020, "ELECTRA"; Bao et
    al. 2021, "BEiT".)

    Args:
        model: Before it is made parallel.
        decay: Factor from a layer to the one below it.
        layers: Names of modules or parameters as patterns, from the input to the head; each outermost match of a pattern is a
            layer, in the model's order: ``[patch_embed, blocks.*]``. None: the members of each outermost `ModuleList`, and of
            each `Sequential` of modules of one class, in the model's order.
        head: Names of what learns at the full rate though it stands before a layer, as patterns.
        groups: What is frozen, and which factors apply besides; none when None.

    Raises:
        TypeError: Patterns are one text.
        ValueError: A pattern matches nothing, or there are no layers to be found; or see `parameter_groups`.
    """
    refuse_text("layers", layers)
    refuse_text("the patterns of head", head)
    if layers is not None and not layers:
        raise ValueError("layers is empty; name the layers, or leave it out to let them be found")
    if not 0 < decay <= 1:
        raise ValueError(f"decay is {decay}, must be above 0 and at most 1")
    below = groups.build(model) if groups is not None else parameter_groups(model)
    depths = _depths(model, _matched(model, layers) if layers is not None else list(_stacked(model)), head)
    top = max(depths.values())
    found = []
    for group in below.groups:
        for name in group.parameters:
            depth = depths[name]
            place = "head" if depth == top else f"layer {depth}" if depth else "input"
            label = place if group.name == DEFAULT else f"{place} {group.name}"
            factor = group.lr_mult * decay ** (top - depth)
            found.append((depth, name, Settings(label, factor, group.decay_mult, group.options)))
    found.sort(key=lambda each: each[0])
    return ParameterGroups(merged((name, settings) for _, name, settings in found), below.frozen)


def _depths(model: nn.Module, layers: list[str], head: tuple[str, ...]) -> dict[str, int]:
    """Return for every name of a parameter how high it stands: 0 the input, 1 … n layers, n + 1 the head."""
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no ModuleList, and no Sequential of one class, with two layers that have "
            "parameters; name the layers"
        )
    number = {name: position for position, name in enumerate(layers, start=1)}
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    own = [next((number[part] for part in ancestry(name) if part in number), None) for name in names]
    last = max(index for index, depth in enumerate(own) if depth is not None)
    depths, current = {}, 0
    for index, (name, depth) in enumerate(zip(names, own, strict=True)):
        current = current if depth is None else depth
        depths[name] = current if index <= last else len(layers) + 1
    for pattern in head:
        matched = set(matching(pattern, _prefixes(names)))
        depths |= {name: len(layers) + 1 for name in names if not matched.isdisjoint(ancestry(name))}
    return depths


def _matched(model: nn.Module, patterns: tuple[str, ...]) -> list[str]:
    """Return the outermost names that patterns match."""
    known = _prefixes(name for name, _ in model.named_parameters(remove_duplicate=False))
    layers: dict[str, None] = {}
    for pattern in patterns:
        for name in matching(pattern, known):
            if layers.keys().isdisjoint(ancestry(name)):
                layers[name] = None
    return list(layers)


def _prefixes(names: Iterable[str]) -> list[str]:
    """Return names of parameters and of all modules that hold them, each module before what is in it."""
    return list(dict.fromkeys(each for name in names for each in ancestry(name)))


def _stacked(module: nn.Module, path: str = "") -> Iterator[str]:
    """Yield the names of layers that are members of stacks, from the input to the head."""
    members = {name: each for name, each in module.named_children() if next(each.parameters(), None) is not None}
    kinds = {type(each) for each in module.children()}
    # A Sequential may as well be the parts of one layer; not if they are all of a kind.
    alike = isinstance(module, nn.Sequential) and len(kinds) == 1 and kinds.isdisjoint((nn.ModuleList, nn.Sequential))
    if len(members) > 1 and (alike or isinstance(module, nn.ModuleList)):
        yield from (f"{path}{name}" for name in members)
        return
    for name, each in members.items():
        yield from _stacked(each, f"{path}{name}.")
