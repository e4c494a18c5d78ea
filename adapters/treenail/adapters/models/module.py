"""Modules that know how their weights are initialised, and tell."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from treenail.adapters.comm import current_communicator
from treenail.adapters.logging.compat import print_log
from treenail.adapters.models.initializers import InitCfg, configs_of, initialize, is_pretrained
from treenail.adapters.models.notes import ParameterNote, fingerprint, update_init_info


class BaseModule(nn.Module):
    """A module whose weights a config initialises.

    A run calls `init_weights` before it trains; elsewhere it is called by hand, once.

    Args:
        init_cfg: What `initialize` takes: a config ``{"type": …}`` of an initialiser, an initialiser, or several.
    """

    _params_init_info: dict[nn.Parameter, ParameterNote]

    def __init__(self, init_cfg: InitCfg | None = None) -> None:
        super().__init__()
        self.init_cfg = copy.deepcopy(init_cfg)
        self._is_init = False

    @property
    def is_init(self) -> bool:
        """Whether `init_weights` has been called."""
        return self._is_init

    @is_init.setter
    def is_init(self, value: bool) -> None:
        self._is_init = value

    def init_weights(self) -> None:
        """Initialise by `init_cfg`, then let each module below do so by its own, and load what is pretrained last.

        Modules below are those with an ``init_weights``, inside plain containers, too. Once all is done, and has changed
        anything, the log tells of each parameter what initialised it last. A second call changes nothing, and warns.

        Raises:
            ValueError: The config is none of an initialiser.
        """
        if self._is_init:
            warnings.warn(f"the weights of {type(self).__name__} were initialised before, and stay", stacklevel=2)
            return
        outermost = "_params_init_info" not in self.__dict__
        if outermost:
            untouched = f"The value is the same before and after calling `init_weights` of {type(self).__name__}"
            notes = {each: ParameterNote(untouched, fingerprint(each)) for each in self.parameters()}
            for module in self.modules():
                module.__dict__["_params_init_info"] = notes
        try:
            self._initialize()
            self._is_init = True
            changed = outermost and any(note.text != untouched for note in notes.values())
            if changed and current_communicator().rank == 0:
                for name, parameter in self.named_parameters():
                    print_log(f"{name} - {parameter.shape}: \n{notes[parameter].text}", "current", logging.INFO)
        finally:
            if outermost:
                for module in self.modules():
                    module.__dict__.pop("_params_init_info", None)

    def _initialize(self) -> None:
        configs = configs_of(self.init_cfg or [])
        initialize(self, [each for each in configs if not is_pretrained(each)])
        for module in _that_initialize(self):
            if not getattr(module, "is_init", False):
                module.init_weights()
                update_init_info(module, f"Initialized by user-defined `init_weights` in {type(module).__name__}")
        initialize(self, [each for each in configs if is_pretrained(each)])

    def __repr__(self) -> str:
        return super().__repr__() + (f"\ninit_cfg={self.init_cfg}" if self.init_cfg else "")


def _that_initialize(module: nn.Module) -> Iterator[Any]:  # Any: a module of any class with an init_weights
    for child in module.children():
        if callable(getattr(child, "init_weights", None)):
            yield child
        else:
            yield from _that_initialize(child)


class Sequential(BaseModule, nn.Sequential):
    """torch's Sequential with an `init_cfg` of its own.

    Args:
        *args: The modules, or an ordered dict of them.
        init_cfg: As of `BaseModule`.
    """

    def __init__(self, *args: Any, init_cfg: InitCfg | None = None) -> None:  # Any: those of torch's
        BaseModule.__init__(self, init_cfg)
        nn.Sequential.__init__(self, *args)


class ModuleList(BaseModule, nn.ModuleList):
    """torch's ModuleList with an `init_cfg` of its own.

    Args:
        modules: The modules.
        init_cfg: As of `BaseModule`.
    """

    def __init__(self, modules: Iterable[nn.Module] | None = None, init_cfg: InitCfg | None = None) -> None:
        BaseModule.__init__(self, init_cfg)
        nn.ModuleList.__init__(self, modules)


class ModuleDict(BaseModule, nn.ModuleDict):
    """torch's ModuleDict with an `init_cfg` of its own.

    Args:
        modules: The modules by name, or pairs of both.
        init_cfg: As of `BaseModule`.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module] | Iterable[tuple[str, nn.Module]] | None = None,
        init_cfg: InitCfg | None = None,
    ) -> None:
        BaseModule.__init__(self, init_cfg)
        nn.ModuleDict.__init__(self, None if modules is None else dict(modules))
