"""Gives a model the weights of a file, with a report of what fitted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from treenail.adapters.weights.names import STRIP_MODULE, rename, suggest_mapping
from treenail.adapters.weights.sources import open_source, weights_of
from treenail.contracts import LoadFrom
from treenail.kernel import CheckpointError, ConfigError

_SHOWN = 20
"""Names of a kind that a message shows."""


class Mismatch(NamedTuple):
    """A weight that does not fit the model's of its name.

    Args:
        name: Its name in the model.
        there: Its shape and dtype in the file.
        here: The model's.
    """

    name: str
    there: str
    here: str

    def __str__(self) -> str:
        return f"{self.name} (there {self.there}, here {self.here})"


class LoadReport(NamedTuple):
    """What became of weights that were to be loaded, by the model's names.

    Args:
        where: Where they come from.
        loaded: Those that the model has now.
        missing: Those of the model that the file lacks; they are as they were. What shares its memory with a weight that was
            loaded is not missing.
        unexpected: Those of the file that the model lacks.
        mismatched: Those of another shape, of a dtype that cannot be converted, or no tensors; they are as they were.
        excluded: Those that were not to be loaded.
        outside: How many of the file were not below the prefix.
        converted: (dtype there, dtype here, how many) of those that were converted.
        elements: Numbers that were loaded.
        suggestion: (pattern, replacement, how many match then) that would make more names match.
    """

    where: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[Mismatch, ...]
    excluded: tuple[str, ...]
    outside: int
    converted: tuple[tuple[str, str, int], ...]
    elements: int
    suggestion: tuple[str, str, int] | None

    @property
    def complete(self) -> bool:
        """Whether all of the model was loaded, and all of the file."""
        return not (self.missing or self.unexpected or self.mismatched or self.excluded)

    def __str__(self) -> str:
        lines = [f"loaded {len(self.loaded)} tensors ({self.elements:,} numbers) from {self.where}"]
        lines += [f"converted {count} from {there} to {here}" for there, here, count in self.converted]
        lines += self.differences()
        if self.excluded:
            lines.append(f"excluded {len(self.excluded)}: {_some(self.excluded)}")
        if self.outside:
            lines.append(f"{self.outside} are not below the prefix")
        if hint := self.hint():
            lines.append(hint)
        return "\n".join(lines)

    def differences(self) -> list[str]:
        """Return a line for each kind of difference between the file and the model."""
        kinds: list[tuple[str, Sequence[object]]] = [
            ("missing in the file", self.missing),
            ("unexpected, the model has no such", self.unexpected),
            ("of another shape or kind", self.mismatched),
        ]
        return [f"{len(names)} {what}: {_some(names)}" for what, names in kinds if names]

    def hint(self) -> str | None:
        """Return what would make more names match, if a prefix does."""
        if self.suggestion is None:
            return None
        pattern, replacement, count = self.suggestion
        if not replacement and pattern.startswith("^") and "|" not in pattern:
            below = pattern.removeprefix("^").replace("\\", "").rstrip(".")
            return f"did you mean prefix: {below}, or revise_keys: [['{pattern}', '']]? then {count} of the names match"
        return f"did you mean revise_keys: [['{pattern}', '{replacement}']]? then {count} of the names match"


def load_weights(
    model: nn.Module,
    weights: Mapping[str, object],
    *,
    prefix: str = "",
    revise_keys: Sequence[tuple[str, str]] = STRIP_MODULE,
    exclude: Sequence[str] = (),
    strict: bool = True,
    allow_shape_mismatch: bool = False,
    where: str = "the weights",
) -> LoadReport:
    """Give a model weights, by name.

    Real numbers are converted to the model's dtype, whichever precision they have; from integers to real numbers and the like
    nothing is converted. A parameter that is spread over ranks (a DTensor) takes this rank's part.

    Args:
        model: It keeps what is not loaded.
        weights: Whole tensors by name; the same on all ranks.
        prefix: Take those below it only, and strip it.
        revise_keys: (pattern, replacement) pairs of regular expressions that make the model's names of those of the file.
        exclude: Shell-style patterns of the model's names that are not loaded, and need not be there: ``head.*``.
        strict: Names that are missing or unexpected are an error.
        allow_shape_mismatch: Weights of another shape are left out; else they are an error.
        where: Where the weights come from, for messages.

    Raises:
        CheckpointError: They do not fit, or none of them does; with all differences. The model may hold some of them then.
        ConfigError: A pattern is no regular expression.
    """
    held = cast("dict[str, Tensor]", model.state_dict())
    renamed = rename(weights, prefix=prefix, revise_keys=revise_keys, exclude=exclude, known=held, where=where)
    mismatched = tuple(
        Mismatch(name, _form(value) if isinstance(value, Tensor) else type(value).__name__, _form(held[name]))
        for name, value in renamed.weights.items()
        if isinstance(held.get(name), Tensor) and not (isinstance(value, Tensor) and _fits(value, held[name]))
    )
    apart = {each.name for each in mismatched}
    chosen: OrderedDict[str, object] = OrderedDict()
    others: list[str] = []
    for name, value in renamed.weights.items():
        if name in apart:
            continue
        if isinstance(value, Tensor):
            chosen[name] = _spread(value, held.get(name))
        elif name.endswith("_extra_state"):
            chosen[name] = value
        else:
            others.append(name)
    if (versions := getattr(weights, "_metadata", None)) is not None:
        chosen._metadata = versions  # type: ignore[attr-defined]  # as nn.Module.state_dict does
    report = _report(model, held, chosen, where)
    passed = [name for name in report.missing if any(fnmatchcase(name, pattern) for pattern in exclude)]
    left = {*apart, *renamed.excluded, *passed}
    given = {_memory(held[name]) for name in report.loaded if isinstance(held.get(name), Tensor)} - {None}
    report = report._replace(
        missing=tuple(name for name in report.missing if name not in left and _memory(held.get(name)) not in given),
        unexpected=(*report.unexpected, *others),
        mismatched=mismatched,
        excluded=tuple(dict.fromkeys((*renamed.excluded, *passed))),
        outside=renamed.outside,
    )
    if report.missing or report.unexpected:
        report = report._replace(suggestion=suggest_mapping(weights, held, len(report.loaded) + len(left)))
    _refuse(report, strict=strict, allow_shape_mismatch=allow_shape_mismatch)
    return report


def _report(model: nn.Module, held: Mapping[str, Tensor], chosen: OrderedDict[str, object], where: str) -> LoadReport:
    """Load, and report what of it fitted."""
    converted: dict[tuple[str, str], int] = {}
    for name, value in chosen.items():
        target = held.get(name)
        if isinstance(value, Tensor) and isinstance(target, Tensor) and value.dtype != target.dtype:
            change = _dtype(value), _dtype(target)
            converted[change] = converted.get(change, 0) + 1
    try:
        outcome = model.load_state_dict(chosen, strict=False)
    except RuntimeError as error:
        raise CheckpointError(
            f"the model takes no such weights: {' '.join(str(error).split())}", where=where
        ) from error
    unexpected = set(outcome.unexpected_keys)
    loaded = tuple(name for name in chosen if name not in unexpected)
    return LoadReport(
        where=where,
        loaded=loaded,
        missing=tuple(outcome.missing_keys),
        unexpected=tuple(outcome.unexpected_keys),
        mismatched=(),
        excluded=(),
        outside=0,
        converted=tuple((*change, count) for change, count in converted.items()),
        elements=sum(value.numel() for name in loaded if isinstance(value := chosen[name], Tensor)),
        suggestion=None,
    )


def _refuse(report: LoadReport, *, strict: bool, allow_shape_mismatch: bool) -> None:
    refused = (strict and bool(report.missing or report.unexpected)) or (
        bool(report.mismatched) and not allow_shape_mismatch
    )
    if report.loaded and not refused:
        return
    ways = []
    if report.missing or report.unexpected:
        ways.append("strict: false loads what has the same name")
    if report.unexpected:
        ways.append("exclude: [PATTERN] leaves weights out")
    if report.mismatched:
        ways.append("allow_shape_mismatch: true leaves out what has another shape")
    what = "the weights do not fit the model" if report.loaded else "none of the weights fits the model"
    raise CheckpointError(
        "; ".join([what, *(report.differences() or ["there are none"])]),
        where=report.where,
        mend=report.hint()
        or ("; ".join(ways) if report.loaded else "are they of another model? see revise_keys and part"),
    )


def load_from(model: nn.Module, settings: LoadFrom) -> LoadReport:
    """Give a model the weights that a config's ``load_from`` names.

    Raises:
        CheckpointError: There are no such weights, they are damaged, or they do not fit.
        ConfigError: A pattern is no regular expression.
        FileError: Nothing serves the URI.
    """
    source = open_source(settings.path)
    try:
        return load_weights(
            model,
            weights_of(source, settings.part),
            prefix=settings.prefix,
            revise_keys=settings.revise_keys,
            exclude=settings.exclude,
            strict=settings.strict,
            allow_shape_mismatch=settings.allow_shape_mismatch,
            where=source.where,
        )
    except ConfigError as error:
        error.where = f"load_from.{error.where}"
        raise


def _fits(there: Tensor, here: Tensor) -> bool:
    if is_lazy(here):
        return True  # it takes its shape from what is loaded
    # torch takes one number for a 0-dim tensor, as its releases before 0.4 saved those.
    same = there.shape == here.shape or (here.dim() == 0 and there.shape == (1,))
    return same and _category(there.dtype) == _category(here.dtype)


def _category(dtype: torch.dtype) -> str:
    if dtype.is_complex:
        return "complex"
    if dtype.is_floating_point:
        return "real"
    return "bool" if dtype is torch.bool else "integer"


def _memory(value: object) -> tuple[object, ...] | None:
    """Return what tied weights have in common; None where they cannot be known."""
    if (
        not isinstance(value, Tensor)
        or is_lazy(value)
        or value.layout is not torch.strided
        or hasattr(value, "placements")
    ):
        return None
    return (value.data_ptr(), value.shape, value.stride()) if value.numel() and not value.is_meta else None


def _form(tensor: Tensor) -> str:
    return f"{_dtype(tensor)}{[] if is_lazy(tensor) else list(tensor.shape)}"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _spread(value: Tensor, target: object) -> Tensor:
    """Return this rank's part of a whole tensor where the model has parts."""
    if not hasattr(target, "placements") or not hasattr(target, "device_mesh"):
        return value
    from torch.distributed.tensor import distribute_tensor

    # Every rank has read the whole, so that nothing needs to be sent.
    whole = value.to(cast("Tensor", target).device, cast("Tensor", target).dtype)
    return distribute_tensor(whole, target.device_mesh, target.placements, src_data_rank=None)


def _some(names: Iterable[object]) -> str:
    shown = [str(name) for name in names]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
