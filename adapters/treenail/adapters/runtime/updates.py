"""Builds what updates a run's parameters: its optimizer or several, and how gradients come to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn
from torch.optim import Optimizer

from treenail.adapters.optim import (
    OptimizerDict,
    OptimWrapper,
    OptimWrapperDict,
    fastest,
    grouped_optimizer,
    groups_below,
    with_loss,
)
from treenail.adapters.tuning import scale_lr
from treenail.contracts import ParameterGroups, Run, Updater
from treenail.kernel import Communicator, ConfigError, Late, did_you_mean


def build_groups(run: Run, model: nn.Module, loss: object) -> ParameterGroups | None:
    """Freeze what a run freezes, and return the groups of the rest; None where all is trained alike.

    Args:
        run: The config.
        model: Before it is made parallel.
        loss: A module may have parameters, too.
    """
    return run.parameters.build(with_loss(model, loss)) if run.parameters is not None else None


def build_optimizer(
    run: Run, model: nn.Module, loss: object, groups: ParameterGroups | None
) -> Optimizer | OptimizerDict:
    """Build the optimizer of a run, or several, with learning rates for the run's batch size.

    Args:
        run: The config.
        model: As it is trained, without what makes it parallel.
        loss: A module may have parameters, too.
        groups: Those of the model and the loss.

    Raises:
        ConfigError: There is nothing to train; a parameter is in no optimizer or in two, or an optimizer is named as no
            part of the model; rates shall be scaled, and a batch sampler makes batches of varying size.
    """
    if not isinstance(run.optimizer, Mapping):
        optimizer = _build(run.optimizer, with_loss(model, loss), groups, run.model.where)
        _scale_lr(run, optimizer)
        return optimizer
    parts = {name: _part(model, name, run.optimizer) for name in run.optimizer}
    _check_parts(model, parts)
    below = {name: groups_below(groups, name) if groups is not None else None for name in parts}
    optimizers = {name: _build(late, parts[name], below[name], late.where) for name, late in run.optimizer.items()}
    _scale_lr(run, *optimizers.values())
    return OptimizerDict(**optimizers)


def _scale_lr(run: Run, *optimizers: Optimizer) -> None:
    scale = run.scale_lr
    if scale is None:
        return
    if run.train.batch_sampler is not None:
        raise ConfigError(
            "the batch sampler decides how large batches are", where="scale_lr", mend="write the learning rate itself"
        )
    for optimizer in optimizers:
        scale_lr(optimizer, run.train.batch_size, scale.base_batch_size, scale.rule)


def build_updater(run: Run, optimizer: Optimizer | OptimizerDict, ranks: Communicator) -> Updater | OptimWrapperDict:
    """Build what brings gradients to the optimizer of a run, or to each of several.

    Args:
        run: The config.
        optimizer: The optimizer, or several.
        ranks: Those that have different samples.

    Raises:
        ConfigError: What a config names is no optimizer, or takes no part in a model's own step.
    """
    chosen = run.updates
    if isinstance(optimizer, Optimizer):
        if isinstance(chosen, Mapping):
            raise ConfigError("there is one optimizer, and updates by name", where="updates", mend="leave out the name")
        return _updater(chosen, optimizer, ranks)
    named = chosen if isinstance(chosen, Mapping) else dict.fromkeys(optimizer, chosen)
    unknown = next((name for name in named if name not in optimizer), None)
    if unknown is not None:
        mend = did_you_mean(unknown, optimizer) or f"the optimizers are {', '.join(optimizer)}"
        raise ConfigError(f"there is no optimizer '{unknown}'", where=f"updates.{unknown}", mend=mend)
    wrappers: dict[str, OptimWrapper] = {}
    for name, each in optimizer.items():
        wrapper = _updater(named.get(name), each, ranks)
        if not isinstance(wrapper, OptimWrapper):
            raise ConfigError(
                f"the updates of '{name}' are a {type(wrapper).__name__}; several optimizers take an OptimWrapper each",
                where="updates",
            )
        wrappers[name] = wrapper
    return OptimWrapperDict(**wrappers)


def _updater(chosen: Late[Optimizer, Updater] | None, optimizer: Optimizer, ranks: Communicator) -> Updater:
    if chosen is None:
        return OptimWrapper(optimizer, communicator=ranks)
    return chosen.filled(communicator=ranks).build(optimizer)


def _build(
    make: Late[Iterable[nn.Parameter], Optimizer], module: nn.Module, groups: ParameterGroups | None, where: str | None
) -> Optimizer:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    make = fastest(make, parameters)
    if groups is not None:
        return grouped_optimizer(make.build, module, groups)
    if not parameters:
        raise ConfigError("the model has no parameters to train", where=where)
    return make.build(parameters)


def _part(model: nn.Module, name: str, names: Iterable[str]) -> nn.Module:
    parts = dict(model.named_modules(remove_duplicate=False))
    if name not in parts or not name:
        mend = did_you_mean(name, parts) or f"its parts are {', '.join(dict(model.named_children())) or 'none'}"
        raise ConfigError(f"{type(model).__name__} has no part '{name}'", where=f"optimizer.{name}", mend=mend)
    inside = next((other for other in names if name.startswith(f"{other}.")), None)
    if inside is not None:
        raise ConfigError(f"the part '{name}' lies in '{inside}'", where="optimizer", mend="name one of them")
    return model.get_submodule(name)


def _check_parts(model: nn.Module, parts: Mapping[str, nn.Module]) -> None:
    owners: dict[int, str] = {}
    for name, part in parts.items():
        for below, parameter in part.named_parameters():
            if parameter.requires_grad and owners.setdefault(id(parameter), name) != name:
                raise ConfigError(
                    f"the parameter '{name}.{below}' belongs to the optimizer '{owners[id(parameter)]}', too",
                    where="optimizer",
                    mend="each parameter has one optimizer: freeze it in one part, or do not share it",
                )
    outside = [name for name, each in model.named_parameters() if each.requires_grad and id(each) not in owners]
    if outside:
        more = f" and {len(outside) - 1} more" if outside[1:] else ""
        raise ConfigError(
            f"the parameter '{outside[0]}'{more} would not be trained: the optimizers are of {', '.join(parts)}",
            where="optimizer",
            mend="add an optimizer for its part, or freeze it",
        )
