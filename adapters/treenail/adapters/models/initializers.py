"""Initialisers of weights by name, as configs of OpenMMLab write them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, TypeAlias, cast

from msgspec import Meta
from torch import nn

from treenail.adapters.logging.compat import print_log
from treenail.adapters.models.fills import (
    Distribution,
    FanMode,
    Nonlinearity,
    bias_init_with_prob,
    constant_init,
    kaiming_init,
    normal_init,
    trunc_normal_init,
    uniform_init,
    xavier_init,
)
from treenail.adapters.models.notes import update_init_info
from treenail.contracts import LoadFrom
from treenail.kernel import did_you_mean

Probability = Annotated[float, Meta(gt=0, lt=1)]


class BaseInit(ABC):
    """Initialises modules of some classes.

    Args:
        bias: What biases are filled with.
        bias_prob: A probability by which `bias` is found instead, see `bias_init_with_prob`.
        layer: Names of the classes, or of their direct bases: ``Conv2d``, ``_BatchNorm``.

    Attributes:
        wholemodule: Initialise modules of any class; set for overrides.

    Raises:
        ValueError: The probability is none.
    """

    said: ClassVar[tuple[str, ...]] = ()
    """Attributes that the log tells of."""

    def __init__(
        self, *, bias: float = 0, bias_prob: Probability | None = None, layer: str | Sequence[str] | None = None
    ) -> None:
        self.wholemodule = False
        self.bias = bias if bias_prob is None else bias_init_with_prob(bias_prob)
        self.layer = [layer] if isinstance(layer, str) else list(layer or ())

    @abstractmethod
    def fill(self, module: nn.Module) -> None:
        """Initialise one module, without those below it."""

    def __call__(self, module: nn.Module) -> None:
        """Initialise a module and all below it, as far as they are of the classes.

        Raises:
            ValueError: No class was named.
        """
        if not self.wholemodule and not self.layer:
            raise ValueError(f"{type(self).__name__} names no layer, and would do nothing: give layer=…")
        module.apply(self._fill_if_chosen)
        if "_params_init_info" in module.__dict__:
            update_init_info(module, self._get_init_info())

    def _fill_if_chosen(self, module: nn.Module) -> None:
        kind = type(module)
        if self.wholemodule or not {kind.__name__, *(base.__name__ for base in kind.__bases__)}.isdisjoint(self.layer):
            self.fill(module)

    def _get_init_info(self) -> str:
        settings = ", ".join(f"{name}={getattr(self, name)}" for name in (*self.said, "bias"))
        return f"{type(self).__name__}: {settings}"


class ConstantInit(BaseInit):
    """Fills weights.

    Args:
        val: With what.
        **kwargs: Those of `BaseInit`.
    """

    said = ("val",)

    def __init__(self, val: float, **kwargs: Any) -> None:  # Any: those of BaseInit
        super().__init__(**kwargs)
        self.val = val

    def fill(self, module: nn.Module) -> None:
        """Initialise one module."""
        constant_init(module, self.val, self.bias)


class XavierInit(BaseInit):
    """Initialises weights by `xavier_init`.

    Args:
        gain: Factor of the standard deviation.
        distribution: normal or uniform.
        **kwargs: Those of `BaseInit`.
    """

    said = ("gain", "distribution")

    def __init__(
        self, gain: float = 1, distribution: Distribution = "normal", **kwargs: Any
    ) -> None:  # Any: BaseInit's
        super().__init__(**kwargs)
        self.gain, self.distribution = gain, distribution

    def fill(self, module: nn.Module) -> None:
        """Initialise one module."""
        xavier_init(module, self.gain, self.bias, self.distribution)


class NormalInit(BaseInit):
    """Draws weights from a normal distribution.

    Args:
        mean: Of the distribution.
        std: Its standard deviation.
        **kwargs: Those of `BaseInit`.
    """

    said = ("mean", "std")

    def __init__(self, mean: float = 0, std: float = 1, **kwargs: Any) -> None:  # Any: those of BaseInit
        super().__init__(**kwargs)
        self.mean, self.std = mean, std

    def fill(self, module: nn.Module) -> None:
        """Initialise one module."""
        normal_init(module, self.mean, self.std, self.bias)


class TruncNormalInit(BaseInit):
    """Draws weights from a normal distribution without its tails.

    Args:
        mean: Of the whole distribution.
        std: Its standard deviation.
        a: The least value.
        b: The greatest value.
        **kwargs: Those of `BaseInit`.
    """

    said = ("a", "b", "mean", "std")

    def __init__(
        self, mean: float = 0, std: float = 1, a: float = -2, b: float = 2, **kwargs: Any
    ) -> None:  # Any: BaseInit's
        super().__init__(**kwargs)
        self.mean, self.std, self.a, self.b = mean, std, a, b

    def fill(self, module: nn.Module) -> None:
        """Initialise one module."""
        trunc_normal_init(module, self.mean, self.std, self.a, self.b, self.bias)


class UniformInit(BaseInit):
    """Draws weights from a uniform distribution.

    Args:
        a: The least value.
        b: The greatest value.
        **kwargs: Those of `BaseInit`.
    """

    said = ("a", "b")

    def __init__(self, a: float = 0, b: float = 1, **kwargs: Any) -> None:  # Any: those of BaseInit
        super().__init__(**kwargs)
        self.a, self.b = a, b

    def fill(self, module: nn.Module) -> None:
        """Initialise one module."""
        uniform_init(module, self.a, self.b, self.bias)


class KaimingInit(BaseInit):
    """Initialises weights by `kaiming_init`.

    Args:
        a: Negative slope of a leaky ReLU behind it.
        mode: Keep variances in the forward pass (fan_in) or in the backward pass.
        nonlinearity: What comes behind it, as torch names it.
        distribution: normal or uniform.
        **kwargs: Those of `BaseInit`.
    """

    said = ("a", "mode", "nonlinearity", "distribution")

    def __init__(
        self,
        a: float = 0,
        mode: FanMode = "fan_out",
        nonlinearity: Nonlinearity = "relu",
        distribution: Distribution = "normal",
        **kwargs: Any,  # those of BaseInit
    ) -> None:
        super().__init__(**kwargs)
        self.a, self.mode, self.nonlinearity, self.distribution = a, mode, nonlinearity, distribution

    def fill(self, module: nn.Module) -> None:
        """Initialise one module."""
        kaiming_init(module, self.a, self.mode, self.nonlinearity, self.bias, self.distribution)


class Caffe2XavierInit(KaimingInit):
    """Initialises weights by `caffe2_xavier_init`.

    Args:
        **kwargs: Those of `BaseInit`.
    """

    def __init__(self, **kwargs: Any) -> None:  # Any: those of BaseInit
        super().__init__(a=1, mode="fan_in", nonlinearity="leaky_relu", distribution="uniform", **kwargs)


class PretrainedInit:
    """Loads weights that were trained before, as far as names and shapes fit, and reports what did not.

    Args:
        checkpoint: A path or URI, as `treenail.contracts.LoadFrom` takes it.
        prefix: Take the weights below it only: ``backbone.``.
        map_location: Does not matter here: the weights go where the module is.
    """

    def __init__(self, checkpoint: str, prefix: str | None = None, map_location: str | None = None) -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.map_location = map_location

    def __call__(self, module: nn.Module) -> None:
        """Load the weights.

        Raises:
            CheckpointError: There are no such weights, they are damaged, or none of them fits.
        """
        from treenail.adapters.weights import load_from  # most models begin with random weights

        report = load_from(
            module,
            LoadFrom(path=self.checkpoint, prefix=self.prefix or "", strict=False, allow_shape_mismatch=True),
        )
        print_log(str(report), "current")
        if "_params_init_info" in module.__dict__:
            update_init_info(module, f"{type(self).__name__}: load from {self.checkpoint}")


INITIALIZERS: Mapping[str, Callable[..., Callable[[nn.Module], None]]] = MappingProxyType(
    {
        "Constant": ConstantInit,
        "Xavier": XavierInit,
        "Normal": NormalInit,
        "TruncNormal": TruncNormalInit,
        "Uniform": UniformInit,
        "Kaiming": KaimingInit,
        "Caffe2Xavier": Caffe2XavierInit,
        "Pretrained": PretrainedInit,
    }
)
"""What a config's ``type`` may name."""


InitCfg: TypeAlias = (
    Mapping[str, Any] | BaseInit | PretrainedInit | Sequence[Mapping[str, Any] | BaseInit | PretrainedInit]
)
"""As `initialize` takes it; what a config holds are the arguments of its initialiser."""

Initializer: TypeAlias = Callable[[nn.Module], object]
"""Any that is ready to be called, one of a class of the user's own, too."""


def configs_of(init_cfg: object) -> list[dict[str, Any] | Initializer]:  # Any: arguments of initialisers
    """Return an ``init_cfg``, one or several, as a list of initialisers and of configs that may be changed.

    Raises:
        TypeError: It is something else.
    """
    found: list[dict[str, Any] | Initializer] = []
    for each in init_cfg if isinstance(init_cfg, list | tuple) else [init_cfg]:
        if isinstance(each, Mapping):
            found.append(dict(each))
        elif callable(each) and not isinstance(each, type):
            found.append(each)
        else:
            mend = "must be a config with a 'type', or a list of such, or initialisers"
            raise TypeError(f"init_cfg is {init_cfg!r}, {mend}")
    return found


def is_pretrained(initializer: dict[str, Any] | Initializer) -> bool:  # Any: arguments of an initialiser
    """Return whether an initialiser, or the one that a config names, loads weights that were trained before."""
    kind = initializer.get("type") if isinstance(initializer, dict) else type(initializer)
    return kind in ("Pretrained", PretrainedInit)


def initialize(module: nn.Module, init_cfg: InitCfg | Sequence[Mapping[str, Any] | Initializer]) -> None:
    """Initialise the weights of a module, and of those below it, by configs or initialisers.

    Each names the classes of layers that it is for (``layer``), parts of the module by their ``name`` (``override``, one config
    or several; one without further entries is initialised as the layers are), or both: ``{"type": "Constant", "layer":
    "Conv2d", "val": 1, "override": {"type": "Constant", "name": "reg", "val": 3}}``.

    Args:
        module: What is initialised.
        init_cfg: The configs, which stay as they are; initialisers, ready-made, are called.

    Raises:
        TypeError: One is neither a config nor an initialiser.
        ValueError: One names no initialiser, no layer and no part, or a part that does not exist; or has arguments that
            its initialiser does not take.
    """
    for config in configs_of(init_cfg):
        if not isinstance(config, dict):
            config(module)
            continue
        overrides = configs_of(config.pop("override", []))
        if config.get("layer") or not overrides:
            _build(config)(module)
        config.pop("layer", None)
        for override in overrides:
            name = override.pop("name", None) if isinstance(override, dict) else None
            if not isinstance(override, dict) or name is None:
                raise ValueError(f"the override {override} has no 'name', which says of what part it is")
            if override and "type" not in override:
                raise ValueError(f"the override of '{name}' has no 'type', only {', '.join(override)}")
            part = getattr(module, name, None)
            if not isinstance(part, nn.Module):
                parts = dict(module.named_children())
                hint = did_you_mean(name, parts) or f"its parts are {', '.join(parts) or 'none'}"
                raise ValueError(f"{type(module).__name__} has no part '{name}' to override: {hint}")
            initializer = _build(override or config)
            if isinstance(initializer, BaseInit):
                initializer.wholemodule = True
            initializer(part)


def _build(config: Mapping[str, Any]) -> Callable[[nn.Module], None]:  # Any: arguments of an initialiser
    arguments = dict(config)
    kind = arguments.pop("type", None)
    make = INITIALIZERS.get(kind) if isinstance(kind, str) else kind
    if not callable(make):
        hint = did_you_mean(str(kind), INITIALIZERS) or f"there are {', '.join(INITIALIZERS)}"
        raise ValueError(
            f"'{kind}' is no initialiser: {hint}" if kind else f"the init_cfg {config} has no 'type': {hint}"
        )
    try:
        return cast("Callable[[nn.Module], None]", make(**arguments))  # a class of the user's own may be anything
    except TypeError as error:
        raise ValueError(f"the init_cfg of the type '{kind}' does not fit: {error}") from error
