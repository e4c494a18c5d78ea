"""The files of a checkpoint, byte by byte: what their checksums are, and that every damage is found."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from treenail.adapters.checkpoint import CheckpointStore, UnsuitableError, consolidate, snapshot_shards, write_shards
from treenail.adapters.checkpoint.contents import FileDigest, Source, digest_of
from treenail.adapters.checkpoint.manifests import decode_manifest, encode_manifest
from treenail.adapters.checkpoint.sharded import read_whole
from treenail.adapters.checkpoint.state_file import read_state, write_state
from treenail.adapters.files import FilesBelow, LocalFiles, MemoryFiles
from treenail.contracts import FileEntry, Manifest
from treenail.contracts.checkpoint import BLOCK_BYTES, FORMAT_VERSION
from treenail.kernel import Capabilities, CheckpointError, FileBackend


def by_the_book(content: bytes) -> str:
    """Return the digest as the format's page defines it."""
    if len(content) <= BLOCK_BYTES:
        return sha256(content).hexdigest()
    blocks = [content[start : start + BLOCK_BYTES] for start in range(0, len(content), BLOCK_BYTES)]
    return sha256(b"".join(sha256(block).digest() for block in blocks)).hexdigest()


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES])
def test_a_digest_is_that_of_the_format(size: int) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    assert digest_of(content[:size]) == by_the_book(content[:size])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, BLOCK_BYTES), max_size=5))
def test_a_digest_does_not_depend_on_the_pieces(sizes: list[int]) -> None:
    found, whole = FileDigest(), b""
    for number, size in enumerate(sizes):
        piece = bytes([number + 1]) * size
        found.update(piece)
        whole += piece
    assert (found.hexdigest(), found.size) == (by_the_book(whole), len(whole))


class Rangeless(MemoryFiles):
    """A store that cannot read a part of a file."""

    @property
    def capabilities(self) -> Capabilities:
        return super().capabilities._replace(ranges=False)


BACKENDS: dict[str, Callable[[Path], FileBackend]] = {
    "local": LocalFiles,
    "ranges": lambda root: FilesBelow(LocalFiles(root), "below"),  # which tells nobody where its files lie
    "memory": lambda _: MemoryFiles(),
    "whole": lambda _: Rangeless(),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_large_state_comes_back_and_every_damage_is_found(tmp_path: Path, backend: str) -> None:
    files = BACKENDS[backend](tmp_path)
    tensors = {
        "large": torch.arange(BLOCK_BYTES // 2, dtype=torch.int32),  # two blocks of its own
        "odd": torch.tensor([True]),
        "half": torch.rand(3, 5).half(),
        "empty": torch.empty(0, 4),
        "none": torch.tensor(1.5),
    }
    entry = write_state(files, "a", "b", tensors)
    content = files.read("a/b")
    assert (entry.path, entry.size, entry.sha256) == ("b", len(content), by_the_book(content))
    found = read_state(files, "a/b", entry)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    for place in (9, 300, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 1, len(content) - 1):
        files.write("a/b", content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :])
        with pytest.raises(CheckpointError, match=r"checksum|torn") as caught:
            read_state(files, "a/b", entry)
        assert not isinstance(caught.value, UnsuitableError), "another checkpoint cannot stand in for it"
    files.write("a/b", content[:-1])
    with pytest.raises(CheckpointError, match="its manifest says"):
        read_state(files, "a/b", entry)
    with Source(files, "a/b") as source, pytest.raises(CheckpointError, match="torn"):
        source.read(entry.size - 2, [memoryview(bytearray(2))])
    files.delete("a/b")
    with pytest.raises(CheckpointError, match="missing"):
        read_state(files, "a/b", entry)


def test_tensors_that_are_read_have_memory_of_their_own(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    entry = write_state(files, "", "s", {"a": torch.ones(4), "b": torch.ones(4)})
    found = read_state(files, "s", entry)
    found["a"].zero_()
    assert found["b"].eq(1).all()
    assert found["a"].untyped_storage().nbytes() == 16
    assert torch.equal(read_state(files, "s", entry)["a"], torch.ones(4)), "the file was changed"


@pytest.mark.parametrize("offsets", [[(0, 8), (4, 12)], [(0, 8), (12, 20)], [(0, 8), (8, 16)]])
def test_a_header_whose_tensors_overlap_or_leave_gaps_is_refused(
    tmp_path: Path, offsets: list[tuple[int, int]]
) -> None:
    files = LocalFiles(tmp_path)
    names = {
        name: {"dtype": "F32", "shape": [2], "data_offsets": each} for name, each in zip("ab", offsets, strict=True)
    }
    header = msgspec.json.encode(names)
    content = len(header).to_bytes(8, "little") + header + bytes(20)
    files.write("s", content)
    with pytest.raises(CheckpointError, match=r"does not follow|bytes before"):
        read_state(files, "s", FileEntry(path="s", size=len(content), sha256=digest_of(content)))


def test_many_small_tensors_make_one_file(tmp_path: Path) -> None:
    tensors = {f"{number}": torch.full((number % 7,), number, dtype=torch.int16) for number in range(300)}
    files = LocalFiles(tmp_path)
    entry = write_state(files, "a", "b", tensors)
    assert entry.size == files.stat("a/b").size
    for found in (load_file(tmp_path / "a" / "b"), read_state(files, "a/b", entry)):
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_a_large_shard_has_the_digest_of_its_file_and_comes_back(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    tensors = {"weight": torch.arange(BLOCK_BYTES // 4 + 3, dtype=torch.int32), "empty": torch.empty(0)}
    entry = write_shards(snapshot_shards(tensors), files, "step")
    assert entry.sha256 == by_the_book((tmp_path / "step" / entry.path).read_bytes())
    found = read_whole(files, "step")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    whole = consolidate(files, "step", files, "whole")
    assert (whole.size, whole.sha256) == (files.stat("whole").size, by_the_book((tmp_path / "whole").read_bytes()))


def test_every_flipped_bit_of_a_manifest_is_damage(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path), config={"lr": 0.1, "pinned": "0" * 64})
    store.save({"model": {"weight": torch.ones(2)}}, step=1, epoch=0, reason="test", pointers=["latest"])
    path = tmp_path / "step-00000001" / "manifest.json"
    content = bytearray(path.read_bytes())
    assert store.load()[0].config == {"lr": 0.1, "pinned": "0" * 64}
    for place in range(len(content)):
        for bit in (1, 16, 128):
            content[place] ^= bit
            with pytest.raises(CheckpointError) as caught:
                decode_manifest(bytes(content), "here")
            assert not isinstance(caught.value, UnsuitableError), f"byte {place}, bit {bit}: {caught.value}"
            content[place] ^= bit
    path.write_bytes(content.replace(b"0.1", b"0.3"))
    with pytest.raises(CheckpointError, match="the manifest is damaged: its checksum is not its own"):
        store.load()


def test_a_manifest_of_a_later_format_is_told_from_a_damaged_one() -> None:
    manifest = Manifest(
        format_version=FORMAT_VERSION + 1,
        sha256="",
        run="r",
        attempt=1,
        step=1,
        epoch=0,
        reason="test",
        created="2026-03-02T09:14:31+00:00",
        world_size=1,
        files=(),
    )
    content, sealed = encode_manifest(manifest)
    assert sealed.sha256 == sha256(content.replace(sealed.sha256.encode(), b"0" * 64)).hexdigest()
    with pytest.raises(UnsuitableError, match="upgrade treenail"):
        decode_manifest(content, "here")
    with pytest.raises(CheckpointError, match="damaged"):
        decode_manifest(content.replace(b'"r"', b'"s"'), "here")
