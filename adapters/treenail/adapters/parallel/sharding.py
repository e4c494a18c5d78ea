"""Fully sharded data parallelism: each rank keeps its part of every parameter, gradient and optimizer state (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from msgspec import Meta
from torch import nn

from treenail.adapters.parallel.batchnorm import convert_sync_batchnorm
from treenail.adapters.parallel.tensor import Plan, apply_plan
from treenail.adapters.parallel.world import DATA, REPLICATE, TENSOR, device_mesh, device_of, is_distributed
from treenail.kernel import did_you_mean

if TYPE_CHECKING:
    from torch.distributed.fsdp import MixedPrecisionPolicy, OffloadPolicy

FloatType = Literal["float32", "bfloat16", "float16"]
_CONTAINERS = (nn.ModuleList, nn.ModuleDict)  # never called themselves, so that FSDP2 could not gather what they hold


def fully_sharded(
    module: nn.Module,
    *,
    classes: tuple[str, ...] = (),
    min_parameters: Annotated[int, Meta(ge=1)] | None = None,
    reshard_after_forward: bool | None = None,
    param_dtype: FloatType | None = None,
    reduce_dtype: FloatType | None = None,
    cpu_offload: bool = False,
    mesh: Mapping[str, int] | None = None,
    tensor_plan: Plan | None = None,
    sync_batchnorm: bool = False,
) -> nn.Module:
    """Apply torch's FSDP2 (`torch.distributed.fsdp.fully_shard`), with tensor parallelism where a plan is given.

    The module is changed in place and its parameters become DTensors, so that its optimizer must be made afterwards.
    Units are gathered and freed one at a time: the modules that `classes` or `min_parameters` choose, and the module
    itself with all the rest. Without a process group the module comes back as it is, its precision, too.

    Args:
        module: With equal weights on all ranks.
        classes: Names of the classes of modules that are units, such as ``TransformerEncoderLayer``.
        min_parameters: Modules with at least this many parameters outside of units below them are units.
        reshard_after_forward: Free a unit's parameters after its forward pass and gather them again for the backward
            pass; None does so for all but the outermost.
        param_dtype: Of computation and of gathering parameters, which themselves keep theirs; theirs when None.
        reduce_dtype: Of reducing gradients; as `param_dtype` when None.
        cpu_offload: Keep parameters, gradients and optimizer states in the memory of the CPU.
        mesh: Ranks by dimension; one may be -1, the ranks that are left. Parameters are split over ``data``, copied
            over ``replicate`` and split by `tensor_plan` over ``tensor``: ``{data: -1, tensor: 2}``. All ranks are
            ``data`` when None.
        tensor_plan: What is split over ``tensor``, see `tensor_parallel`.
        sync_batchnorm: Batch normalisation over the samples of all ranks, see `convert_sync_batchnorm`.

    Raises:
        ValueError: A class or a name in the plan matches no module; the mesh has no ``data``, does not fit the number
            of ranks, or has ``tensor`` without a plan or the other way round.
    """
    if not is_distributed():
        return module
    from torch.distributed.fsdp import fully_shard

    shape = {DATA: -1} if mesh is None else dict(mesh)
    if DATA not in shape:
        raise ValueError(
            f"the mesh has {', '.join(shape) or 'nothing'}, but no dimension 'data'; or use tensor_parallel"
        )
    if (TENSOR in shape) != (tensor_plan is not None):
        raise ValueError("the mesh's dimension 'tensor' and a tensor_plan need each other; give both or neither")
    units = list(_units(module, classes, min_parameters))
    device = device_of(module)
    ranks = device_mesh(shape, device.type)
    if sync_batchnorm:
        module = convert_sync_batchnorm(module)
    if tensor_plan is not None:
        apply_plan(module, tensor_plan, ranks[TENSOR])
    data_mesh = ranks[REPLICATE, DATA] if REPLICATE in shape else ranks[DATA]
    precision, offload = _precision(param_dtype, reduce_dtype), _offload(cpu_offload, device)
    for unit in (*units, module):
        fully_shard(
            unit,
            mesh=data_mesh,
            reshard_after_forward=reshard_after_forward,
            mp_policy=precision,
            offload_policy=offload,
        )
    return module


def _units(module: nn.Module, classes: tuple[str, ...], min_parameters: int | None) -> Iterator[nn.Module]:
    """Yield the units below a module, those inside of others first."""
    below = [part for part in module.modules() if part is not module]
    known = {type(part).__name__ for part in below}
    for name in classes:
        if name not in known:
            hint = did_you_mean(name, known) or f"there are {', '.join(sorted(known)) or 'none'}"
            raise ValueError(f"{type(module).__name__} has no module of the class '{name}'; {hint}")
        if name in {container.__name__ for container in _CONTAINERS}:
            raise ValueError(f"a {name} is not called itself and cannot be a unit; name the class of what it holds")
    taken: set[int] = set()
    for part in reversed(below):  # modules() comes to a module before what is inside of it
        if isinstance(part, _CONTAINERS):
            continue
        own = {id(parameter): parameter.numel() for parameter in part.parameters() if id(parameter) not in taken}
        large = min_parameters is not None and sum(own.values()) >= min_parameters
        if own and (type(part).__name__ in classes or large):
            taken.update(own)
            yield part


def _precision(param_dtype: FloatType | None, reduce_dtype: FloatType | None) -> MixedPrecisionPolicy:
    from torch.distributed.fsdp import MixedPrecisionPolicy

    dtypes: dict[FloatType | None, torch.dtype | None] = {
        None: None,
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
    }
    return MixedPrecisionPolicy(param_dtype=dtypes[param_dtype], reduce_dtype=dtypes[reduce_dtype])


def _offload(cpu_offload: bool, device: torch.device) -> OffloadPolicy:
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy

    # On the CPU everything is in its memory already.
    return CPUOffloadPolicy() if cpu_offload and device.type != "cpu" else OffloadPolicy()
