"""Checkpoints written by four ranks and read by four, three and two; the test's own process reads them, too."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple, cast

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from tests.parallel.models import STEPS, Net, NormNet, made, optimizer_of, train, whole, whole_state
from tests.parallel.sharded_checks import PLAN
from treenail.adapters.checkpoint import (
    CheckpointStore,
    RankCheckpointer,
    read_shards,
    read_whole,
    snapshot_shards,
    write_shards,
)
from treenail.adapters.checkpoint.parts import take
from treenail.adapters.comm import current_communicator
from treenail.adapters.files import LocalFiles
from treenail.adapters.parallel import bare, data_parallel, data_share, fully_sharded
from treenail.kernel import CheckpointError, StateError

DTYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)
SHAPES = ((), (0,), (1,), (3, 2), (7, 3), (8, 4), (0, 3), (5, 0), (2, 3, 4))


def expected_tensors() -> dict[str, Tensor]:
    """Return tensors of many dtypes and shapes, the same everywhere."""
    generator = torch.Generator().manual_seed(3)
    made: dict[str, Tensor] = {}
    for dtype in DTYPES:
        for shape in SHAPES if dtype in {torch.float32, torch.bfloat16, torch.complex64} else SHAPES[:5]:
            drawn = torch.randn(shape, dtype=torch.complex128, generator=generator) * 100
            name = f"{str(dtype).removeprefix('torch.')}.{'x'.join(map(str, shape))}"
            made[name] = drawn.to(dtype) if dtype.is_complex else drawn.real.to(dtype)
    return made


def _spread(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Lay tensors out on this world in every way there is: in one dimension or two, split, copied, or plain."""
    world = dist.get_world_size()
    line = init_device_mesh("cpu", (world,))
    grid = init_device_mesh("cpu", (2, world // 2) if world % 2 == 0 else (1, world))
    ways = (
        (line, [Shard(0)]),
        (line, [Replicate()]),
        (grid, [Replicate(), Shard(0)]),
        (grid, [Shard(0), Shard(1)]),
        (grid, [Shard(1), Replicate()]),
    )
    spread: dict[str, Tensor] = {}
    for number, (name, tensor) in enumerate(tensors.items()):
        mesh, placements = ways[(number + number // len(ways)) % len(ways)]
        if tensor.dim() >= 2 or (tensor.dim() == 1 and mesh is line):
            spread[name] = distribute_tensor(tensor, mesh, placements, src_data_rank=None)
        elif tensor.dim() == 0 and number % 2:
            spread[name] = distribute_tensor(tensor, line, [Replicate()], src_data_rank=None)
        else:
            spread[name] = tensor.clone()
    return spread


def _save(tensors: dict[str, Tensor], directory: Path) -> None:
    entry = write_shards(snapshot_shards(tensors), LocalFiles(directory.parent), directory.name)
    assert (directory / entry.path).stat().st_size == entry.size
    dist.barrier()


def tensors_of(state: object, path: str = "") -> dict[str, Tensor]:
    """Return the tensors of a state tree by their paths."""
    if isinstance(state, Tensor):
        return {path[1:]: state}
    branches = state.items() if isinstance(state, dict) else ()
    return {name: each for key, branch in branches for name, each in tensors_of(branch, f"{path}/{key}").items()}


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def assert_same_bits(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def save_tensors_of_every_kind(directory: Path) -> None:
    tensors = _spread(expected_tensors())
    for name, tensor in tensors.items():  # what other ranks hold of a plain tensor is not what is saved
        if dist.get_rank() and not isinstance(tensor, DTensor) and tensor.numel():
            tensors[name] = torch.zeros_like(tensor)
    _save(tensors, directory / "kinds")
    read_tensors_of_every_kind(directory)


def read_tensors_of_every_kind(directory: Path) -> None:
    targets = _spread({name: torch.zeros_like(tensor) for name, tensor in expected_tensors().items()})
    read_shards(targets, LocalFiles(directory), "kinds")
    expected = _spread(expected_tensors())  # gloo cannot put every dtype together, so that each rank looks at its parts
    assert_same_bits(*({name: _local(tensor) for name, tensor in tensors.items()} for tensors in (targets, expected)))


class _Run(NamedTuple):
    model: nn.Module
    optimizer: torch.optim.Optimizer

    def state(self) -> dict[str, object]:
        return {"model": bare(self.model).state_dict(), "optimizer": self.optimizer.state_dict()}

    def whole(self) -> dict[str, Tensor]:
        return {name: whole(tensor).clone() for name, tensor in tensors_of(self.state()).items()}

    def save(self, directory: Path) -> None:
        _checkpointer(directory).save(self.state(), step=STEPS, epoch=0, reason="a check", pointers=("latest",))

    def load(self, directory: Path) -> None:
        _, state = _checkpointer(directory).load("latest", {"model": bare(self.model), "optimizer": self.optimizer})
        bare(self.model).load_state_dict(state["model"])  # type: ignore[arg-type]  # a mapping
        self.optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]  # a mapping


def _checkpointer(directory: Path) -> RankCheckpointer:
    return RankCheckpointer(CheckpointStore(LocalFiles(directory)), current_communicator())


def _sharded_run(seed: int, mesh: dict[str, int] | None = None) -> _Run:
    plan = None if mesh is None else PLAN
    module = fully_sharded(made(Net, seed), classes=("Block",), mesh=mesh, tensor_plan=plan)
    run = _Run(module, optimizer_of(module))
    if seed == 0:
        train(module, run.optimizer, data_share(module))
    return run


def save_a_training_run(directory: Path) -> None:
    for name, mesh in (("line", None), ("grid", {"data": 2, "tensor": 2})):
        run = _sharded_run(0, mesh)
        run.save(directory / name)
        tensors = run.whole()
        if dist.get_rank() == 0:
            torch.save(tensors, directory / f"{name}.pt")
        dist.barrier()


def _expected(directory: Path, name: str) -> dict[str, Tensor]:
    return cast("dict[str, Tensor]", torch.load(directory / f"{name}.pt", weights_only=True))


class Tiny(Net):
    """Of which most ranks have nothing."""

    def __init__(self) -> None:
        super().__init__(1)


def tensors_smaller_than_the_mesh_are_saved_whole(directory: Path) -> None:
    mesh = {"data": 2, "tensor": 2}
    module, other = (fully_sharded(made(Tiny, seed), mesh=mesh, tensor_plan=PLAN) for seed in (0, 1))
    _save(dict(module.state_dict()), directory / "tiny")
    if dist.get_rank() == 0:
        assert_same_bits(read_whole(LocalFiles(directory), "tiny"), dict(made(Tiny).state_dict()))
    read_shards(dict(other.state_dict()), LocalFiles(directory), "tiny")
    assert_same_bits(whole_state(other), dict(made(Tiny).state_dict()))


def a_training_run_goes_on_elsewhere(directory: Path) -> None:
    meshes = [None, {"data": -1, "tensor": 2}] if dist.get_world_size() % 2 == 0 else [None]
    for name in ("line", "grid"):
        for mesh in meshes:
            run = _sharded_run(1, mesh)
            run.load(directory / name)
            assert_same_bits(run.whole(), _expected(directory, name))


def data_parallel_goes_on_from_shards(directory: Path) -> None:
    module = data_parallel(made(Net, seed=1))
    run = _Run(module, optimizer_of(module))
    run.load(directory / "line")
    assert_same_bits(run.whole(), _expected(directory, "line"))


def a_group_of_one_saves_what_it_shards(directory: Path) -> None:
    run = _sharded_run(0)
    run.save(directory / "one")
    assert [path.name for path in (directory / "one").glob("*/shard-*")] == ["shard-00001-of-00001.safetensors"]
    again = _sharded_run(1)
    again.load(directory / "one")
    assert_same_bits(again.whole(), run.whole())


def damage_is_told_on_every_rank_and_names_the_tensor(directory: Path) -> None:
    rank, damaged = dist.get_rank(), directory / f"damaged-{dist.get_world_size()}"
    if rank == 0:
        shutil.copytree(directory / "line", damaged)
    dist.barrier()
    shard = max(damaged.glob("*/shard-*"))
    content = shard.read_bytes()
    run = _sharded_run(1)
    for made_of_it, message in (
        (content[:-1], r"torn: of '(model|optimizer)/.*' \d+ of \d+ bytes are there"),
        (content[:4], "no header"),
        (content[:100], "header is torn"),
        (content[:-1] + bytes([content[-1] ^ 1]), "checksum of '(model|optimizer)/"),
        (None, "1 of 4 shards are missing, such as shard-00004-of-00004"),
    ):
        dist.barrier()
        if rank == 0:
            shard.unlink() if made_of_it is None else shard.write_bytes(made_of_it)
        dist.barrier()
        with pytest.raises(CheckpointError, match=message):
            run.load(damaged)


def a_checkpoint_of_another_model_is_refused_and_changes_nothing(directory: Path) -> None:
    run = _sharded_run(1)
    run.load(directory / "line")
    before = run.whole()
    _, shards = take(run.state())
    renamed = {name.replace("head", "haed"): tensor for name, tensor in shards.items()}
    without = {name: tensor for name, tensor in shards.items() if "head" not in name}
    wider = {**shards, "model/norm.bias": torch.zeros(6, dtype=torch.float64)}
    narrower = {**shards, "model/norm.bias": torch.zeros(5)}
    for tensors, message in (
        (renamed, "no tensor 'model/haed.weight'; did you mean 'model/head.weight'|no tensor 'model/haed"),
        (without, "has the tensor 'model/head.bias' and .* more, for which there is no place"),
        (
            wider,
            r"'model/norm.bias' is torch.float64 of shape \[5\] in the checkpoint, torch.float64 of shape \[6\] here",
        ),
        (narrower, "torch.float32 of shape"),
    ):
        with pytest.raises(CheckpointError, match=message):
            read_shards(tensors, LocalFiles(directory / "line"), f"step-{STEPS:08d}")
    assert_same_bits(run.whole(), before)
    module = fully_sharded(made(NormNet))
    other = _Run(module, optimizer_of(module))
    with pytest.raises(StateError, match=r"the run has no place for model/"):
        other.load(directory / "line")


def what_cannot_be_saved_is_told_on_every_rank(_: Path) -> None:
    tensors = {"sparse": torch.eye(2).to_sparse()}
    with pytest.raises(CheckpointError, match="sparse: a tensor of layout"):
        snapshot_shards(tensors)


ALONE = (a_group_of_one_saves_what_it_shards,)
SAVE = (save_tensors_of_every_kind, save_a_training_run, tensors_smaller_than_the_mesh_are_saved_whole)
READ = (read_tensors_of_every_kind, a_training_run_goes_on_elsewhere)
REFUSE = (
    data_parallel_goes_on_from_shards,
    damage_is_told_on_every_rank_and_names_the_tensor,
    a_checkpoint_of_another_model_is_refused_and_changes_nothing,
    what_cannot_be_saved_is_told_on_every_rank,
)
