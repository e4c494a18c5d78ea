"""Gradient checkpointing: activations that the backward pass computes again instead of finding them in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase  # of all of torch's norms that keep running statistics
from torch.utils.checkpoint import checkpoint

from treenail.kernel import TrainingError, did_you_mean

_CONTAINERS = (nn.ModuleList, nn.ModuleDict)  # never called themselves


def recompute(module: nn.Module, *, classes: tuple[str, ...] = (), modules: tuple[str, ...] = ()) -> nn.Module:
    """Let the activations of chosen modules be computed again in the backward pass (`torch.utils.checkpoint`).

    Between the passes only the inputs of a chosen module are kept, for about a third more computation (Chen et al. 2016,
    "Training Deep Nets with Sublinear Memory Cost"). The module is changed in place: the chosen ones get another
    `forward`, of the same signature; names, parameters and state_dict stay. Gradients do not change: the second pass
    draws the same random numbers in the same precision and in the modes of the first (training or eval), and leaves
    running statistics alone. Evaluation, and whatever needs no gradients, computes once.

    Args:
        module: Before it is parallelised, compiled or trained.
        classes: Names of the classes of modules, such as ``TransformerEncoderLayer``.
        modules: Names of modules; ``*`` stands for any one part of a name: ``encoder.layers.*``.

    Raises:
        TypeError: The names are one text.
        ValueError: Nothing is chosen; a name matches no module, or one that is never called itself.
    """
    given: dict[str, object] = {"classes": classes, "modules": modules}
    for argument, names in given.items():
        if isinstance(names, str):
            raise TypeError(f"{argument} is the text '{names}': write a list of one")
    for part in list(_chosen(module, classes, modules)):  # all or none
        if not isinstance(part.forward, _Recomputed):
            part.forward = _Recomputed(part)
    return module


class _Recomputed:
    """A module's forward that keeps no activations in training; as an object it is copied with its module."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.__wrapped__: Callable[..., object] = module.forward  # whose signature Python shows

    def __call__(self, *args: object, **kwargs: object) -> object:
        if not self._module.training or not torch.is_grad_enabled():
            return self.__wrapped__(*args, **kwargs)
        count, names = len(args), tuple(kwargs)  # tensors that it refers to would stay in memory
        modes: dict[nn.Module, bool] = {}

        def forward(*values: object) -> object:
            keywords = dict(zip(names, values[count:], strict=True))
            # A compiled backward pass writes no buffers; what torch could not compile whole comes here uncompiled.
            if torch.compiler.is_compiling():
                return self.__wrapped__(*values[:count], **keywords)
            around = self._as_before(modes) if modes else self._first(modes)
            with around:
                return self.__wrapped__(*values[:count], **keywords)

        # torch saves what stands among the positional arguments: it then tells when one is changed in place.
        return checkpoint(forward, *args, *kwargs.values(), use_reentrant=False)

    @contextmanager
    def _first(self, modes: dict[nn.Module, bool]) -> Iterator[None]:
        """Note the modes of modules, and refuse buffers that would be changed twice."""
        modes.update({part: part.training for part in self._module.modules()})
        before = self._written()
        yield
        after = self._written()
        for (part, name), written in before.items():
            if after.get((part, name)) != written:
                raise TrainingError(
                    f"the forward pass of a {type(part).__name__} changes its buffer '{name}', and would do so twice",
                    mend="choose modules to recompute that do not hold it",
                )

    @contextmanager
    def _as_before(self, modes: dict[nn.Module, bool]) -> Iterator[None]:
        """Give modules the modes of the first pass, and let norms write their running statistics into copies."""
        now = {part: part.training for part in modes}
        kept = [(part, dict(part._buffers)) for part in modes if isinstance(part, _NormBase)]
        for norm, buffers in kept:
            norm._buffers.update({name: None if each is None else each.clone() for name, each in buffers.items()})
        try:
            for part, training in modes.items():
                part.training = training
            yield
        finally:
            for part, training in now.items():
                part.training = training
            for norm, buffers in kept:
                norm._buffers.update(buffers)

    def _written(self) -> dict[tuple[nn.Module, str], tuple[int, int]]:
        """Return which tensor each buffer is and how often it was written, but for those of norms."""
        return {
            (part, name): (id(buffer), buffer._version)
            for part in self._module.modules()
            if not isinstance(part, _NormBase)
            for name, buffer in part._buffers.items()
            if buffer is not None
        }


def _chosen(module: nn.Module, classes: tuple[str, ...], modules: tuple[str, ...]) -> Iterator[nn.Module]:
    """Yield the modules below one that are named, or are of a named class."""
    if not classes and not modules:
        raise ValueError("nothing is chosen to be recomputed; name classes or modules")
    below = {name: part for name, part in module.named_modules(remove_duplicate=False) if name}
    for word in (*classes, *modules):
        by_class = word in classes
        found = [
            part for name, part in below.items() if (type(part).__name__ == word if by_class else _matches(name, word))
        ]
        if not found:
            known = list(dict.fromkeys(type(part).__name__ for part in below.values())) if by_class else list(below)
            hint = did_you_mean(word, known) or f"there are {', '.join(known[:20]) or 'none'}"
            kind = "of the class" if by_class else "that matches"
            raise ValueError(f"{type(module).__name__} has no module {kind} '{word}'; {hint}")
        if containers := [part for part in found if isinstance(part, _CONTAINERS)]:
            raise ValueError(
                f"'{word}' is a {type(containers[0]).__name__}, which is not called itself; name what it holds"
            )
        yield from found


def _matches(name: str, pattern: str) -> bool:
    parts, patterns = name.split("."), pattern.split(".")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))
