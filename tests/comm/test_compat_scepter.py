"""SCEPTER's distributed functions in any world: its documentation, and what was broken in the original."""

from __future__ import annotations

import pytest
import torch
from torch.distributed import ReduceOp

from tests.comm.worlds import on_ranks, refusal, same
from treenail.adapters.comm.compat import scepter as dist
from treenail.kernel import CommunicationError, Communicator


def test_what_ranks_hold_is_merged_on_rank_0_and_the_others_get_none() -> None:
    def program(communicator: Communicator) -> None:
        rank = communicator.rank
        data = {
            "b": torch.full((rank, 2), rank),
            "a": [rank] * rank,
            "c": (rank, "x"),
            "d": {"e": torch.tensor(rank)},
        }
        found = dist.gather_data(data)
        # The original gave a dict of None elsewhere, and dicts with sorted keys.
        assert (
            found is None
            if rank
            else same(
                found,
                {
                    "b": torch.tensor([[1, 1], [2, 2], [2, 2]]),
                    "a": [1, 2, 2],
                    "c": ([0, 1, 2], ["x", "x", "x"]),
                    "d": {"e": torch.tensor([0, 1, 2])},
                },
            )
        )
        assert dist.gather_list([rank, {"a": rank}]) == (None if rank else [0, {"a": 0}, 1, {"a": 1}, 2, {"a": 2}])
        assert dist.gather_picklable({"a": rank}) == (None if rank else [{"a": 0}, {"a": 1}, {"a": 2}])
        assert dist.get_dist_info() == (rank, 3)

    on_ranks(3, program)


def test_dicts_with_different_keys_do_not_hang() -> None:
    message = refusal(2, lambda communicator: dist.gather_data({"a": 1} if communicator.rank else {"a": 1, "b": 2}))
    assert "b: rank 1 lacks the key" in message


def test_in_one_process_nothing_needs_a_process_group() -> None:
    ones = torch.ones(2)
    assert dist.get_dist_info() == (0, 1)
    assert dist.gather_list([1]) == [1]
    assert dist.gather_picklable("a") == ["a"]  # the original: ValueError
    assert same(dist.gather_gpu_tensors(ones), ones)
    assert dist.gather_data({"a": [1], "b": 2}) == {"a": [1], "b": [2]}
    for function in (dist.all_reduce, lambda tensor: dist.broadcast(tensor, 0), lambda tensor: dist.reduce(tensor, 0)):
        assert function(ones) is ones
    assert dist.recv(ones, 0) is ones
    dist.send(ones, 0)
    assert dist.isend(ones, 0).wait()
    assert dist.irecv(ones, 0).wait()
    assert same(dist.all_gather(ones), [ones])
    assert ones.tolist() == [1, 1]
    filled = torch.zeros(2)
    assert dist.scatter(filled, [torch.ones(2)]) is filled  # the original called torch.distributed then
    assert filled.tolist() == [1, 1]
    assert 0 <= dist.shared_random_seed() < 2**31  # the original gathered an int as if it were a tensor
    dist.barrier()


def test_tensors_of_any_backend_and_of_no_dimension_are_gathered() -> None:
    def program(communicator: Communicator) -> None:
        rank = communicator.rank
        uneven = torch.full((rank, 3), float(rank))
        whole = torch.cat([torch.full((each, 3), float(each)) for each in range(3)])
        assert same(dist.gather_gpu_tensors(uneven), None if rank else whole)
        assert same(dist.gather_gpu_tensors(uneven, True), whole)
        assert same(dist.gather_gpu_tensors(torch.tensor(rank), all_recv=True), torch.tensor([0, 1, 2]))
        parts = dist.gather_gpu_tensors(uneven, True, is_cat=False)
        assert parts is not None
        assert same(parts[0], [torch.full((each, 3), float(each)) for each in range(3)])
        assert parts[1] == [0, 1, 2]
        elsewhere = dist.gather_gpu_tensors(uneven, device="meta")
        assert elsewhere is None if rank else elsewhere is not None and elsewhere.is_meta and elsewhere.shape == (3, 3)

    on_ranks(3, program)


def test_tensors_are_filled_in_place_and_returned() -> None:
    def program(communicator: Communicator) -> None:
        rank = communicator.rank
        mine = torch.tensor([float(rank)])
        assert dist.all_reduce(mine) is mine
        assert mine.tolist() == [3.0]
        mine = torch.tensor([float(rank)])
        assert dist.reduce(mine, 1, ReduceOp.MAX) is mine
        assert mine.tolist() == [2.0 if rank == 1 else rank]
        mine = torch.tensor([float(rank)])
        assert dist.broadcast(mine, 2) is mine
        assert mine.tolist() == [2.0]
        listed = [rank]
        assert dist.broadcast_object_list(listed, 1) == [1]
        output = torch.zeros(1)
        assert (
            dist.scatter(output, [torch.tensor([float(each)]) for each in range(3)] if rank == 1 else None, 1) is output
        )
        assert output.tolist() == [rank]
        assert dist.reduce_scatter(output, [torch.ones(1) * each for each in range(3)]) is output
        assert output.tolist() == [3.0 * rank]
        assert same(
            dist.all_to_all([torch.tensor([rank, each]) for each in range(3)]),
            [torch.tensor([each, rank]) for each in range(3)],
        )
        assert dist.get_dist_info() == (rank, 3)
        seeds = dist.all_gather(torch.tensor(dist.shared_random_seed()))
        assert len({int(seed) for seed in seeds}) == 1

    on_ranks(3, program)


def test_sizes_may_differ_where_that_is_said() -> None:
    def program(communicator: Communicator) -> list[list[int]]:
        return [part.tolist() for part in dist.all_gather(torch.arange(communicator.rank), uniform_size=False)]

    assert on_ranks(3, program) == [[[], [0], [0, 1]]] * 3
    assert "give uniform_size=False" in refusal(
        2, lambda communicator: dist.all_gather(torch.arange(communicator.rank))
    )


def test_messages_need_no_contiguous_tensors() -> None:
    def program(communicator: Communicator) -> list[list[float]]:
        matrix = torch.arange(6.0).reshape(2, 3).t()
        if communicator.rank == 0:
            dist.send(matrix, 1)
            dist.isend(matrix + 1, 1, tag=1).wait()
            return []
        first, second = torch.zeros(2, 3).t(), torch.zeros(3, 2)
        pending = dist.irecv(second, 0, tag=1)
        assert dist.recv(first, 0) is first
        assert pending.wait()
        assert pending.wait()
        return [first.flatten().tolist(), second.flatten().tolist()]

    assert on_ranks(2, program)[1] == [[0, 3, 1, 4, 2, 5], [1, 4, 2, 5, 3, 6]]


@pytest.mark.parametrize("group", [[2, 1], (1, 2)])
def test_a_group_may_be_a_list_of_ranks_whose_others_keep_what_they_have(group: list[int]) -> None:
    def program(communicator: Communicator) -> tuple[list[int], list[int]]:
        mine, reduced = torch.tensor([communicator.rank]), torch.tensor([communicator.rank])
        dist.broadcast(mine, 2, group)
        dist.all_reduce(reduced, group=group)
        return mine.tolist(), reduced.tolist()

    assert on_ranks(3, program) == [([0], [0]), ([2], [3]), ([2], [3])]


def test_who_is_not_in_a_group_is_told() -> None:
    with pytest.raises(CommunicationError, match="rank 1 is not in the group of ranks 0"):
        dist.broadcast(torch.ones(1), 1, [0])

    def program(communicator: Communicator) -> None:
        if communicator.rank == 2:
            with pytest.raises(CommunicationError, match="rank 2 is not in the group"):
                dist.all_gather(torch.ones(1), group=[0, 1])
        else:
            assert len(dist.all_gather(torch.ones(1), group=[0, 1])) == 2

    on_ranks(3, program)


def test_what_does_not_fit_is_refused() -> None:
    def program(communicator: Communicator) -> object:
        return dist.scatter(torch.zeros(3), [torch.ones(2)] * 2 if communicator.rank == 0 else None)

    assert "a tensor float32[2] does not fit into float32[3]" in refusal(2, program)
