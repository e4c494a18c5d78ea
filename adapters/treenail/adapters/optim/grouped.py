"""Optimizers whose parameters are in groups, and what is in those."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from treenail.adapters.optim.freezing import nearest
from treenail.contracts.parameters import ParameterGroup, ParameterGroups
from treenail.kernel import ConfigError, did_you_mean

OptimizerT = TypeVar("OptimizerT", bound=Optimizer)

_WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")  # torch's, within names
_OWN = ("params", "name", "lr", "weight_decay", "lr_mult", "decay_mult")


# Any: what a config makes optimizers with says that it takes parameters; torch takes groups wherever it takes those.
def grouped_optimizer(build: Callable[[Any], OptimizerT], model: nn.Module, groups: ParameterGroups) -> OptimizerT:
    """Make an optimizer of groups of a model's parameters.

    Each group of it has, besides what torch's have, its ``name``, ``lr_mult`` and ``decay_mult``; ``lr`` and
    ``weight_decay`` are the optimizer's own, multiplied with them.

    Args:
        build: Makes the optimizer of what torch takes for groups: ``partial(torch.optim.AdamW, lr=1e-3)``.
        model: As it is trained: on its device, and sharded if it is to be.
        groups: Those of the same model, perhaps made before that.

    Raises:
        ConfigError: A parameter that requires a gradient is in no group, one is in two, a frozen one or a name that the model
            does not have is in one, nothing is left to train, two groups have one name, a factor is negative or not finite,
            or a group has a setting that the optimizer has not or refuses.
    """
    optimizer = build(_resolved(model, groups))
    for group in groups.groups:
        for option in group.options:
            if option not in optimizer.defaults:
                known = [name for name in optimizer.defaults if name not in _OWN]
                hint = did_you_mean(option, known) or f"it has {', '.join(known)}"
                raise _error(f"{_kind(optimizer)} has no '{option}', which the group '{group.name}' sets", hint)
        if group.options:
            _check_options(optimizer, group)
    for each in optimizer.param_groups:
        each.update({key: _as_default(optimizer, key, value) for key, value in each.items()})
        _multiply(optimizer, each, "lr", "lr_mult")
        _multiply(optimizer, each, "weight_decay", "decay_mult")
    return optimizer


def groups_below(groups: ParameterGroups, path: str) -> ParameterGroups:
    """Return the groups of a part of a model, with the names that parameters have in it; those left empty are left out.

    Args:
        groups: Those of the model.
        path: Name of the part: ``generator``.

    Raises:
        ConfigError: None is left.
    """
    start = f"{path}."

    def inside(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name.removeprefix(start) for name in names if name.startswith(start))

    parts = (group._replace(parameters=inside(group.parameters)) for group in groups.groups)
    found = tuple(part for part in parts if part.parameters)
    if not found:
        raise _error(f"no parameter of '{path}' is left to train", "freeze less, or leave out its optimizer")
    return ParameterGroups(found, inside(groups.frozen))


def _resolved(model: nn.Module, groups: ParameterGroups) -> list[dict[str, object]]:
    """Return groups of tensors, once it is certain that they are all that is trained, each once."""
    named = {_without_wrappers(name): each for name, each in model.named_parameters(remove_duplicate=False)}
    owners: dict[Tensor, str] = {}
    resolved: list[dict[str, object]] = []
    names: set[str] = set()
    for group in groups.groups:
        if group.name in names:
            raise _error(f"two groups are called '{group.name}'", "give each a name of its own")
        names.add(group.name)
        for key, factor in (("lr_mult", group.lr_mult), ("decay_mult", group.decay_mult)):
            if not 0 <= factor < math.inf:
                raise _error(f"{key} of the group '{group.name}' is {factor}", "let it be a number of at least 0")
        tensors = []
        for name in group.parameters:
            parameter = named.get(name)
            if parameter is None:
                raise _error(f"the group '{group.name}' has '{name}', and the model has not", nearest(name, named))
            if not parameter.requires_grad:
                raise _error(f"'{name}' requires no gradient, and is in the group '{group.name}'", _ANEW)
            if parameter in owners:
                raise _error(f"'{name}' is in the group '{group.name}' and in '{owners[parameter]}'", "leave one out")
            owners[parameter] = group.name
            tensors.append(parameter)
        if tensors:
            resolved.append({"params": tensors, **_entries(group)})
    left = [
        _without_wrappers(name)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter not in owners
    ]
    if left:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        raise _error(f"{', '.join(map(repr, left[:3]))}{more} would be trained, but in no group", _ANEW)
    if not resolved:
        raise _error("no parameter is left to train", "freeze less")
    return resolved


def _entries(group: ParameterGroup) -> dict[str, object]:
    own = {"name": group.name, "lr_mult": group.lr_mult, "decay_mult": group.decay_mult}
    return {**group.options, **own}


_ANEW = "make the groups after the last parameter was frozen or unfrozen"


def _check_options(optimizer: Optimizer, group: ParameterGroup) -> None:
    """Refuse what the optimizer's class would refuse for all parameters: torch looks at no settings of groups."""
    options = {name: _as_default(optimizer, name, value) for name, value in group.options.items()}
    for name, value in options.items():
        wanted = _wanted(optimizer.defaults[name], value)
        if wanted is not None:
            raise _refused(optimizer, group, [name], wanted)
    divided = getattr(optimizer, "optim", None)  # ZeRO's
    kind = type(divided if isinstance(divided, Optimizer) else optimizer)
    like = optimizer.param_groups[0]["params"][0]
    taken = inspect.signature(kind).parameters
    settings = {name: value for name, value in optimizer.defaults.items() if name in taken}
    if _trial(kind, like, settings) is not None:
        return  # a class that needs more than its defaults say cannot be tried
    given = {name: value for name, value in options.items() if name in taken}
    error = _trial(kind, like, {**settings, **given})
    if error is not None:
        guilty = [name for name in given if _trial(kind, like, {**settings, **given, name: settings[name]}) is None]
        raise _refused(optimizer, group, guilty or list(given), str(error))


def _wanted(default: object, value: object) -> str | None:
    """Return what an option must be, unless it is of the default's form."""
    number = isinstance(value, float | int | Tensor) and not isinstance(value, bool)
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "it is true or false"
    if isinstance(default, float | int):
        return None if number else "it is a number"
    if isinstance(default, tuple) and not (isinstance(value, tuple) and len(value) == len(default)):
        return f"it has {len(default)} values, such as {list(default)}"
    return None


def _trial(kind: Callable[..., object], like: Tensor, settings: dict[str, object]) -> Exception | None:
    """Return how a class of optimizers refuses settings for parameters of a type and device."""
    try:
        kind([nn.Parameter(torch.zeros(1, 1, dtype=like.dtype, device=like.device))], **settings)
    except Exception as error:  # torch compares numbers with whatever it is given
        return error
    return None


def _refused(optimizer: Optimizer, group: ParameterGroup, names: list[str], reason: str) -> ConfigError:
    given = ", ".join(f"{name}: {group.options[name]!r}" for name in names)
    return _error(f"{_kind(optimizer)} refuses the options {{{given}}} of the group '{group.name}'", reason)


def _as_default(optimizer: Optimizer, name: str, value: object) -> object:
    """Return a list as a tuple where the optimizer has one, since a config has only lists."""
    return tuple(value) if isinstance(value, list) and isinstance(optimizer.defaults.get(name), tuple) else value


def _multiply(optimizer: Optimizer, group: dict[str, object], key: str, factor_key: str) -> None:
    value, factor = group.get(key), group[factor_key]
    assert isinstance(factor, float | int)  # as _entries has it
    if isinstance(value, float | int | Tensor):
        group[key] = value * factor  # of a tensor this is another one, so that no two groups share theirs
    elif factor != 1:
        raise _error(
            f"{_kind(optimizer)} has no {key} for the {factor_key} of {factor:g} of the group '{group['name']}'",
            "leave that out, or choose another optimizer",
        )


def _kind(optimizer: Optimizer) -> str:
    return type(optimizer).__name__


def _error(message: str, mend: str) -> ConfigError:
    return ConfigError(message, where="parameters", mend=mend)


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


class GroupSummary(NamedTuple):
    """What an optimizer's group holds.

    Args:
        name: The group's, or its number where it has none.
        lr: Learning rate.
        weight_decay: Weight decay; None where the optimizer has none.
        options: What else differs from the optimizer's own settings.
        parameters: Names of its parameters.
        numbers: How many numbers they hold.
    """

    name: str
    lr: float | None
    weight_decay: float | None
    options: dict[str, object]
    parameters: tuple[str, ...]
    numbers: int


def summarize_groups(model: nn.Module, optimizer: Optimizer) -> list[GroupSummary]:
    """Return what is in the groups of an optimizer.

    Args:
        model: Its parameters have the names.
        optimizer: Any of torch's.
    """
    names = {each: _without_wrappers(name) for name, each in model.named_parameters()}
    common = {key: repr(value) for key, value in optimizer.defaults.items() if key not in _OWN}
    return [
        GroupSummary(
            str(group.get("name", f"group {number}")),
            _number(group.get("lr")),
            _number(group.get("weight_decay")),
            {key: group[key] for key in common if repr(group[key]) != common[key]},
            tuple(names[each] for each in group["params"]),
            sum(each.numel() for each in group["params"]),
        )
        for number, group in enumerate(optimizer.param_groups)
    ]


def summarize_frozen(model: nn.Module) -> GroupSummary:
    """Return what of a model requires no gradient."""
    frozen = {_without_wrappers(name): each for name, each in model.named_parameters() if not each.requires_grad}
    return GroupSummary("frozen", None, None, {}, tuple(frozen), sum(each.numel() for each in frozen.values()))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, float | int | Tensor) else None
