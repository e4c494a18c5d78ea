"""Model parallelism and sharded checkpoints in worlds of four, two and three real processes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.parallel import checkpoint_checks, data_checks, sharded_checks
from tests.parallel.checkpoint_checks import assert_same_bits, expected_tensors, tensors_of
from tests.parallel.worlds import Check, name_of, once, run_worlds, shared_directory
from treenail.adapters.checkpoint import CheckpointStore, consolidate, read_shards, read_whole
from treenail.adapters.cli import main
from treenail.adapters.files import LocalFiles

WORLDS: tuple[tuple[int, tuple[Check, ...]], ...] = (
    (4, (*sharded_checks.ON_FOUR, *checkpoint_checks.SAVE)),
    (2, (*data_checks.CHECKS, *sharded_checks.ON_TWO, *checkpoint_checks.READ, *checkpoint_checks.REFUSE)),
    (3, checkpoint_checks.READ),
    (1, (*sharded_checks.ALONE, *checkpoint_checks.ALONE, *checkpoint_checks.READ)),
)
NAMES = [name_of(world_size, check) for world_size, checks in WORLDS for check in checks]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    return shared_directory("parallel-worlds", tmp_path_factory, request)


@pytest.fixture(scope="session")
def failures(shared: Path) -> dict[str, str]:
    return once(shared, lambda: run_worlds(WORLDS, shared))


@pytest.mark.parametrize("name", NAMES)
def test_in_a_world_of(name: str, failures: dict[str, str]) -> None:
    if text := failures.get(name) or failures.get("all"):
        pytest.fail(text, pytrace=False)


@pytest.mark.usefixtures("failures")
def test_one_process_reads_what_four_ranks_wrote(shared: Path) -> None:
    files = LocalFiles(shared)
    assert_same_bits(read_whole(files, "kinds"), expected_tensors())
    targets = {name: torch.zeros_like(tensor) for name, tensor in expected_tensors().items()}
    read_shards(targets, files, "kinds")
    assert_same_bits(targets, expected_tensors())
    for name in ("line", "grid"):
        _, state = CheckpointStore(LocalFiles(shared / name)).load()
        assert_same_bits(tensors_of(state), torch.load(shared / f"{name}.pt", weights_only=True))


@pytest.mark.usefixtures("failures")
def test_shards_consolidate_to_a_file_that_safetensors_reads(shared: Path, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    entry = consolidate(LocalFiles(shared), "kinds", LocalFiles(tmp_path), "out/model.safetensors")
    assert entry.size == (tmp_path / "out" / entry.path).stat().st_size
    loaded = safetensors.load_file(tmp_path / "out" / "model.safetensors")
    expected = expected_tensors()
    assert_same_bits(
        {name: torch.view_as_complex(t) if expected[name].is_complex() else t for name, t in loaded.items()}, expected
    )


@pytest.mark.usefixtures("failures")
def test_nothing_in_a_sharded_checkpoint_is_pickled_and_each_part_is_there_once(shared: Path) -> None:
    files = sorted((shared / "kinds").iterdir())
    assert [file.name for file in files] == [f"shard-{rank:05d}-of-00004.safetensors" for rank in range(1, 5)]
    headers = [int.from_bytes(file.read_bytes()[:8], "little") + 8 for file in files]
    stored = sum(file.stat().st_size - header for file, header in zip(files, headers, strict=True))
    assert stored == sum(tensor.nbytes for tensor in expected_tensors().values())


@pytest.mark.usefixtures("failures")
def test_torch_reads_our_shards(shared: Path) -> None:
    pytest.importorskip("safetensors.torch")
    dcp = pytest.importorskip("torch.distributed.checkpoint")
    (directory,) = (shared / "line").glob("step-*")
    expected = read_whole(LocalFiles(directory))
    targets = {name: torch.zeros_like(tensor) for name, tensor in expected.items() if tensor.dim()}
    with pytest.warns(UserWarning, match="single process"):
        dcp.load(targets, storage_reader=dcp.HuggingFaceStorageReader(str(directory)))
    assert_same_bits(targets, {name: expected[name] for name in targets})


@pytest.mark.usefixtures("failures")
@pytest.mark.parametrize("name", ["line", "grid"])
def test_the_command_consolidates_what_ranks_have_saved(shared: Path, tmp_path: Path, name: str) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    out = tmp_path / "all.safetensors"
    assert main(["consolidate", str(shared / name / "latest"), "--out", str(out)]) == 0
    assert_same_bits(safetensors.load_file(out), torch.load(shared / f"{name}.pt", weights_only=True))
    shutil.copytree(shared / name, tmp_path / name)
    next((tmp_path / name).glob("*/shard-00003-*")).unlink()
    assert main(["consolidate", str(tmp_path / name / "latest"), "--out", str(out), "--force"]) == 2
    assert_same_bits(safetensors.load_file(out), torch.load(shared / f"{name}.pt", weights_only=True))
