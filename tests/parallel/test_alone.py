"""One process: ways of parallelising change nothing, and what wrappers, normalisation and sharded files promise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

from tests.parallel.models import Gan, NormNet, made
from treenail.adapters.checkpoint import consolidate, read_shards, read_whole, snapshot_shards, write_shards
from treenail.adapters.config.structs import struct_of
from treenail.adapters.files import LocalFiles
from treenail.adapters.parallel import (
    BatchNorm,
    SyncBatchNorm,
    bare,
    convert_sync_batchnorm,
    data_parallel,
    data_share,
    device_mesh,
    fully_sharded,
    revert_sync_batchnorm,
    separate_data_parallel,
    tensor_parallel,
    without_gradient_sync,
)
from treenail.kernel import CheckpointError, CommunicationError

WAYS: tuple[Callable[[nn.Module], nn.Module], ...] = (
    lambda module: data_parallel(module, static_graph=True, sync_batchnorm=True),
    lambda module: separate_data_parallel(module, modules=("nowhere",)),
    lambda module: fully_sharded(
        module, classes=("Nothing",), mesh={"data": 2, "tensor": 2}, tensor_plan={"x": "colwise"}
    ),
    lambda module: tensor_parallel(module, plan={"x": "rowwise"}),
)


@pytest.mark.parametrize("way", WAYS)
def test_without_a_process_group_the_module_comes_back_as_it_is(way: Callable[[nn.Module], nn.Module]) -> None:
    module = made(NormNet)
    kinds = [type(part) for part in module.modules()]
    assert way(module) is module
    assert [type(part) for part in module.modules()] == kinds
    assert bare(module) is module
    assert data_share(module) == (0, 1)
    with without_gradient_sync(module):
        module(torch.ones(2, 2, 4, 4).double()).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_a_mesh_needs_a_process_group() -> None:
    with pytest.raises(CommunicationError, match="no process group"):
        device_mesh({"data": 2}, "cpu")


@pytest.mark.parametrize(
    ("way", "config"),
    [
        (data_parallel, {"static_graph": True, "bucket_cap_mb": 50, "find_unused_parameters": False}),
        (separate_data_parallel, {"modules": ["generator", "discriminator"]}),
        (
            fully_sharded,
            {
                "classes": ["Block"],
                "min_parameters": 1000000,
                "param_dtype": "bfloat16",
                "mesh": {"data": -1, "tensor": 2},
                "tensor_plan": {"blocks.*.up": "colwise", "head": {"kind": "rowwise", "inputs": "replicated"}},
            },
        ),
        (tensor_parallel, {"plan": {"blocks.*.up": "colwise"}}),
    ],
)
def test_signatures_are_config_schemas(way: Callable[..., nn.Module], config: dict[str, object]) -> None:
    fields = msgspec.structs.asdict(msgspec.convert(config, struct_of(way, awaited=1)))
    found = json.loads(msgspec.json.encode({name: fields[name] for name in config}))
    head = {"head": {"kind": "rowwise", "inputs": "replicated", "outputs": None}}
    assert found == {k: {**v, **head} if isinstance(v, dict) and "head" in v else v for k, v in config.items()}


@pytest.mark.parametrize(
    ("way", "config", "message"),
    [
        (data_parallel, {"bucket_cap_mb": 0}, "Expected `float` > 0.0 - at `$.bucket_cap_mb`"),
        (data_parallel, {"module": "x"}, "unknown field `module`"),
        (fully_sharded, {"param_dtype": "int8"}, "Invalid enum value 'int8' - at `$.param_dtype`"),
        (fully_sharded, {"min_parameters": 0}, "Expected `int` >= 1"),
        (tensor_parallel, {}, "missing required field `plan`"),
        (tensor_parallel, {"plan": {"a": {"kind": "rowwise", "input": "x"}}}, "unknown field `input`"),
    ],
)
def test_a_wrong_config_is_an_error_of_the_schema(
    way: Callable[..., nn.Module], config: dict[str, object], message: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(config, struct_of(way, awaited=1))
    assert message in str(caught.value)


def _in_parallel(module: nn.Module) -> nn.Module:
    return nn.DataParallel(module)


def test_bare_finds_the_module_below_torchs_wrappers() -> None:
    module = Gan()
    assert bare(torch.compile(module, backend="eager")) is module  # type: ignore[arg-type]  # typed as what it wraps
    assert bare(_in_parallel(module)) is module
    inside = nn.ModuleDict({"a": _in_parallel(module.generator), "b": _in_parallel(module.generator)})
    found = bare(inside)
    assert list(found.state_dict()) == [f"{name}.{key}" for name in "ab" for key in module.generator.state_dict()]
    assert found.get_submodule("a") is found.get_submodule("b") is module.generator
    assert isinstance(inside["a"], nn.DataParallel)


class Odd(nn.BatchNorm1d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        return 2 * super().forward(input)


LAYERS = (
    nn.BatchNorm1d(3),
    nn.BatchNorm2d(3, eps=1e-3, momentum=None),
    nn.BatchNorm3d(3, affine=False),
    nn.BatchNorm2d(3, track_running_stats=False),
    nn.BatchNorm1d(3).eval(),
)


@pytest.mark.parametrize("layer", LAYERS)
def test_converting_and_reverting_leaves_everything_as_it_was(layer: nn.Module) -> None:
    fired: list[int] = []
    layer.register_forward_hook(lambda *_: fired.append(1))
    module = nn.Sequential(nn.Linear(3, 3), nn.ModuleList([layer, layer]))
    kind, before = type(layer), dict(vars(layer))
    tensors = {name: (tensor, tensor.clone()) for name, tensor in layer.state_dict(keep_vars=True).items()}
    assert convert_sync_batchnorm(module) is module
    assert isinstance(layer, SyncBatchNorm)
    assert convert_sync_batchnorm(module).get_submodule("1.0") is layer
    assert module.get_submodule("1.1") is layer
    assert revert_sync_batchnorm(module) is module
    assert type(layer) is kind
    assert vars(layer).keys() == before.keys()
    assert all(value is before[name] for name, value in vars(layer).items())
    for name, tensor in layer.state_dict(keep_vars=True).items():
        assert tensor is tensors[name][0]
        assert torch.equal(tensor, tensors[name][1])
    layer(torch.ones(2, 3, *[2] * int(kind.__name__[-2])))
    assert fired


@pytest.mark.parametrize("layer", LAYERS)
def test_converted_it_normalises_in_one_process_as_before(layer: nn.Module) -> None:
    kind = type(layer)
    inputs = torch.randn(4, 3, *[2] * int(kind.__name__[-2]))
    plain, synced = (kind(3, momentum=layer.momentum).train(layer.training) for _ in range(2))
    convert_sync_batchnorm(synced)
    assert torch.equal(synced(inputs), plain(inputs))
    assert all(torch.equal(a, b) for a, b in zip(synced.buffers(), plain.buffers(), strict=True))


def test_torchs_own_synced_normalisation_reverts_to_one_of_any_dimension() -> None:
    layer = revert_sync_batchnorm(nn.SyncBatchNorm(3))
    assert type(layer) is BatchNorm
    for dims in (0, 1, 2, 3):
        assert layer(torch.randn(4, 3, *[2] * dims)).shape == (4, 3, *[2] * dims)
    with pytest.raises(ValueError, match=r"shape \[N, C, …\], got \[3\]"):
        layer(torch.ones(3))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Odd(3), "'1' is a Odd with a forward of its own"),
        (nn.LazyBatchNorm1d(), "'1' is a LazyBatchNorm1d without a size"),
    ],
)
def test_normalisation_that_cannot_be_synced_is_refused_and_nothing_changed(layer: nn.Module, message: str) -> None:
    module = nn.Sequential(nn.BatchNorm1d(3), layer)
    with pytest.raises(ValueError, match=message):
        convert_sync_batchnorm(module)
    assert type(module[0]) is nn.BatchNorm1d


def _saved(directory: Path, **tensors: Tensor) -> LocalFiles:
    files = LocalFiles(directory)
    write_shards(snapshot_shards(tensors), files, "step")
    return files


def test_a_snapshot_shares_nothing_with_the_training(tmp_path: Path) -> None:
    weight = torch.arange(6.0).view(2, 3).t()
    taken = snapshot_shards({"weight": weight})
    weight.zero_()
    entry = write_shards(taken, LocalFiles(tmp_path))
    assert entry.path == "shard-00001-of-00001.safetensors"
    assert torch.equal(read_whole(LocalFiles(tmp_path))["weight"], torch.arange(6.0).view(2, 3).t())


def test_strides_and_gradients_of_what_is_filled_stay(tmp_path: Path) -> None:
    files = _saved(tmp_path, image=torch.arange(24.0).view(1, 2, 3, 4))
    target = nn.Parameter(torch.zeros(1, 2, 3, 4).to(memory_format=torch.channels_last))
    read_shards({"image": target}, files, "step")
    assert target.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(target, torch.arange(24.0).view(1, 2, 3, 4))


def _edit_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:  # Any: JSON of any form
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    own = json.loads(header["__metadata__"]["treenail_shard"])
    change(own)
    header["__metadata__"]["treenail_shard"] = json.dumps(own)
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content[8 + length :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own: own.update(version=2), "the shard has version 2, this Treenail reads 1"),
        (lambda own: own["chunks"].pop("a"), "contradicts itself about 'a'"),
        (lambda own: own["chunks"]["a"].update(offsets=[1, 0]), "contradicts itself about 'a'"),
        (lambda own: own["chunks"]["a"].update(shape=[3, 2]), "of 'a' 4 of 6 elements are there"),
        (lambda own: own["chunks"]["a"].update(sha256="0"), "the checksum of 'a' is not that of its header"),
        (lambda own: own.pop("rank"), "torn or not ours"),
    ],
)
def test_a_header_that_is_wrong_is_told(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    files = _saved(tmp_path, a=torch.ones(2, 2))
    _edit_header(tmp_path / "step" / "shard-00001-of-00001.safetensors", change)
    with pytest.raises(CheckpointError, match=message):
        read_whole(files, "step")
    with pytest.raises(CheckpointError, match=message):
        read_shards({"a": torch.ones(2, 2)}, files, "step")
    with pytest.raises(CheckpointError, match=message):
        consolidate(files, "step", LocalFiles(tmp_path), "whole.safetensors")
    assert not (tmp_path / "whole.safetensors").exists()


def test_a_directory_that_is_no_sharded_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there are no shards"):
        read_whole(LocalFiles(tmp_path), "step")
    files = _saved(tmp_path, a=torch.ones(2))
    shard = tmp_path / "step" / "shard-00001-of-00001.safetensors"
    (tmp_path / "step" / "shard-00001-of-00002.safetensors").write_bytes(shard.read_bytes())
    with pytest.raises(CheckpointError, match="shards of 1 and of 2 ranks"):
        read_whole(files, "step")
    shard.unlink()
    with pytest.raises(CheckpointError, match="1 of 2 shards are missing, such as shard-00002-of-00002"):
        read_whole(files, "step")


def test_a_shard_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "step").write_text("a file where the directory belongs")
    with pytest.raises(CheckpointError, match="could not be written"):
        _saved(tmp_path, a=torch.ones(2))
