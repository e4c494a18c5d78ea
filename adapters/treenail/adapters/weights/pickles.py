"""Files of `torch.save`, read without running code: what they hold of unknown classes becomes a stand-in."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from treenail.kernel import CheckpointError

_MAPPINGS = frozenset(
    {
        "addict.addict.Dict",
        "collections.defaultdict",
        "lightning.fabric.utilities.data.AttributeDict",
        "lightning.pytorch.utilities.parsing.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict",
        "mmengine.config.config.ConfigDict",
        "mmcv.utils.config.ConfigDict",
        "pytorch_lightning.utilities.parsing.AttributeDict",
    }
)
"""Subclasses of dict in checkpoints, of which only the items count."""

_RUNS_CODE = frozenset(
    {"commands", "importlib", "nt", "os", "posix", "pty", "runpy", "shutil", "socket", "subprocess", "sys"}
)
"""Modules that no object of a checkpoint is of; ``commands`` is what Python 2 called subprocess, and pickle does."""

_BUILTINS_THAT_RUN_CODE = frozenset({"__import__", "breakpoint", "compile", "eval", "exec", "input", "open"})

_DTYPES = "?bhilqBHILQefdgFDGSU"


class Opaque:
    """Stands for an object whose class was not loaded; it keeps what the file says of it.

    Args:
        arguments: What the object was to be built from.

    Attributes:
        class_name: Its class, or the function that was to make it.
        state: What its attributes were to be, if the file says it.
    """

    class_name = ""

    def __new__(cls, *_: object) -> Opaque:
        """Make one, of whatever arguments: the file decides what they are."""
        return object.__new__(cls)

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        """Keep the state."""
        self.state = state

    def __repr__(self) -> str:
        return f"<{self.class_name}>"


class Unpickled(NamedTuple):
    """What a file of `torch.save` holds.

    Args:
        value: The object that was saved, tensors on the CPU.
        opaque: Names of the classes and functions of which it holds stand-ins.
    """

    value: object
    opaque: tuple[str, ...]


def read_pickled(path: Path, where: str) -> Unpickled:
    """Read a file that `torch.save` wrote. No code that it names is imported or called.

    Built are tensors, numbers, texts, containers, and arrays and numbers of numpy. An object of any other class is an
    `Opaque`, but for subclasses of dict and list, which become dicts and lists. Source: `torch.load`, ``weights_only=True``.

    Args:
        path: The file.
        where: What to call it in messages.

    Raises:
        CheckpointError: It is empty, truncated, no such file, a TorchScript archive, or names what runs code.
    """
    with path.open("rb") as file:
        head = file.read(4)
    if not head:
        raise CheckpointError("the file is empty", where=where, mend="was it copied or downloaded to its end?")
    if head[:2] == b"PK" and not _is_zip(path):
        raise CheckpointError(
            "the file is a zip archive without its end", where=where, mend="it is truncated: copy or download it again"
        )
    if head[:2] != b"PK" and head[:1] != b"\x80":
        raise CheckpointError(
            "this is no file of torch.save, and no safetensors",
            where=where,
            mend="name a checkpoint's directory, or a .safetensors, .pt, .pth or .ckpt file",
        )
    if head[:1] == b"\x80" and head[1:2] > b"\x02":
        raise CheckpointError(
            "this is a pickle of Python's own, no file of torch.save",
            where=where,
            mend="where it is trusted, load it and save what it holds by torch.save({name: tensor}, …)",
        )
    try:
        return _read(path, _unknown_names(path, where), dict.fromkeys(_MAPPINGS, OrderedDict))
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"the file holds what is not read without running its code: {_cause(error)}",
            where=where,
            mend="where its classes are installed and the file is trusted, load it and save {'state_dict': "
            "model.state_dict()} anew",
        ) from error
    except Exception as error:  # torch raises whatever a damaged file leads it to
        raise CheckpointError(
            f"the file is damaged, or none of torch.save: {_cause(error)}",
            where=where,
            mend="copy or download it again",
        ) from error


def _read(path: Path, names: Collection[str], containers: Mapping[str, type]) -> Unpickled:
    """Read a file with stand-ins for what it names; those of containers are found as they get their items."""
    numpys = _numpy_globals()
    unknown = sorted(set(names) - {name for _, name in numpys})
    try:
        with safe_globals([*numpys, *((_stand_in(name, containers), name) for name in unknown)]):
            value: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"Can only (SETITEM|append|extend)\w* .* but got <class '([\w.]+)'>", str(error))
        if found is None or found[2] not in unknown or found[2] in containers:
            raise
        return _read(path, names, {**containers, found[2]: OrderedDict if found[1] == "SETITEM" else _NewList})
    opaque = (name for name in unknown if name not in containers and not name.startswith(("builtins.", "pathlib.")))
    return Unpickled(value, tuple(opaque))


def _unknown_names(path: Path, where: str) -> list[str]:
    """Return the classes and functions that a zip file names and torch does not allow; none for the older format."""
    if not _is_zip(path):
        return []
    with zipfile.ZipFile(path) as archive:
        inner = [name.partition("/")[2] for name in archive.namelist()]
    if "data.pkl" not in inner or "constants.pkl" in inner:
        is_script = "constants.pkl" in inner
        raise CheckpointError(
            "this is a TorchScript archive, which is code" if is_script else "this zip archive is none of torch.save",
            where=where,
            mend="save its state_dict() where it is trusted: torch.save(torch.jit.load(path).state_dict(), …)"
            if is_script
            else "name a file that torch.save or safetensors wrote",
        )
    names = sorted(get_unsafe_globals_in_checkpoint(path))
    for name in names:
        module, _, attribute = name.rpartition(".")
        if module.partition(".")[0] in _RUNS_CODE or (
            module in ("builtins", "__builtin__") and attribute in _BUILTINS_THAT_RUN_CODE
        ):
            raise CheckpointError(
                f"the file asks to call {name} when it is loaded, which no checkpoint needs",
                where=where,
                mend="do not use it: this is how malicious files run code",
            )
    return names


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # it has an end that says what cannot be
        return False


def _stand_in(name: str, containers: Mapping[str, type]) -> Callable[..., object]:
    """Return what is put in the place of a class or function."""
    if name == "collections.defaultdict":
        return _without_factory
    if name in containers:
        return containers[name]
    if name.startswith("pathlib.") and name.endswith("Path"):
        return PurePosixPath
    module, _, kind = name.rpartition(".")
    return type(kind, (Opaque,), {"class_name": name, "__module__": module})


class _NewList:
    """Stands for deque and subclasses of list: torch puts items into nothing but lists."""

    def __new__(cls, *_: object) -> list[object]:  # type: ignore[misc]  # what is wanted is no instance of it
        return []


def _without_factory(*_: object) -> OrderedDict[object, object]:
    return OrderedDict()


def _numpy_globals() -> list[tuple[Callable[..., object], str]]:
    """Return what numpy's arrays and numbers are pickled with, under the names of its versions 1 and 2."""
    try:
        import numpy as np
        from numpy._core import multiarray  # numpy pickles by these names; torch's documentation allows them likewise
    except ModuleNotFoundError:  # an extra; without it they become stand-ins as other unknown classes do
        return []

    functions = ((getattr(multiarray, name), name) for name in ("_reconstruct", "scalar"))
    found: list[tuple[Callable[..., object], str]] = [
        (function, f"numpy.{core}.multiarray.{name}") for function, name in functions for core in ("core", "_core")
    ]
    dtypes = {type(np.dtype(code)) for code in _DTYPES}
    return [
        *found,
        (np.ndarray, "numpy.ndarray"),
        (np.dtype, "numpy.dtype"),
        *((dtype, f"numpy.dtypes.{dtype.__name__}") for dtype in dtypes),
    ]


def _cause(error: BaseException) -> str:
    """Return the sentence of torch's message that says what was wrong."""
    text = " ".join(str(error).split()) or type(error).__name__
    told = text.partition("WeightsUnpickler error: ")[2] or text
    told = told.partition(" Check the documentation")[0].partition(" Please use")[0].rstrip(".")
    return told if len(told) <= 200 else f"{told[:200]} …"
