"""Data parallelism: each rank has the whole model and its share of a batch; gradients are averaged over the ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from treenail.adapters.parallel.batchnorm import convert_sync_batchnorm
from treenail.adapters.parallel.world import device_of, world_size
from treenail.kernel import did_you_mean

BucketSize = Annotated[float, Meta(gt=0)]


def data_parallel(
    module: nn.Module,
    *,
    find_unused_parameters: bool = False,
    static_graph: bool = False,
    gradient_as_bucket_view: bool = True,
    broadcast_buffers: bool = True,
    bucket_cap_mb: BucketSize | None = None,
    sync_batchnorm: bool = False,
) -> nn.Module:
    """Wrap a module in torch's DistributedDataParallel.

    Where there is nothing to do, the module comes back as it is: without a process group, alone in it, and when no
    parameter of the module is trained.

    Args:
        module: On the device where it is trained.
        find_unused_parameters: Look in each step for parameters that the loss does not depend on. Without it such a
            parameter is an error in the next step.
        static_graph: The same parameters are used in the same way in every step, which lets torch order the buckets
            best and allows checkpointed activations.
        gradient_as_bucket_view: Gradients lie in the buckets that are communicated, which saves a copy of them.
        broadcast_buffers: Buffers of rank 0, such as running statistics, replace those of the other ranks before each
            forward pass.
        bucket_cap_mb: Size of a bucket in MiB; None: 25, but for a small first one, so that reducing begins early.
        sync_batchnorm: Batch normalisation over the samples of all ranks, see `convert_sync_batchnorm`.

    Raises:
        ValueError: The module lies on several devices.
    """
    if world_size() == 1 or not is_trained(module):
        return module
    if sync_batchnorm:
        module = convert_sync_batchnorm(module)
    device = device_of(module)
    wrapped = DistributedDataParallel(
        module,
        device_ids=None if device.type == "cpu" else [device],
        find_unused_parameters=find_unused_parameters,
        static_graph=static_graph,
        gradient_as_bucket_view=gradient_as_bucket_view,
        bucket_cap_mb=bucket_cap_mb,
    )
    wrapped.broadcast_buffers = broadcast_buffers  # as an argument its name changed with torch 2.13
    return wrapped


def separate_data_parallel(
    module: nn.Module,
    *,
    modules: tuple[str, ...] = (),
    find_unused_parameters: bool = False,
    static_graph: bool = False,
    gradient_as_bucket_view: bool = True,
    broadcast_buffers: bool = False,
    bucket_cap_mb: BucketSize | None = None,
    sync_batchnorm: bool = False,
) -> nn.Module:
    """Wrap parts of a module that are optimised in turn, such as generator and discriminator, each for itself.

    The module stays what it is and only its parts are replaced, so that its attributes, its methods and
    `module.part(x)` work as before. What is not trained is not wrapped. Without a process group, or alone in it,
    nothing is.

    Args:
        module: Its parameters all belong to the parts.
        modules: Names of the parts, such as ``generator`` or ``nets.critic``; the direct children where empty.
        find_unused_parameters: As for `data_parallel`.
        static_graph: As for `data_parallel`.
        gradient_as_bucket_view: As for `data_parallel`.
        broadcast_buffers: As for `data_parallel`. A part that is called twice before a backward pass, as a
            discriminator is with real and generated samples, needs False when it has buffers.
        bucket_cap_mb: As for `data_parallel`.
        sync_batchnorm: As for `data_parallel`.

    Raises:
        ValueError: There is no such part; one lies in another; parts share a parameter; a trained parameter lies in
            none of them, so that ranks would train it apart; or a part lies on several devices.
    """
    if world_size() == 1:
        return module
    parts = dict(_parts(module, modules))
    _check_parts(module, parts)
    for name, part in parts.items():
        owner, _, attribute = name.rpartition(".")
        wrapped = data_parallel(
            part,
            find_unused_parameters=find_unused_parameters,
            static_graph=static_graph,
            gradient_as_bucket_view=gradient_as_bucket_view,
            broadcast_buffers=broadcast_buffers,
            bucket_cap_mb=bucket_cap_mb,
            sync_batchnorm=sync_batchnorm,
        )
        module.get_submodule(owner)._modules[attribute] = wrapped
    return module


def is_trained(module: nn.Module) -> bool:
    """Tell whether any parameter of a module gets a gradient."""
    return any(parameter.requires_grad for parameter in module.parameters())


def _parts(module: nn.Module, names: tuple[str, ...]) -> Iterator[tuple[str, nn.Module]]:
    if not names:
        yield from module.named_children()
        return
    known = {name: part for name, part in module.named_modules(remove_duplicate=False) if name}
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f"its children are {', '.join(dict(module.named_children())) or 'none'}"
            raise ValueError(f"{type(module).__name__} has no module '{name}'; {hint}")
        inside = next((other for other in names if name.startswith(f"{other}.")), None)
        if inside is not None:
            raise ValueError(f"the module '{name}' lies in '{inside}'; name one of them")
        yield name, known[name]


def _check_parts(module: nn.Module, parts: dict[str, nn.Module]) -> None:
    owners: dict[int, str] = {}
    for name, part in parts.items():
        for below, parameter in part.named_parameters():
            if not parameter.requires_grad:
                continue
            if (other := owners.setdefault(id(parameter), name)) != name:
                raise ValueError(
                    f"'{other}' and '{name}' share the parameter '{name}.{below}', whose gradient would be averaged twice; "
                    "name a module that holds both, or let each have its own"
                )
    outside = [
        name for name, parameter in module.named_parameters() if parameter.requires_grad and id(parameter) not in owners
    ]
    if outside:
        owner = outside[0].rpartition(".")[0]
        above = not owner or any(part.startswith(f"{owner}.") for part in parts)
        raise ValueError(
            f"the parameter '{outside[0]}'{f' and {len(outside) - 1} more' if outside[1:] else ''} of {type(module).__name__} "
            f"lies in none of the parts {', '.join(parts) or '(there are none)'}, and ranks would train it apart; "
            f"{'let it be a parameter of a part, used in the forward pass of that' if above else 'name its module, too'}"
        )
