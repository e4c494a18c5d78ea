"""Modules that show what goes through them: values they register, for whoever looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

import torch
from torch import nn

from treenail.adapters.hooks.probe_data import ProbeData

_STORE: Final = "_treenail_probes"


class Probes:
    """What one module has registered since somebody looked.

    Attributes:
        is_open: Whether values are taken; else registering does nothing.
        is_watched: Whether a run looks at them; then what copies of the module register belongs to them, too.
        values: The last value of each key.
        counts: How often each value occurred, of the keys that count.
    """

    def __init__(self, *, is_open: bool) -> None:
        self.is_open = is_open
        self.is_watched = False
        self.values: dict[str, ProbeData] = {}
        self.counts: dict[str, Counter[str]] = {}

    def clear(self) -> None:
        """Forget everything."""
        self.values.clear()
        self.counts.clear()

    def __deepcopy__(self, memo: dict[int, object]) -> Probes:
        # Averages of the weights are evaluated by a copy of the model.
        return self if self.is_watched else Probes(is_open=self.is_open)

    def __reduce__(self) -> tuple[type[dict[str, object]], tuple[()]]:
        return dict, ()  # nothing of it is saved with a module


def probes_of(module: nn.Module, *, is_open: bool = True) -> Probes:
    """Return where a module registers.

    Args:
        module: The module.
        is_open: Whether values are taken, if nobody has looked before.
    """
    found = vars(module).get(_STORE)
    if not isinstance(found, Probes):
        found = vars(module)[_STORE] = Probes(is_open=is_open)
    return found


def register_probe(module: nn.Module, data: Mapping[str, object]) -> None:
    """Let values be seen from outside; called in a module's ``forward``.

    In a run with a `ProbeHook` only in the steps that it writes; there is nothing to pay in the others but the call. A key that
    comes again replaces the value before, and is counted with it. While a model is exported, nothing is registered.

    Args:
        module: Which module they are of.
        data: Values by key; a `ProbeData` says how it is shown.

    Raises:
        ValueError: A value cannot be shown or counted; the message says which.
    """
    if torch.jit.is_tracing() or torch.compiler.is_exporting():  # type: ignore[attr-defined,no-untyped-call]  # of torch
        return
    probes = probes_of(module)
    if not probes.is_open:
        return
    if torch.compiler.is_compiling():
        torch.compiler.disable(_register)(module, probes, data)  # type: ignore[no-untyped-call]  # of torch
    else:
        _register(module, probes, data)


def _register(module: nn.Module, probes: Probes, data: Mapping[str, object]) -> None:
    for key, value in data.items():
        probe = value if isinstance(value, ProbeData) else ProbeData(value)
        try:
            if probe.view_distribute:
                probes.counts.setdefault(key, Counter()).update(probe.counts())
            probes.values[key] = probe.copied()
        except ValueError as error:
            raise ValueError(f"the probe '{key}' of {type(module).__name__}: {error}") from error


def probe_data(module: nn.Module) -> dict[str, ProbeData]:
    """Return what a module and those below it registered since the last call, and forget it.

    Args:
        module: The outermost one.

    Returns:
        By key, those of modules below it behind their names: ``encoder.0/key``. Of what is counted also ``key_distribute``, how
        often each value occurred, and ``key_norm_distribute``, the share of each.
    """
    found: dict[str, ProbeData] = {}
    for name, each in module.named_modules():
        probes = vars(each).get(_STORE)
        if not isinstance(probes, Probes):
            continue
        for key, value in probes.values.items():
            found[f"{name}/{key}" if name else key] = value
        for key, counts in probes.counts.items():
            found |= {f"{name}/{kind}" if name else kind: data for kind, data in distributions(key, counts).items()}
        probes.clear()
    return found


def distributions(key: str, counts: Counter[str]) -> dict[str, ProbeData]:
    """Return how often values occurred, and their shares, the most frequent first."""
    total = counts.total()
    ordered = dict(counts.most_common())
    return {
        f"{key}_distribute": ProbeData(ordered),
        f"{key}_norm_distribute": ProbeData({value: count / total for value, count in ordered.items()}),
    }


class ProbedModule(nn.Module):
    """A module with `register_probe` and `probe_data` as methods."""

    def register_probe(self, data: Mapping[str, object]) -> None:
        """Let values be seen from outside; see the function of this name."""
        register_probe(self, data)

    def probe_data(self) -> dict[str, ProbeData]:
        """Return what this module and those below it registered since the last call; see the function of this name."""
        return probe_data(self)
