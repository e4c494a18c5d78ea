"""Tensor parallelism: layers are split over ranks that work on the same batch (torch's DTensor)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from torch import nn

from treenail.adapters.parallel.world import TENSOR, device_mesh, device_of, is_distributed
from treenail.kernel import did_you_mean

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor.parallel import ParallelStyle
    from torch.distributed.tensor.placement_types import Placement

_NUMBER = re.compile(r"\b\d+\b")  # of one of several modules alike
_SHOWN = 20

Kind = Literal["colwise", "rowwise", "sequence"]
Layout = Literal["replicated", "features", "sequence"]


class Split(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a layer is split, and how its inputs and outputs lie on the ranks.

    Args:
        kind: ``colwise`` splits a Linear's outputs or an Embedding's vectors; ``rowwise`` a Linear's inputs or an
            Embedding's vocabulary; ``sequence`` keeps the weights of a norm or dropout whole and splits dimension 1 of
            what it is called with.
        inputs: ``replicated`` (all of it on each rank), ``features`` (the last dimension is split) or ``sequence``
            (dimension 1 is). None: replicated for colwise, features for rowwise, sequence for sequence.
        outputs: None: features for colwise, replicated for rowwise, sequence for sequence.
    """

    kind: Kind
    inputs: Layout | None = None
    outputs: Layout | None = None


Plan = Mapping[str, Kind | Split]
"""How to split, by the names of modules; ``*`` stands for any one part of a name: ``blocks.*.mlp.up``."""


def tensor_parallel(module: nn.Module, *, plan: Plan) -> nn.Module:
    """Split layers over all ranks, which then work on the same batch.

    The module is changed in place: the parameters of what is split become DTensors, so that its optimizer must be made
    afterwards, with ``foreach=False`` where some parameters are split and some are not: torch takes no mixture of both
    in one operation (`clip_grad_norm` does). To split over some of the ranks and share the data between the others, use
    `fully_sharded` with a plan. Without a process group the module comes back as it is.

    Args:
        module: With equal weights on all ranks.
        plan: What to split: usually ``colwise`` followed by ``rowwise``, between which no rank needs what others have.

    Raises:
        ValueError: A name in the plan matches no module, or a layer cannot be split so.
    """
    if not is_distributed():
        return module
    apply_plan(module, plan, device_mesh({TENSOR: -1}, device_of(module).type)[TENSOR])
    return module


def apply_plan(module: nn.Module, plan: Plan, mesh: DeviceMesh) -> None:
    """Split layers over a mesh of one dimension.

    Raises:
        ValueError: The plan is empty, a name in it matches no module or one that another matches, or a layer cannot be
            split so.
    """
    from torch.distributed.tensor.parallel import parallelize_module

    styles: dict[str, Kind | Split] = {}
    origin: dict[str, str] = {}
    names = [name for name, _ in module.named_modules() if name]
    if not plan:
        raise ValueError("the plan splits nothing; name at least one module")
    matches = {pattern: [name for name in names if _matches(name, pattern)] for pattern in plan}
    if unmatched := [pattern for pattern, matched in matches.items() if not matched]:
        raise ValueError(
            f"{', '.join(map(repr, unmatched))} in the plan match{'' if unmatched[1:] else 'es'} no module of "
            f"{type(module).__name__}; {_advice(module, unmatched)}"
        )
    for pattern, split in plan.items():
        for name in matches[pattern]:
            if (other := origin.setdefault(name, pattern)) != pattern:
                raise ValueError(f"'{other}' and '{pattern}' in the plan both match '{name}'; let one of them do so")
            styles[name] = split
    for name, split in styles.items():
        layer = module.get_submodule(name)
        _check_layer(name, layer, split, mesh.size())
        try:
            parallelize_module(layer, mesh, _style(split))
        except (NotImplementedError, RuntimeError) as error:
            raise ValueError(f"'{name}', a {type(layer).__name__}, cannot be split: {error}") from error


def _matches(name: str, pattern: str) -> bool:
    parts, patterns = name.split("."), pattern.split(".")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _advice(module: nn.Module, unmatched: Sequence[str]) -> str:
    """Say which patterns would match what can be split."""
    splittable = [name for name, part in module.named_modules() if name and isinstance(part, nn.Linear | nn.Embedding)]
    patterns = list(dict.fromkeys(_NUMBER.sub("*", name) for name in splittable))
    if not patterns:
        return "it has no Linear or Embedding that could be split"
    hint = next(filter(None, (did_you_mean(pattern, [*splittable, *patterns]) for pattern in unmatched)), None)
    more = f" and {len(patterns) - _SHOWN} more" if len(patterns) > _SHOWN else ""
    return f"{f'{hint}; ' if hint else ''}its Linear and Embedding modules are {', '.join(patterns[:_SHOWN])}{more}"


def _check_layer(name: str, layer: nn.Module, split: Kind | Split, ranks: int) -> None:
    """Refuse what torch takes and computes wrongly or fails on in the middle of a step."""
    kind = split.kind if isinstance(split, Split) else split
    if kind == "sequence":
        return
    if not isinstance(layer, nn.Linear | nn.Embedding):
        raise ValueError(
            f"'{name}' is a {type(layer).__name__}; only Linear and Embedding can be split {kind}, name those below it"
        )
    over = 1 - int(kind == "colwise") if isinstance(layer, nn.Linear) else int(kind == "colwise")
    if (size := layer.weight.shape[over]) % ranks:
        raise ValueError(
            f"'{name}' cannot be split {kind}: {size} does not divide by the {ranks} ranks of the tensor dimension"
        )


def _style(split: Kind | Split) -> ParallelStyle:
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, SequenceParallel

    if not isinstance(split, Split):
        split = Split(kind=split)
    if split.kind == "sequence":
        if split.inputs not in {None, "sequence"} or split.outputs not in {None, "sequence"}:
            raise ValueError(
                "inputs and outputs of a layer that is split by sequence are sequence, too; leave them out"
            )
        return SequenceParallel()
    made = ColwiseParallel if split.kind == "colwise" else RowwiseParallel
    return made(input_layouts=_placement(split.inputs), output_layouts=_placement(split.outputs))


def _placement(layout: Layout | None) -> Placement | None:
    from torch.distributed.tensor import Replicate, Shard

    if layout is None:
        return None
    return {"replicated": Replicate(), "features": Shard(-1), "sequence": Shard(1)}[layout]
