"""Build functions of particular registries."""

from __future__ import annotations

from typing import Any, cast

from treenail.adapters.registries.core import construct, entries, place_of
from treenail.adapters.registries.mmengine.registry import Registry, T, build_from_cfg, switched, take_type
from treenail.kernel import RegistryError, SpecError


def build_model_from_cfg(
    cfg: object, registry: Registry[Any], default_args: object = None, *, where: str | None = None
) -> Any:  # Any: a module from a module's config; but a registry of models may hold functions that return others
    """Build a model, or of a list of configs an ``nn.Sequential`` of their models.

    Args:
        cfg: A config as `build_from_cfg` takes it, or a list of them.
        registry: Where names are looked up.
        default_args: Arguments for what a config leaves out.
        where: The place in a config, for messages.

    Raises:
        RegistryError: A config names nothing that is known.
        SpecError: A signature does not take the arguments.
        BuildError: A call raised; its own exception is the cause.
    """
    if not isinstance(cfg, list | tuple):
        return build_from_cfg(cfg, registry, default_args, where=where)
    from torch import nn  # a registry of anything else needs no torch

    parts = [
        build_from_cfg(each, registry, default_args, where=where and f"{where}[{index}]")
        for index, each in enumerate(cfg)
    ]
    return construct(nn.Sequential, tuple(parts), {}, where)


def build_runner_from_cfg(cfg: object, registry: Registry[T], *, where: str | None = None) -> T:
    """Build the runner that ``runner_type`` names, ``Runner`` without it, from a whole config.

    A class with a ``from_cfg`` gets the config there, any other gets its entries as arguments.

    Args:
        cfg: The config of a whole run.
        registry: Where the runner is looked up.
        where: The place of the config, for messages.

    Raises:
        UnregisteredError: The runner is not registered.
        SpecError: The signature does not take the config's entries.
        BuildError: The call raised; its own exception is the cause.
    """
    arguments = entries(cfg)
    where = where or place_of(cfg, "runner_type")
    with switched(registry, arguments, where) as node:
        runner = node.find(arguments.pop("runner_type", "Runner"), where)
        from_cfg = getattr(runner, "from_cfg", None)
        if from_cfg is not None:
            return cast("T", construct(from_cfg, (arguments,), {}, where))  # an alternative constructor makes its class
        return construct(runner, (), arguments, where)


def build_scheduler_from_cfg(
    cfg: object, registry: Registry[T], default_args: object = None, *, where: str | None = None
) -> T:
    """Build a scheduler; one that is written in epochs and steps in iterations by its ``build_iter_from_epoch``.

    Args:
        cfg: A config as `build_from_cfg` takes it; ``convert_to_iter_based`` asks for the conversion.
        registry: Where names are looked up.
        default_args: Must hold the ``optimizer``, and for a conversion the ``epoch_length`` in iterations.
        where: The place in a config, for messages.

    Raises:
        SpecError: The optimizer or the epoch's length is missing, or the signature does not take the arguments.
        RegistryError: The name stands for nothing, or for something that cannot convert.
        BuildError: The call raised; its own exception is the cause.
    """
    arguments = {**({} if default_args is None else entries(default_args)), **entries(cfg)}
    where = where or place_of(cfg, "type")
    convert = arguments.pop("convert_to_iter_based", False)
    for needed in ("optimizer", "epoch_length") if convert else ("optimizer",):
        if needed not in arguments:
            raise SpecError(f"a scheduler needs '{needed}'", where=where, mend=f"pass default_args={{'{needed}': …}}")
    if not convert:
        arguments.pop("epoch_length", None)  # a default for those that convert
        return build_from_cfg(arguments, registry, where=where)
    if not arguments.get("by_epoch", True):
        mend = "remove by_epoch=False or convert_to_iter_based"
        raise SpecError("a scheduler that counts iterations has no epochs to convert", where=where, mend=mend)
    with switched(registry, arguments, where) as node:
        kind = take_type(arguments, where)
        converting = getattr(node.find(kind, where), "build_iter_from_epoch", None)
        if converting is None:
            mend = "write it in iterations, or register a class with a build_iter_from_epoch"
            raise RegistryError(f"'{kind}' cannot convert epochs to iterations", where=where, mend=mend)
        return cast("T", construct(converting, (), arguments, where))  # an alternative constructor makes its class
