"""What callers give that is nearly right: an iterator for a list is taken, and mistakes are clear errors on every rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.comm.worlds import on_ranks, refusal, same
from treenail.adapters.comm import (
    TorchCommunicator,
    all_reduce_dict,
    broadcast_object_list,
    collect_results,
    recv,
    recv_object,
    reduce,
    reduce_scatter,
    run_threads,
    scatter_object_list,
    send,
    send_object,
)
from treenail.kernel import CommunicationError, Communicator

Call = Callable[[Communicator, Any], object]


def _generated(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    yield from tensors


@pytest.mark.parametrize("iterator", [_generated, iter, tuple])
@pytest.mark.parametrize("size", [3, 5000])
def test_iterators_are_taken_for_lists_of_tensors(iterator: Callable[[list[Tensor]], Any], size: int) -> None:
    def program(communicator: Communicator) -> None:
        rank = communicator.rank
        mine = [torch.full((size,), 10.0 * rank + other) for other in range(3)]
        sent = communicator.scatter(iterator(mine) if rank == 1 else None, 1)
        assert same(sent, torch.full((size,), 10.0 + rank))
        crossed = communicator.all_to_all(iterator(mine))
        assert same(crossed, [torch.full((size,), 10.0 * other + rank) for other in range(3)])
        summed = reduce_scatter(communicator, iterator(mine))
        assert same(summed, torch.full((size,), 30.0 + 3 * rank))
        assert scatter_object_list(communicator, iter("abc") if rank == 1 else None, 1) == "abc"[rank]

    on_ranks(3, program)


@pytest.mark.parametrize(
    ("call", "wrong", "told"),
    [
        (lambda ranks, given: ranks.scatter(given if ranks.rank == 0 else None), torch.ones(2, 3), "no list of tensors"),
        (lambda ranks, given: ranks.scatter(given if ranks.rank == 0 else None), {0: torch.ones(1)}, "a dict is no list"),
        (lambda ranks, given: ranks.all_to_all(given), torch.ones(2, 3), "a Tensor is no list of tensors"),
        (lambda ranks, given: ranks.all_to_all(given), 7, "a int is no list of tensors"),
        (reduce_scatter, torch.ones(2, 3), "a Tensor is no list of tensors"),
        (lambda ranks, given: ranks.group(given), 1, "a int is no list of ranks"),
        (lambda ranks, given: ranks.group(given), torch.tensor([0, 1]), "a Tensor is no list of ranks"),
        (lambda ranks, given: ranks.group(given), [0.0], "no rank 0.0 in a world of 2"),
        (lambda ranks, given: ranks.broadcast(torch.ones(1), given), True, "no rank True"),
        (lambda ranks, given: ranks.gather(torch.ones(1), given), "0", "no rank '0'"),
        (lambda ranks, given: reduce(ranks, torch.ones(1), given), 1.0, "no rank 1.0"),
        (scatter_object_list, "ab", "a str is no list of objects"),
        (scatter_object_list, {1: 2, 3: 4}, "a dict is no list of objects"),
        (scatter_object_list, 2, "a int is no list of objects"),
        (broadcast_object_list, (1, 2), "a tuple is no list of objects"),
        (lambda ranks, given: collect_results(ranks, given, 2), {"a": 1}, "a dict is no list of results"),
        (lambda ranks, given: collect_results(ranks, given, 2), "ab", "a str is no list of results"),
        (lambda ranks, given: collect_results(ranks, given, 2), torch.ones(2), "a Tensor is no list of results"),
        (lambda ranks, given: collect_results(ranks, [1], given), 2.0, "size is 2.0"),
    ],
)  # fmt: skip
def test_what_only_looks_like_a_list_or_a_rank_is_refused_by_name(call: Call, wrong: object, told: str) -> None:
    assert told in refusal(2, lambda communicator: call(communicator, wrong))


@pytest.mark.parametrize(
    "call",
    [
        lambda ranks, op: ranks.all_reduce(torch.ones(1), op),
        lambda ranks, op: reduce(ranks, torch.ones(1), op=op),
        lambda ranks, op: reduce_scatter(ranks, [torch.ones(1)] * 2, op),
        lambda ranks, op: all_reduce_dict(ranks, {"a": 1.0}, op),
    ],
    ids=["all_reduce", "reduce", "reduce_scatter", "all_reduce_dict"],
)
def test_a_misspelt_operation_is_corrected_on_every_rank(call: Call) -> None:
    for op, mend in {"smu": "did you mean 'sum'?", "prod": "did you mean 'product'?", "SUM": "'sum'?"}.items():
        message = refusal(2, lambda communicator, op=op: call(communicator, op if communicator.rank else "sum"))  # type: ignore[misc]  # mypy knows no defaults of lambdas
        assert (
            f"rank 1: {'' if 'all_reduce_dict' not in message else repr('a') + ': '}there is no operation '{op}'"
            in message
        )
        assert mend in message
    assert "known are sum, mean" in refusal(2, lambda communicator: call(communicator, None))


def test_objects_and_tensors_are_not_received_for_each_other() -> None:
    def program(communicator: Communicator) -> list[str]:
        if communicator.rank == 0:
            send_object(communicator, {"a": torch.ones(300)}, 1)
            send_object(communicator, "text", 1)
            send(communicator, torch.ones(2), 1)
            send(communicator, torch.zeros(64, dtype=torch.uint8), 1)
            send_object(communicator, "text", 1)
            return []
        told = []
        first = communicator.irecv(0)
        for receive in (first, first, lambda: recv(communicator, 0)):
            with pytest.raises(CommunicationError) as caught:
                receive()
            told.append(str(caught.value))
        for _ in range(2):
            with pytest.raises(CommunicationError) as caught:
                recv_object(communicator, 0)
            told.append(str(caught.value))
        assert recv_object(communicator, 0) == "text"
        return told

    _, told = on_ranks(2, program)
    assert told[:3] == ["rank 0 sent an object, no tensor; receive it by recv_object, or send a tensor"] * 3
    assert "rank 0 sent a tensor float32[2], no object; receive it by irecv" in told[3]
    assert "rank 0 sent a tensor uint8[64], no object" in told[4]


def test_a_message_may_be_waited_for_twice() -> None:
    def program(communicator: Communicator) -> None:
        if communicator.rank == 0:
            wait = communicator.isend(torch.ones(2), 1)
            wait()
            wait()
        else:
            receive = communicator.irecv(0)
            assert [receive().tolist() for _ in range(2)] == [[1.0, 1.0]] * 2

    on_ranks(2, program)


@pytest.mark.parametrize("world_size", ["2", 0, -1, 2.0, True, None])
def test_a_world_that_cannot_be_is_an_error(world_size: Any) -> None:
    with pytest.raises(CommunicationError, match=r"there is no world of .* ranks"):
        run_threads(world_size, lambda communicator: communicator.rank)


@pytest.mark.parametrize("timeout", [None, float("nan"), float("inf"), -1.0, 0, "60", True])
def test_a_timeout_that_cannot_be_is_an_error(timeout: Any) -> None:
    with pytest.raises(CommunicationError, match=r"the timeout is .*; give the seconds"):
        run_threads(2, lambda communicator: communicator.rank, timeout=timeout)
    with pytest.raises(CommunicationError, match=r"the timeout is .*; give the seconds"):
        TorchCommunicator(timeout=timeout)
