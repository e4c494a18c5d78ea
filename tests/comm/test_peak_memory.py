"""How much memory gathering takes on the rank that receives, measured in processes of their own."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.comm.pool import ProcessPool
from treenail.adapters.comm.samples import gather_sample_chunks, gather_samples
from treenail.adapters.comm.structures import gather_data
from treenail.kernel import Communicator

MIB = 2**20
SIZE = 64 * MIB
ROWS, WIDTH = 16384, 1024  # of 4 bytes: SIZE
CHUNK = 12 * MIB
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux's /proc"
)


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPool]:
    made = ProcessPool(2)
    yield made
    made.close()


class Peak:
    """How far the memory of this process rises above what it is at first."""

    def __enter__(self) -> Peak:
        gc.collect()
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_MMAP_THRESHOLD, MIB)  # what is larger goes back when it is freed, whatever was allocated before
        libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        self._before = _status("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.rise = _status("VmHWM") - self._before


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"/proc/self/status has no {name}")


def gathering(communicator: Communicator, how: str) -> tuple[int, float]:
    """Gather 64 MiB that are spread unevenly; returns by how many bytes the memory rose, and the sum of what came."""
    rows = ROWS // 4 * (3 if communicator.rank == 0 else 1)
    tensor = torch.ones(rows, WIDTH)
    data = {"tensor": tensor, "dict": dict(enumerate(tensor.chunk(16))), "list": list(torch.split(tensor, 40))}[how]
    with Peak() as peak:
        found = gather_data(communicator, data)
    parts = [] if found is None else [found] if how == "tensor" else list(found.values() if how == "dict" else found)
    return peak.rise, sum(float(part.sum()) for part in parts)


@pytest.mark.parametrize("how", ["tensor", "dict", "list"])
def test_gathering_takes_at_most_two_and_a_bit_times_the_result(pool: ProcessPool, how: str) -> None:
    (rise, total), _ = pool.run(2, gathering, [how] * 2)
    assert total == ROWS * WIDTH
    assert 0.9 * SIZE < rise <= 2.2 * SIZE, f"{rise / SIZE:.2f} times the result"


def piecewise(communicator: Communicator, in_pieces: bool) -> tuple[int, float, int]:
    """Gather 64 MiB of samples; returns by how many bytes the memory rose, and the sum and number of what came."""
    mine = list(range(communicator.rank, ROWS, 2))
    data = {"logits": torch.ones(len(mine), WIDTH)}
    total, count = 0.0, 0
    for _ in gather_sample_chunks(communicator, {"logits": torch.ones(3, WIDTH)}, [0, 2, 1], chunk_bytes=CHUNK):
        pass  # so that what is loaded when it is first used is not counted
    with Peak() as peak:
        if in_pieces:
            for piece in gather_sample_chunks(communicator, data, mine, chunk_bytes=CHUNK, size=ROWS):
                total += float(piece.values["logits"].sum())
                count += 1
                del piece  # or it is kept while the next one comes
        elif (found := gather_samples(communicator, data, mine, size=ROWS)) is not None:
            total, count = float(found.values["logits"].sum()), 1
    return peak.rise, total, count


def test_pieces_take_no_more_memory_than_was_asked(pool: ProcessPool) -> None:
    (rise, total, count), (other, *_) = pool.run(2, piecewise, [True] * 2)
    assert total == ROWS * WIDTH
    assert count == 16
    overhead = 100 * ROWS + MIB  # what is known of each sample, and the interpreter's own
    assert rise <= CHUNK + overhead, f"{rise / MIB:.1f} MiB"
    assert other <= CHUNK + overhead, f"{other / MIB:.1f} MiB"
    (whole, total, _), _ = pool.run(2, piecewise, [False] * 2)
    assert total == ROWS * WIDTH
    assert SIZE < whole <= 2.2 * SIZE, f"{whole / SIZE:.2f} times the result"
