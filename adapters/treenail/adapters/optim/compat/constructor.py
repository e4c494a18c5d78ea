"""mmengine's constructors of optimizer wrappers, which a subclass changes by its ``add_params``."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn
from torch.optim import Optimizer

from treenail.adapters.optim.compat.wrappers import AmpOptimWrapper, OptimWrapper
from treenail.adapters.optim.freezing import nearest
from treenail.adapters.optim.parameters import Rules, check_factors, is_deformable, longest_key, place_in
from treenail.adapters.optim.several import OptimWrapperDict
from treenail.adapters.parallel import bare
from treenail.adapters.registries import mmengine
from treenail.kernel import RegistryError, did_you_mean

Config = Mapping[str, Any]  # Any: whatever the optimizer, or a constructor of one's own, takes
Group = dict[str, Any]  # Any: as torch has it

_LOG = logging.getLogger("mmengine")
_WRAPPERS = {"OptimWrapper": OptimWrapper, "AmpOptimWrapper": AmpOptimWrapper}
_FACTORS = ("lr_mult", "decay_mult", *Rules._fields)
_ENTRIES = (*_FACTORS, "custom_keys", "bypass_duplicate")


class DefaultOptimWrapperConstructor:
    """Makes the optimizer wrapper of a model as mmengine's does: ``constructor(model)``.

    Subclasses may override `add_params`, also with other arguments behind `prefix`. It is called with an empty list and
    the whole model. Groups that differ in their parameters only become one.

    Args:
        optim_wrapper_cfg: The wrapper's arguments: ``optimizer`` (with a ``type``), ``accumulative_counts`` …, and its
            ``type``, OptimWrapper where that is missing. It is only read.
        paramwise_cfg: Factors as of `treenail.adapters.optim.parameter_groups`; other entries are for subclasses. Settings
            of a custom key besides its factors are the optimizer's. None: all parameters are one group.

    Attributes:
        base_lr: The learning rate of the optimizer's config, None if it has none; times the ``lr_mult`` for all.
        base_wd: Its weight decay, None if it has none; times the ``decay_mult`` for all.
        registries: Where the types are looked up besides torch's optimizers and our wrappers.

    Raises:
        TypeError: A config is no mapping.
        ValueError: There is no optimizer, or a factor has nothing to multiply. Of this class itself, not of subclasses: an
            entry has no meaning, or a factor is no number of at least 0.
    """

    registries: mmengine.RootRegistries | None = None

    def __init__(self, optim_wrapper_cfg: Config, paramwise_cfg: Config | None = None) -> None:
        _check_mapping("optim_wrapper_cfg", optim_wrapper_cfg)
        self.paramwise_cfg = _check_mapping("paramwise_cfg", {} if paramwise_cfg is None else paramwise_cfg)
        if "optimizer" not in optim_wrapper_cfg:
            near = next((name for name in optim_wrapper_cfg if did_you_mean(name, ("optimizer",))), None)
            hint = f"rename '{near}' to it" if near is not None else "write optimizer=dict(type='SGD', lr=0.01)"
            raise ValueError(f"optim_wrapper_cfg has no 'optimizer'; {hint}")
        self.optim_wrapper_cfg = {key: value for key, value in optim_wrapper_cfg.items() if key != "optimizer"}
        self.optimizer_cfg = dict(_check_mapping("optimizer", optim_wrapper_cfg["optimizer"]))
        self._check_factors()
        for key, factor in (("lr", "lr_mult"), ("weight_decay", "decay_mult")):
            if factor in self.paramwise_cfg:
                self.optimizer_cfg[key] *= self.paramwise_cfg[factor]
        self.base_lr = self.optimizer_cfg.get("lr")
        self.base_wd = self.optimizer_cfg.get("weight_decay")

    def _check_factors(self) -> None:
        keys = _check_mapping("custom_keys", self.paramwise_cfg.get("custom_keys", {}))
        factors = {*self.paramwise_cfg, *(name for key in keys for name in _check_mapping(key, keys[key]))}
        if self._is_default:
            for name in self.paramwise_cfg:
                if name not in _ENTRIES:
                    hint = did_you_mean(str(name), _ENTRIES) or "a constructor of your own may take other entries"
                    raise ValueError(f"paramwise_cfg has '{name}', which means nothing; {hint}")
            for path, settings in (("paramwise_cfg", self.paramwise_cfg), *keys.items()):
                check_factors({f"{path}: {name}": settings.get(name) for name in _FACTORS})
        for name in sorted(factors):
            for end, needed in (("lr_mult", "lr"), ("decay_mult", "weight_decay")):
                known = name == end or name in Rules._fields
                if known and name.endswith(end) and self.optimizer_cfg.get(needed) is None:
                    raise ValueError(f"'{name}' has no {needed} to multiply; give the optimizer's config one")

    @property
    def _is_default(self) -> bool:
        return type(self) is DefaultOptimWrapperConstructor  # a subclass may know more entries

    def __call__(self, model: nn.Module) -> OptimWrapper | OptimWrapperDict:
        """Make the wrapper of a model.

        Raises:
            ValueError: Modules share a parameter, and there is no ``bypass_duplicate``; or a custom key has a setting that
                the optimizer has not.
            TreenailError: A type stands for nothing, or does not take its arguments.
        """
        model = bare(model)
        registries = self.registries if self.registries is not None else mmengine.RootRegistries()
        kind = _find(registries.OPTIMIZERS, self.optimizer_cfg.get("type"), {})
        first = next(iter(inspect.signature(kind).parameters))  # most call it params
        params: list[Group] | list[nn.Parameter] = list(model.parameters())
        if self.paramwise_cfg:
            groups: list[Group] = []
            self.add_params(groups, model)
            self._warn_of_idle_keys(model)
            params = _merged(groups)
        optimizer: Optimizer = registries.OPTIMIZERS.build({**self.optimizer_cfg, "type": kind, first: params})
        if self._is_default:
            self._check_settings(optimizer)
        wrapper = _find(registries.OPTIM_WRAPPER, self.optim_wrapper_cfg.get("type", "OptimWrapper"), _WRAPPERS)
        made = registries.OPTIM_WRAPPER.build({**self.optim_wrapper_cfg, "type": wrapper, "optimizer": optimizer})
        return cast("OptimWrapper", made)  # what the config's type names

    def add_params(
        self, params: list[Group], module: nn.Module, prefix: str = "", is_dcn_module: float | None = None
    ) -> None:
        """Add a group for each parameter of a module, and of all modules in it, to a list.

        Args:
            params: The groups, each with what differs from the optimizer's own settings.
            module: The module.
            prefix: Its full name.
            is_dcn_module: Whether it is part of a deformable convolution.

        Raises:
            ValueError: A parameter is in a group already, and there is no ``bypass_duplicate``.
        """
        for name, parameter in module.named_parameters(recurse=False):
            full_name = f"{prefix}.{name}" if prefix else name
            if any(parameter is other for group in params for other in group["params"]):
                if not self.paramwise_cfg.get("bypass_duplicate", False):
                    raise ValueError(
                        f"'{full_name}' is shared with another module; set bypass_duplicate=True to allow it"
                    )
                _LOG.warning("%s is a duplicate, and is skipped since bypass_duplicate=True", full_name)
                continue
            if not parameter.requires_grad:
                _LOG.warning("%s is skipped since its requires_grad=False", full_name)
                continue
            settings = self._settings(
                module, full_name, parameter, offset=bool(is_dcn_module) and "conv_offset" in prefix
            )
            params.append({"params": [parameter], **settings})
            for key, value in settings.items():
                _LOG.info("paramwise_options -- %s:%s=%s", full_name, key, value)
        for name, child in module.named_children():
            path = f"{prefix}.{name}" if prefix else name
            inside = is_deformable(module) or (bool(is_dcn_module) and "conv_offset" in prefix)
            self.add_params(params, child, prefix=path, is_dcn_module=inside)

    def _settings(self, module: nn.Module, name: str, parameter: nn.Parameter, *, offset: bool) -> Group:
        """Return what a group of this parameter has, but for the parameter."""
        keys: Config = self.paramwise_cfg.get("custom_keys", {})
        settings: Group = {}
        matched = longest_key(keys, name)
        if matched is not None:
            lr_mult, decay_mult = (keys[matched].get(each, 1.0) for each in ("lr_mult", "decay_mult"))
        else:
            rules = Rules(**{name: self.paramwise_cfg.get(name) for name in Rules._fields})
            place = place_in(module, name.rpartition(".")[2], parameter, offset=offset)
            (_, lr_mult), (_, decay_mult) = rules.lr(place), rules.decay(place)
        if lr_mult is not None and self.base_lr is not None:
            settings["lr"] = self.base_lr * lr_mult
        if decay_mult is not None and self.base_wd is not None:
            settings["weight_decay"] = self.base_wd * decay_mult
        return settings if matched is None else {**settings, **keys[matched]}

    def _check_settings(self, optimizer: Optimizer) -> None:
        known = ("lr_mult", "decay_mult", *optimizer.defaults)
        for key, settings in self.paramwise_cfg.get("custom_keys", {}).items():
            for name in settings:
                if name not in known:
                    hint = did_you_mean(str(name), known) or f"there are {', '.join(known)}"
                    raise ValueError(f"the custom key '{key}' has '{name}', which the optimizer has not; {hint}")

    def _warn_of_idle_keys(self, model: nn.Module) -> None:
        names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
        for key in self.paramwise_cfg.get("custom_keys", {}):
            if not any(key in name for name in names):
                _LOG.warning("the custom key '%s' is part of no parameter's name; %s", key, nearest(key, names))


def build_optim_wrapper(
    model: nn.Module, cfg: Config, *, registries: mmengine.RootRegistries | None = None
) -> OptimWrapper | OptimWrapperDict:
    """Make the optimizer wrapper of a model with the constructor that its config names.

    Args:
        model: What is optimized.
        cfg: The config of the wrapper, as of `DefaultOptimWrapperConstructor`; besides, ``paramwise_cfg``, and the name or class
            of a ``constructor``. It stays as it is.
        registries: Where names are looked up besides torch's and our own; those of the installed packages when None.

    Raises:
        TypeError: The config is no mapping.
        TreenailError: A type stands for nothing, does not take its arguments, or cannot be built.
    """
    own = dict(copy.deepcopy(_check_mapping("cfg", cfg)))
    registries = registries if registries is not None else mmengine.RootRegistries()
    constructors = registries.OPTIM_WRAPPER_CONSTRUCTORS
    default = DefaultOptimWrapperConstructor
    kind = _find(constructors, own.pop("constructor", default), {default.__name__: default})
    paramwise = own.pop("paramwise_cfg", None)
    constructor = constructors.build({"type": kind, "optim_wrapper_cfg": own, "paramwise_cfg": paramwise})
    if isinstance(constructor, DefaultOptimWrapperConstructor):
        constructor.registries = registries
    return cast("OptimWrapper | OptimWrapperDict", constructor(model))  # what a constructor of one's own makes


def _check_mapping(name: str, value: object) -> Config:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is a {type(value).__name__}, must be a dict")
    return value


def _find(
    registry: mmengine.Registry[Any], kind: object, own: Mapping[str, Any]
) -> Any:  # Any: a class of many, by its name
    """Return what a type stands for: in the registry, else among our own."""
    with registry.switch_scope_and_registry(None) as node:
        if isinstance(kind, str) and kind in own and node.get(kind) is None:
            return own[kind]
        try:
            return node.find(kind)
        except RegistryError as error:
            if own and isinstance(kind, str):
                names = [*own, *node.module_dict, *(node.parent.module_dict if node.parent is not None else ())]
                error.mend = did_you_mean(kind, names) or f"{error.mend}; our own: {', '.join(own)}"
            raise


def _merged(groups: list[Group]) -> list[Group]:
    """Return groups in which those with equal entries are one: an optimizer is slow with one for each parameter."""
    merged: list[Group] = []
    for group in groups:
        same = next((each for each in merged if _equal(each, group)), None)
        if same is None:
            merged.append({**group, "params": _members(group)})
        else:
            same["params"] += _members(group)
    return merged


def _members(group: Group) -> list[Tensor]:
    members = group["params"]
    return [members] if isinstance(members, Tensor) else list(members)


def _equal(one: Group, other: Group) -> bool:
    return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one if key != "params")


def _same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return one is other
    return bool(one == other)
