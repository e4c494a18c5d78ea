"""Where components of a run write their own files, and how that becomes another place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from treenail.adapters.evaluation import DumpPredictions
from treenail.adapters.evaluation.compat import DumpResults
from treenail.adapters.hooks import ProbeHook, ProfilerHook
from treenail.adapters.hooks.compat import LoggerHook as MmengineLoggerHook
from treenail.contracts import Evaluation
from treenail.kernel import Spec
from treenail.kernel.spec import signature_of

_Component = TypeVar("_Component", bound=Spec[object])

_OUTPUTS: Final[Mapping[type, str]] = {
    DumpPredictions: "output",
    DumpResults: "out_file_path",
    ProbeHook: "directory",
    ProfilerHook: "directory",
    MmengineLoggerHook: "out_dir",
}
"""By which argument components of ours are told where their files go."""


def evaluated_into(
    data: Evaluation | Mapping[str, Evaluation], directory: Path
) -> Evaluation | Mapping[str, Evaluation]:
    """Return data to evaluate on whose predictions are written below a directory, in the place of where the config says."""
    if not isinstance(data, Evaluation):
        return {name: _into(each, directory / name) for name, each in data.items()}
    return _into(data, directory)


def _into(data: Evaluation, directory: Path) -> Evaluation:
    metrics = [redirected(each, directory / str(number)) for number, each in enumerate(data.metrics)]
    return msgspec.structs.replace(data, metrics=tuple(metrics))


def redirected(component: _Component, directory: Path) -> _Component:
    """Return a component whose file or directory, where it is one of ours that was given some, lies in another directory."""
    signature = signature_of(component.target)
    name = next((each for kind, each in _OUTPUTS.items() if is_one(component, kind)), None)
    if name is None or signature is None:
        return component
    bound = signature.bind_partial(*component.args, **component.kwargs)
    written = bound.arguments.get(name)
    if written is None:
        return component
    place = directory / str(written).rpartition("/")[2]
    bound.arguments[name] = place if isinstance(written, Path) else str(place)
    return type(component)(component.target, bound.args, bound.kwargs, where=component.where)


def is_one(component: Spec[object], *kinds: type) -> bool:
    """Return whether a component is of one of these classes."""
    return isinstance(component.target, type) and issubclass(component.target, kinds)
