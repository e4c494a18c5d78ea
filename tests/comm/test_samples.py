"""What ranks computed for samples comes together in the order of the dataset, each sample once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.comm.worlds import on_ranks, refusal, same
from treenail.adapters.comm.samples import Samples, all_gather_samples, gather_sample_chunks, gather_samples
from treenail.adapters.sampling import SampleIndex, SequentialSampler, Shard
from treenail.kernel import Communicator

Data = dict[str, Any]


def computed(indices: list[int]) -> Data:
    """Return what a model computes for samples: some of everything."""
    numbers = torch.tensor([int(index) for index in indices], dtype=torch.int64)
    return {
        "logits": torch.stack([numbers, numbers * 10], dim=1).to(torch.bfloat16).requires_grad_(),
        "correct": numbers % 2 == 0,
        "boxes": [{"image": int(index), "boxes": torch.full((int(index) % 3, 4), int(index))} for index in indices],
        "deep": (np.array([int(index) for index in indices], dtype=np.int16), [str(int(index)) for index in indices]),
    }


def right(found: Samples[Data] | None, indices: list[int]) -> bool:
    expected = computed(indices)
    expected["logits"] = expected["logits"].detach()
    assert found is not None
    return same(found.indices, torch.tensor(indices, dtype=torch.int64)) and same(found.values, expected)


@given(
    shares=st.lists(st.lists(st.integers(0, 30), max_size=12), min_size=1, max_size=5),
    root=st.integers(0, 4),
    chunk_bytes=st.integers(1, 4000),
)
@settings(deadline=None, max_examples=25)
def test_any_shares_give_the_dataset_in_order(shares: list[list[int]], root: int, chunk_bytes: int) -> None:
    world_size, root = len(shares), root % len(shares)
    everything = sorted({index for share in shares for index in share})

    def program(communicator: Communicator) -> list[int]:
        mine = shares[communicator.rank]
        found = gather_samples(communicator, computed(mine), mine, root)
        assert found is None if communicator.rank != root else right(found, everything)
        assert right(
            all_gather_samples(communicator, computed(mine), torch.tensor(mine, dtype=torch.int32)), everything
        )
        pieces = list(gather_sample_chunks(communicator, computed(mine), mine, root, chunk_bytes=chunk_bytes))
        told = [piece.indices.tolist() for piece in pieces]
        assert all(right(piece, indices) for piece, indices in zip(pieces, told, strict=True))
        return [index for indices in told for index in indices]

    results = on_ranks(world_size, program)
    assert results == [everything if rank == root else [] for rank in range(world_size)]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [0, 1, 2, 7, 10])
def test_padding_of_a_sampler_is_left_out(world_size: int, size: int) -> None:
    def program(communicator: Communicator) -> Samples[Data]:
        mine = list(Shard(SequentialSampler(size), communicator.rank, world_size, marked=True))
        assert len(mine) == -(-size // world_size)
        return all_gather_samples(communicator, computed(mine), mine, size=size)

    assert all(right(found, list(range(size))) for found in on_ranks(world_size, program))


def test_a_sample_is_taken_from_where_it_is_no_padding() -> None:
    def program(communicator: Communicator) -> Samples[Tensor]:
        # Rank 0 has sample 1 as padding only; its value there is another one, so that it shows which was taken.
        mine = [SampleIndex(0, 0), SampleIndex(1, 0, padding=True)] if communicator.rank == 0 else [SampleIndex(1, 0)]
        return all_gather_samples(communicator, torch.full((len(mine),), float(communicator.rank)), mine)

    for found in on_ranks(2, program):
        assert found.values.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (0.5, "a float is no value for each of 2 samples"),
        ({"loss": torch.tensor(0.5)}, "loss: a tensor without a dimension is no value for each of 2 samples"),
        ({"a": ({"loss": 0.5}, [1, 2])}, "a[0].loss: a float is no value for each of 2 samples"),
        ({"name": "ab"}, "name: a str is no value"),
        ({"x": np.array(1.0)}, "x: an array without a dimension"),
        ({"x": torch.ones(3, 2)}, "x: 3 values for 2 indices"),
        ({"x": [1]}, "x: 1 values for 2 indices"),
    ],
)
def test_what_has_no_value_for_each_sample_is_refused_with_its_path(data: Any, told: str) -> None:
    def one_rank_errs(communicator: Communicator) -> object:
        good = {"x": [1, 2]}
        return gather_samples(communicator, data if communicator.rank == 1 else good, [0, 1])

    message = refusal(2, one_rank_errs)
    assert f"rank 1: {told}" in message
    assert told in refusal(
        2, lambda communicator: next(gather_sample_chunks(communicator, data, [0, 1], chunk_bytes=9), None)
    )


def test_wrong_indices_are_errors_on_every_rank() -> None:
    def of(indices: Any, size: int | None = None) -> str:
        return refusal(2, lambda communicator: gather_samples(communicator, [1], indices, size=size))

    def chunks_of(chunk_bytes: Callable[[int], int]) -> str:
        return refusal(
            2,
            lambda communicator: list(
                gather_sample_chunks(communicator, [1], [1], chunk_bytes=chunk_bytes(communicator.rank))
            ),
        )

    assert "indices[0]: there is no sample -1" in of([-1])
    assert "there is no sample 5; the dataset has samples 0 … 4" in of([5], size=5)
    assert "2 of 3 samples are on no rank: 0, 2" in of([1], size=3)
    assert "indices are float32[1]" in of(torch.ones(1))
    assert "indices are int64[1, 1]" in of(torch.ones(1, 1, dtype=torch.int64))
    assert "indices[0]: a bool is no index" in of([True])
    assert "chunk_bytes is 0" in chunks_of(lambda rank: 0)
    assert "chunk_bytes is 2 on rank 1, 1 on rank 0" in chunks_of(lambda rank: rank + 1)
    assert "x: rank 1 has float64[?], rank 0 float32[?]" in refusal(
        2,
        lambda communicator: gather_samples(
            communicator,
            {"x": torch.ones(1, dtype=torch.float64 if communicator.rank else torch.float32)},
            [communicator.rank],
        ),
    )


def test_pieces_have_at_most_a_third_of_the_bytes_and_more_than_one_sample_where_they_fit() -> None:
    rows, width = 64, 32

    def program(communicator: Communicator) -> list[int]:
        mine = list(range(communicator.rank, rows, 2))
        data = torch.tensor(mine, dtype=torch.float32)[:, None].repeat(1, width)
        pieces = gather_sample_chunks(communicator, data, mine, chunk_bytes=3 * 5 * width * 4 + 1)
        return [piece.values.nbytes // (width * 4) for piece in pieces]

    assert on_ranks(2, program) == [[5] * 12 + [4], []]


def test_closing_early_ends_the_iteration_everywhere() -> None:
    def program(communicator: Communicator) -> int:
        mine = list(range(communicator.rank, 10, 3))
        seen = 0
        for _ in gather_sample_chunks(communicator, torch.ones(len(mine)), mine, 1, chunk_bytes=12):
            seen += 1
            if seen == 3:
                break
        assert communicator.all_reduce(torch.ones(1)).item() == 3
        return seen

    assert on_ranks(3, program) == [0, 3, 0]
