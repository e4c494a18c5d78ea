"""mmengine's functions for checkpoints, under their names and with their arguments; files are read without running code.

Source: mmengine 0.10.7, ``mmengine.runner.checkpoint``. Its tables of models (``torchvision://``, ``open-mmlab://``) are not
here: a loader for such a scheme can be registered.
"""

from __future__ import annotations

import io
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from os import PathLike
from types import MappingProxyType
from typing import cast, overload

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from treenail.adapters.comm import current_communicator
from treenail.adapters.files.compat.mmengine import exists, get_text, join_path, put
from treenail.adapters.logging.compat import print_log
from treenail.adapters.weights.names import STRIP_MODULE, rename
from treenail.adapters.weights.sources import open_source

Loader = Callable[..., dict[str, object]]
"""(filename, map_location) → what the file holds."""

_SCHEMES: ContextVar[Mapping[str, Loader]] = ContextVar("checkpoint_schemes", default=MappingProxyType({}))

_WHAT_DIFFERS = "The model and loaded state dict do not match exactly\n"


class CheckpointLoader:
    """Reads checkpoints by the schemes of their names."""

    @overload
    @classmethod
    def register_scheme(
        cls, prefixes: str | Sequence[str], loader: None = None, force: bool = False
    ) -> Callable[[Loader], Loader]: ...

    @overload
    @classmethod
    def register_scheme(cls, prefixes: str | Sequence[str], loader: Loader, force: bool = False) -> None: ...

    @classmethod
    def register_scheme(
        cls, prefixes: str | Sequence[str], loader: Loader | None = None, force: bool = False
    ) -> Callable[[Loader], Loader] | None:
        """Register what reads names that begin with a prefix; as a decorator where no loader is given.

        It holds in this context and those made from it (`contextvars`).

        Args:
            prefixes: Regular expressions that such names begin with; the last in the order of their letters counts.
            loader: Called with the name and ``map_location``.
            force: Replace the loader of a prefix.

        Raises:
            KeyError: A prefix has a loader already.
        """

        def register(loader: Loader) -> Loader:
            known = dict(_SCHEMES.get())
            for prefix in [prefixes] if isinstance(prefixes, str) else prefixes:
                if prefix in known and not force:
                    raise KeyError(
                        f"{prefix} is already registered as a loader backend, add 'force=True' if you want to override it"
                    )
                known[prefix] = loader
            _SCHEMES.set(known)
            return loader

        if loader is None:
            return register
        register(loader)
        return None

    @classmethod
    def load_checkpoint(
        cls,
        filename: str | PathLike[str],
        map_location: str | torch.device | None = None,
        logger: logging.Logger | str | None = "current",
    ) -> dict[str, object]:
        """Read a checkpoint: by a registered loader, else as `open_source` does.

        Args:
            filename: A path or URI.
            map_location: The device that tensors go to; None: the CPU.
            logger: Where it is told, as `print_log` takes it: None prints, ``silent`` says nothing.

        Raises:
            FileNotFoundError: There is no such file.
            CheckpointError: It cannot be read; see `open_source`.
        """
        name = str(filename)
        print_log(f"Loads checkpoint from path: {name}", logger, logging.INFO)
        known = _SCHEMES.get()
        for prefix in sorted(known, reverse=True):
            if re.match(prefix, name):
                return known[prefix](name, map_location)
        if "://" not in name and not exists(name):
            raise FileNotFoundError(f"{name} can not be found.")
        tree = open_source(filename).tree
        return tree if map_location is None else cast("dict[str, object]", _moved(tree, torch.device(map_location)))


def load_checkpoint(
    model: nn.Module,
    filename: str | PathLike[str],
    map_location: str | torch.device | None = None,
    strict: bool = False,
    logger: logging.Logger | str | None = None,
    revise_keys: Sequence[tuple[str, str]] = STRIP_MODULE,
) -> dict[str, object]:
    """Load a checkpoint's weights into a model, and return the checkpoint.

    Args:
        model: The model.
        filename: A path or URI, as for `CheckpointLoader`.
        map_location: The device that tensors go to.
        strict: Differences are an error, else a message.
        logger: As for `CheckpointLoader.load_checkpoint`.
        revise_keys: (pattern, replacement) pairs of regular expressions for the names.

    Raises:
        RuntimeError: The weights do not fit, and `strict` is True.
        CheckpointError: The file cannot be read.
    """
    checkpoint = CheckpointLoader.load_checkpoint(filename, map_location, logger)
    weights = checkpoint.get("state_dict", checkpoint)
    if not isinstance(weights, Mapping):
        raise RuntimeError(f"No state_dict found in checkpoint file {filename}")
    renamed = OrderedDict(rename(weights, revise_keys=revise_keys).weights)
    if (versions := getattr(weights, "_metadata", None)) is not None:
        renamed._metadata = versions  # type: ignore[attr-defined]  # as nn.Module.state_dict does
    load_state_dict(model, renamed, strict, logger)
    return checkpoint


def load_state_dict(
    module: nn.Module,
    state_dict: Mapping[str, object],
    strict: bool = False,
    logger: logging.Logger | str | None = None,
) -> None:
    """Load weights by name into a module, through whatever makes it or its parts parallel.

    What does not fit is told, on rank 0, even where it is no error.

    Args:
        module: The module.
        state_dict: Weights, by names without those of parallel wrappers.
        strict: Differences are an error.
        logger: As for `CheckpointLoader.load_checkpoint`.

    Raises:
        RuntimeError: They do not fit, and `strict` is True.
    """
    held = module.state_dict()
    places = {_without_wrappers(module, name): name for name in held}
    told: list[str] = []
    chosen: OrderedDict[str, object] = OrderedDict()
    for name, value in state_dict.items():
        place = places.get(name, name)
        here = held.get(place)
        if isinstance(value, Tensor) and isinstance(here, Tensor) and value.shape != here.shape:
            told.append(
                f"size mismatch for {name}: copying a param with shape {value.shape} from checkpoint, "
                f"the shape in current model is {here.shape}."
            )
        else:
            chosen[place] = value
    if (versions := getattr(state_dict, "_metadata", None)) is not None:
        chosen._metadata = versions  # type: ignore[attr-defined]  # as nn.Module.state_dict does
    outcome = module.load_state_dict(chosen, strict=False)
    given = {places.get(name, name) for name in state_dict}
    missing = [name for name in outcome.missing_keys if name not in given and "num_batches_tracked" not in name]
    if outcome.unexpected_keys:
        told.append(f"unexpected key in source state_dict: {', '.join(outcome.unexpected_keys)}\n")
    if missing:
        names = ", ".join(_without_wrappers(module, name) for name in missing)
        told.append(f"missing keys in source state_dict: {names}\n")
    if not told:
        return
    message = "\n".join([_WHAT_DIFFERS, *told])
    if strict:
        raise RuntimeError(message)
    if current_communicator().rank == 0:
        print_log(message, logger, logging.WARNING)


def get_state_dict(
    module: nn.Module, destination: dict[str, Tensor] | None = None, prefix: str = "", keep_vars: bool = False
) -> dict[str, Tensor]:
    """Return a module's state by names without those of parallel wrappers, around it or its parts.

    Args:
        module: The module.
        destination: Takes the state, and is returned; a new one when None.
        prefix: Before each name.
        keep_vars: Give the parameters themselves, not tensors without gradient.
    """
    state = module.state_dict(keep_vars=keep_vars)
    target: dict[str, Tensor] = OrderedDict() if destination is None else destination
    target.update({prefix + _without_wrappers(module, name): value for name, value in state.items()})
    versions = getattr(target, "_metadata", OrderedDict())
    own: Mapping[str, object] = getattr(state, "_metadata", {})
    for path, version in own.items():
        versions.setdefault((prefix + _without_wrappers(module, f"{path}." if path else "")).rstrip("."), version)
    if isinstance(target, OrderedDict):
        target._metadata = versions  # type: ignore[attr-defined]  # as nn.Module.state_dict does
    return target


def weights_to_cpu(state_dict: Mapping[str, object]) -> OrderedDict[str, object]:
    """Return weights on the CPU, with the versions of their modules."""
    moved = OrderedDict((name, _moved(value, torch.device("cpu"))) for name, value in state_dict.items())
    moved._metadata = getattr(state_dict, "_metadata", OrderedDict())  # type: ignore[attr-defined]  # as torch has it
    return moved


def save_checkpoint(
    checkpoint: Mapping[str, object],
    filename: str,
    file_client_args: dict[str, object] | None = None,
    backend_args: dict[str, object] | None = None,
) -> None:
    """Write a checkpoint by `torch.save` to any store, whole or not at all.

    Args:
        checkpoint: What is saved.
        filename: A path or URI.
        file_client_args: The older name of backend_args.
        backend_args: Of mmengine's file backend.

    Raises:
        ValueError: Both kinds of arguments are given.
    """
    if file_client_args is not None and backend_args is not None:
        raise ValueError('"file_client_args" and "backend_args" cannot be set at the same time.')
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    put(buffer.getvalue(), filename, backend_args=backend_args or file_client_args)


def find_latest_checkpoint(path: str) -> str | None:
    """Return the newest checkpoint of a directory: what mmengine's ``last_checkpoint`` says, or where our ``latest`` is.

    Args:
        path: A path or URI.
    """
    pointer = join_path(path, "last_checkpoint")
    if exists(pointer):
        return get_text(pointer).strip()
    for name in ("latest", "checkpoints/latest"):
        if exists(ours := str(join_path(path, name))):
            return ours
    print_log("Did not find last_checkpoint to be resumed.", None, logging.INFO)
    return None


def _without_wrappers(module: nn.Module, name: str) -> str:
    """Return the name that a tensor of a module would have if nothing were wrapped for parallel training."""
    kept: list[str] = []
    inner: nn.Module | None = module
    for part in name.split("."):
        if not (part == "module" and isinstance(inner, DataParallel | DistributedDataParallel)):
            kept.append(part)
        inner = inner._modules.get(part) if inner is not None else None
    return ".".join(kept)


def _moved(value: object, device: torch.device) -> object:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return OrderedDict((name, _moved(each, device)) for name, each in value.items())
    if isinstance(value, list):
        return [_moved(each, device) for each in value]
    return value
