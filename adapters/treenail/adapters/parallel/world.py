"""The ranks of this run as a mesh, and which share of the data one of them takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import nn

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

REPLICATE, DATA, TENSOR = "replicate", "data", "tensor"
DIMENSIONS = (REPLICATE, DATA, TENSOR)
"""What a mesh may be made of, outermost first: ranks of one tensor dimension are neighbours, on the fastest links."""


def is_distributed() -> bool:
    """Tell whether torch has a process group."""
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Return how many ranks torch's process group has, 1 without one."""
    return dist.get_world_size() if is_distributed() else 1


def device_of(module: nn.Module) -> torch.device:
    """Return the device that all parameters and buffers of a module are on, the CPU if it has none.

    Raises:
        ValueError: They are on several.
    """
    devices = {tensor.device for tensor in (*module.parameters(), *module.buffers())}
    if len(devices) > 1:
        raise ValueError(
            f"the module is on {', '.join(sorted(map(str, devices)))}; move it to one device before it is parallelised"
        )
    return devices.pop() if devices else torch.device("cpu")


def device_mesh(shape: Mapping[str, int], device_type: str) -> DeviceMesh:
    """Arrange all ranks of the process group in a mesh of named dimensions.

    Args:
        shape: Ranks by dimension: ``data`` (each has its own batch, and parameters may be split over them), ``tensor``
            (layers are split over them; all have the same batch), ``replicate`` (each has its own batch, and a copy of
            what is split over the others). One may be -1: the ranks that are left.
        device_type: Where tensors are: ``"cpu"``, ``"cuda"``.

    Raises:
        ValueError: A dimension is unknown, or their product is not the world size.
        CommunicationError: There is no process group.
    """
    from torch.distributed.device_mesh import init_device_mesh

    from treenail.kernel import CommunicationError, did_you_mean

    if not is_distributed():
        raise CommunicationError(
            "there is no process group to arrange", mend="call torch.distributed.init_process_group first"
        )
    for name, size in shape.items():
        if name not in DIMENSIONS:
            hint = did_you_mean(name, DIMENSIONS) or f"there are {', '.join(DIMENSIONS)}"
            raise ValueError(f"a mesh has no dimension '{name}'; {hint}")
        if size < 1 and size != -1:
            raise ValueError(
                f"the mesh's dimension '{name}' is {size}; give at least 1, or -1 for the ranks that are left"
            )
    world = dist.get_world_size()
    free = [name for name, size in shape.items() if size == -1]
    given = math.prod(size for size in shape.values() if size != -1)
    if len(free) > 1:
        raise ValueError(f"the mesh leaves {' and '.join(free)} open; only one dimension may be -1")
    if not shape or world % given or (not free and world != given):
        described = " x ".join(f"{name} {size}" for name, size in shape.items()) or "nothing"
        raise ValueError(
            f"a mesh of {described} does not fit {world} ranks; make the product {world}, or one dimension -1"
        )
    sizes = {name: world // given if shape[name] == -1 else shape[name] for name in DIMENSIONS if name in shape}
    return init_device_mesh(device_type, tuple(sizes.values()), mesh_dim_names=tuple(sizes))


def data_share(module: nn.Module) -> tuple[int, int]:
    """Return (rank, world_size) among the ranks that take different samples, for a module as it is called in training.

    Ranks of one tensor dimension work on the same batch and therefore have the same share; elsewhere it is torch's rank
    and world size, and (0, 1) without a process group.
    """
    if not is_distributed():
        return 0, 1
    rank, size = dist.get_rank(), dist.get_world_size()
    for parameter in module.parameters():
        mesh: DeviceMesh | None = getattr(parameter, "device_mesh", None)
        names = () if mesh is None else mesh.mesh_dim_names or ()
        if mesh is not None and TENSOR in names:
            tensor = mesh.size(names.index(TENSOR))
            return rank // tensor, size // tensor  # the tensor dimension is the innermost
    return rank, size
