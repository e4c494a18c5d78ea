"""Groups of parameters by what they are and what they are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, NamedTuple, TypeAlias, TypedDict

from msgspec import Meta
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from treenail.adapters.optim.freezing import freeze_parameters, nearest
from treenail.contracts.parameters import ParameterGroup, ParameterGroups
from treenail.kernel import did_you_mean

Factor: TypeAlias = Annotated[float, Meta(ge=0)]


class KeySettings(TypedDict, total=False):
    """Settings of the parameters that a key of `parameter_groups` matches.

    Args:
        lr_mult: What their learning rate is multiplied with; 1 if not given.
        decay_mult: What their weight decay is multiplied with; 1 if not given.
        options: Other arguments of the optimizer for them: ``{betas: [0.9, 0.95]}``.
    """

    lr_mult: Factor
    decay_mult: Factor
    options: Mapping[str, object]


def parameter_groups(
    model: nn.Module,
    *,
    lr_mult: Factor = 1.0,
    decay_mult: Factor = 1.0,
    bias_lr_mult: Factor | None = None,
    bias_decay_mult: Factor | None = None,
    norm_decay_mult: Factor | None = None,
    dwconv_decay_mult: Factor | None = None,
    dcn_offset_lr_mult: Factor | None = None,
    flat_decay_mult: Factor | None = None,
    custom_keys: Mapping[str, KeySettings] = {},  # read only
    bypass_duplicate: bool = True,
    freeze: tuple[str, ...] = (),
    eval_frozen: bool = False,
) -> ParameterGroups:
    """Freeze parameters, and group the others by what they are and what they are called, as mmengine's `paramwise_cfg` does.

    Parameters with equal settings share a group. One that several modules share counts once, by the first of its names.

    Args:
        model: Before it is made parallel.
        lr_mult: Factor of the learning rate of all parameters; the others come on top.
        decay_mult: Factor of the weight decay of all parameters; the others come on top.
        bias_lr_mult: Factor of the learning rate of biases, but for those of normalisation and of offsets.
        bias_decay_mult: Factor of the weight decay of biases, but for those of normalisation, depthwise convolutions and
            offsets.
        norm_decay_mult: Factor of the weight decay of normalisation layers: torch's and what derives from them.
        dwconv_decay_mult: Factor of the weight decay of depthwise convolutions.
        dcn_offset_lr_mult: Factor of the learning rate of the layers that compute the offsets of a deformable convolution
            (``conv_offset``).
        flat_decay_mult: Factor of the weight decay of parameters of no or one dimension to which no factor above applies.
        custom_keys: Settings by parts of names. Of the keys that a full name contains the longest counts, of equally long
            ones the first in the alphabet; all factors from bias_lr_mult to flat_decay_mult are then of no effect.
        bypass_duplicate: Whether modules may share parameters; false: that is an error.
        freeze: Names of parameters and modules that are not trained, as patterns: ``stem.*``, ``layers.[0-3]``. See
            `freeze_parameters`.
        eval_frozen: Keep modules that `freeze` freezes as a whole in eval mode, whatever ``model.train()`` says, so that
            batch normalisation keeps its statistics.

    Raises:
        ValueError: A factor is negative or no number, a key or pattern matches nothing, a parameter has no shape yet, or
            modules share one although they must not.
    """
    rules = Rules(
        bias_lr_mult, bias_decay_mult, norm_decay_mult, dwconv_decay_mult, dcn_offset_lr_mult, flat_decay_mult
    )
    check_factors({"lr_mult": lr_mult, "decay_mult": decay_mult, **rules._asdict()})
    for key, settings in custom_keys.items():
        _check_settings(key, settings)
    names = _first_names(model)
    _check_keys(custom_keys, names)
    if not bypass_duplicate:
        for other, first in names.items():
            if other != first:
                raise ValueError(
                    f"'{other}' is the same parameter as '{first}'; let bypass_duplicate be true to allow it"
                )
    frozen = freeze_parameters(model, freeze, keep_eval=eval_frozen)
    modules = dict(model.named_modules(remove_duplicate=False))
    settings_of = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if is_lazy(parameter):
            raise ValueError(f"the parameter '{name}' has no shape yet; run the model once before it is trained")
        matched = longest_key(custom_keys, name)
        if matched is None:
            each = rules.settings(place_of(modules, name, parameter))
        else:
            custom = custom_keys[matched]
            options = custom.get("options", {})
            each = Settings(matched, custom.get("lr_mult", 1.0), custom.get("decay_mult", 1.0), options)
        lr, decay = each.lr_mult, each.decay_mult
        settings_of.append((name, each._replace(lr_mult=lr * lr_mult, decay_mult=decay * decay_mult)))
    return ParameterGroups(merged(settings_of), frozen)


class Settings(NamedTuple):
    """How a parameter is trained, and a word for why."""

    label: str
    lr_mult: float = 1.0
    decay_mult: float = 1.0
    options: Mapping[str, object] = {}  # read only; a default, no attribute of the class


class Place(NamedTuple):
    """What decides how a parameter is trained: what it is, and what it is in."""

    bias: bool
    norm: bool
    depthwise: bool
    offset: bool
    flat: bool


class Rules(NamedTuple):
    """Factors by what a parameter is; None: it makes no difference."""

    bias_lr_mult: float | None = None
    bias_decay_mult: float | None = None
    norm_decay_mult: float | None = None
    dwconv_decay_mult: float | None = None
    dcn_offset_lr_mult: float | None = None
    flat_decay_mult: float | None = None

    def lr(self, place: Place) -> tuple[str, float | None]:
        """Return what the factor of the learning rate is called, and the factor."""
        if place.offset:
            return "dcn_offset", self.dcn_offset_lr_mult
        return "bias", self.bias_lr_mult if place.bias and not place.norm else None

    def decay(self, place: Place) -> tuple[str, float | None]:
        """Return what the factor of the weight decay is called, and the factor."""
        if place.offset:
            return "dcn_offset", None
        if place.norm:
            found = "norm", self.norm_decay_mult
        elif place.depthwise:
            found = "dwconv", self.dwconv_decay_mult
        else:
            found = "bias", self.bias_decay_mult if place.bias else None
        return found if found[1] is not None or not place.flat else ("flat", self.flat_decay_mult)

    def settings(self, place: Place) -> Settings:
        """Return the settings of a parameter."""
        (lr_label, lr), (decay_label, decay) = self.lr(place), self.decay(place)
        labels = [label for label, factor in ((lr_label, lr), (decay_label, decay)) if factor is not None]
        label = " ".join(dict.fromkeys(labels)) or DEFAULT
        return Settings(label, 1.0 if lr is None else lr, 1.0 if decay is None else decay)


DEFAULT = "default"
"""Name of the group of those that no rule applies to."""


def place_of(modules: Mapping[str, nn.Module], name: str, parameter: nn.Parameter) -> Place:
    """Return what a parameter is.

    Args:
        modules: Those of the model by all their names.
        name: The parameter's full name.
        parameter: The parameter.
    """
    path, _, last = name.rpartition(".")
    return place_in(modules[path], last, parameter, offset=_computes_offsets(modules, path))


def place_in(module: nn.Module, name: str, parameter: nn.Parameter, *, offset: bool) -> Place:
    """Return what a parameter is by the module that holds it.

    Args:
        module: It.
        name: The parameter's name in it.
        parameter: The parameter.
        offset: Whether the module computes the offsets of a deformable convolution.
    """
    return Place(
        bias=name == "bias" or name.startswith("bias_") or name.endswith("_bias"),  # those of LSTM and attention, too
        norm=isinstance(module, _NormBase | nn.GroupNorm | nn.LayerNorm | nn.RMSNorm),
        depthwise=isinstance(module, _ConvNd) and 1 < module.groups == module.in_channels,
        offset=offset,
        flat=parameter.ndim <= 1,
    )


def is_deformable(module: nn.Module) -> bool:
    """Tell whether a module is a deformable convolution, by its class's name: mmcv and torchvision are not imported for it."""
    return any(kind.__name__ in ("DeformConv2d", "ModulatedDeformConv2d") for kind in type(module).__mro__)


def _computes_offsets(modules: Mapping[str, nn.Module], path: str) -> bool:
    parts = path.split(".")
    return any(
        "conv_offset" in part and is_deformable(modules[".".join(parts[:index])]) for index, part in enumerate(parts)
    )


def longest_key(keys: Iterable[str], name: str) -> str | None:
    """Return the longest key that a name contains, of equally long ones the first in the alphabet."""
    return min((key for key in keys if key in name), key=lambda key: (-len(key), key), default=None)


def merged(settings_of: Iterable[tuple[str, Settings]]) -> tuple[ParameterGroup, ...]:
    """Return one group for each different settings, named by all the labels that lead to them.

    Args:
        settings_of: The settings of every parameter's name; groups are in the order of the first ones in them.
    """
    found: dict[object, tuple[Settings, list[str], dict[str, None]]] = {}
    for name, settings in settings_of:
        key = settings.lr_mult, settings.decay_mult, repr(sorted(settings.options.items()))
        _, names, labels = found.setdefault(key, (settings, [], {}))
        names.append(name)
        labels[settings.label] = None
    groups: dict[str, ParameterGroup] = {}
    for settings, names, labels in found.values():
        words = list(labels)
        name = "+".join(words if len(words) <= 4 else [words[0], "…", words[-1]])
        if name in groups:  # biases whose decay differs, for instance
            name = f"{name} ({len(groups) + 1})"
        groups[name] = ParameterGroup(name, tuple(names), settings.lr_mult, settings.decay_mult, settings.options)
    return tuple(groups.values())


def with_loss(model: nn.Module, loss: object) -> nn.Module:
    """Return the model with a loss that has parameters as its child ``loss``, so that they have names beside its own.

    Args:
        model: It stays as it is; what is returned has its modules and parameters, and is for names only.
        loss: Any loss; one without parameters gives the model itself.

    Raises:
        ValueError: The model has a child or parameter of that name.
    """
    if not isinstance(loss, nn.Module) or next(loss.parameters(), None) is None:
        return model
    if "loss" in model._modules or "loss" in model._parameters:
        raise ValueError("the loss has parameters, and the model has a 'loss', too: rename that")
    both: nn.Module = object.__new__(type(model))  # copy.copy would run __init__ again once FSDP2 changed the class
    both.__dict__ = {**model.__dict__, "_modules": {**model._modules, "loss": loss}}
    return both


def _first_names(model: nn.Module) -> dict[str, str]:
    """Return for every name of a parameter the first one of the same parameter."""
    firsts: dict[nn.Parameter, str] = {}
    return {
        name: firsts.setdefault(parameter, name) for name, parameter in model.named_parameters(remove_duplicate=False)
    }


def check_factors(factors: Mapping[str, object]) -> None:
    """Refuse factors that are no numbers of at least 0.

    Args:
        factors: By name; None is no factor.

    Raises:
        ValueError: One is something else.
    """
    for name, factor in factors.items():
        right = isinstance(factor, float | int) and not isinstance(factor, bool) and 0 <= factor < float("inf")
        if factor is not None and not right:
            raise ValueError(f"{name} is {factor!r}, must be a number of at least 0")


def _check_settings(key: object, settings: object) -> None:
    if not isinstance(key, str):
        raise ValueError(f"the key {key!r} is no text; keys are parts of names")
    if not isinstance(settings, Mapping):
        raise ValueError(f"{key}: the settings are {settings!r}, must be a mapping such as {{'lr_mult': 0.1}}")
    for name in settings:
        if name not in KeySettings.__annotations__:
            hint = did_you_mean(str(name), KeySettings.__annotations__)
            raise ValueError(
                f"{key}: '{name}' is no setting of a key; {hint or 'other arguments of the optimizer are its options'}"
            )
    if not isinstance(settings.get("options", {}), Mapping):
        raise ValueError(
            f"{key}: the options are {settings['options']!r}, must be a mapping such as {{'momentum': 0.8}}"
        )
    check_factors({f"{key}: lr_mult": settings.get("lr_mult"), f"{key}: decay_mult": settings.get("decay_mult")})


def _check_keys(keys: Iterable[str], names: Mapping[str, str]) -> None:
    for key in keys:
        if not key:
            raise ValueError("a key is empty and would match every name; lr_mult and decay_mult are for all parameters")
        matched = [name for name in names if key in name]
        if not matched:
            raise ValueError(f"the key '{key}' is part of no parameter's name; {nearest(key, names)}")
        if all(names[name] != name for name in matched):
            other, first = matched[0], names[matched[0]]
            raise ValueError(
                f"the key '{key}' matches only '{other}', which is the same parameter as '{first}'; match that name"
            )
