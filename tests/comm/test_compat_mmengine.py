"""The functions of `mmengine.dist` under their names: the examples of its documentation, and what they do in one process."""

from __future__ import annotations

import pytest
import torch

from tests.comm.worlds import on_ranks, refusal, same
from treenail.adapters.comm import current_communicator
from treenail.adapters.comm.compat import mmengine as dist
from treenail.kernel import CommunicationError, Communicator


def test_all_names_are_there_with_the_arguments_of_the_original() -> None:
    inspect = pytest.importorskip("inspect")
    original = pytest.importorskip("mmengine.dist")
    for name in original.__all__:
        if name == "init_dist":  # it is in treenail.adapters.launch
            continue
        theirs, ours = (inspect.signature(getattr(module, name)).parameters for module in (original, dist))
        assert list(ours) == list(theirs), name
        assert [each.default for each in ours.values()] == [each.default for each in theirs.values()], name


def test_in_one_process_what_gathers_gives_a_list_and_what_reduces_leaves_data_alone() -> None:
    data = torch.tensor([1, 2])
    assert same(dist.gather(data), [data])
    assert same(dist.all_gather(data), [data])
    assert dist.gather_object("foo") == ["foo"]
    assert dist.all_gather_object({"a": 1}) == [{"a": 1}]
    for op in ("sum", "mean", "produce", "min", "band"):
        dist.all_reduce(data, op)
    dist.all_reduce_dict({"a": data}, "mean")
    dist.all_reduce_params([data, data])
    dist.broadcast(data)
    listed = ["foo", 12]
    dist.broadcast_object_list(listed)
    dist.barrier()
    assert data.tolist() == [1, 2]
    assert listed == ["foo", 12]
    assert dist.collect_results(["foo", 1, 2], 2) == ["foo", 1]
    assert dist.collect_results_cpu(["foo", 1, 2], 2) == ["foo", 1]
    assert isinstance(dist.sync_random_seed(), int)
    assert dist.get_dist_info() == (0, 1)
    assert (dist.get_rank(), dist.get_world_size(), dist.get_local_rank(), dist.get_local_size()) == (0, 1, 0, 1)
    assert dist.get_backend() is None
    assert dist.get_local_group() is None
    assert dist.get_default_group() is None
    assert dist.is_main_process() is True
    assert dist.is_distributed() is False
    assert dist.get_comm_device() == torch.device("cpu")


def test_the_examples_of_two_ranks() -> None:
    def program(communicator: Communicator) -> None:
        rank = communicator.rank
        data = torch.arange(2, dtype=torch.int64) + 1 + 2 * rank
        assert same(dist.gather(data), [torch.tensor([1, 2]), torch.tensor([3, 4])] if rank == 0 else [])
        assert same(dist.all_gather(data), [torch.tensor([1, 2]), torch.tensor([3, 4])])
        objects = ["foo", 12, {1: 2}]
        assert dist.gather_object(objects[rank]) == (["foo", 12] if rank == 0 else None)
        assert dist.all_gather_object(objects[rank]) == ["foo", 12]
        operations: tuple[tuple[dist.Op, list[int]], ...] = (
            (dist.ReduceOp.SUM, [4, 6]),
            ("sum", [4, 6]),
            ("produce", [3, 8]),
            ("product", [3, 8]),
            ("max", [3, 4]),
        )
        for op, expected in operations:
            reduced = data.clone()
            dist.all_reduce(reduced, op)
            assert reduced.tolist() == expected
        mean = data.double()
        dist.all_reduce(mean, "mean")
        assert mean.tolist() == [2, 3]
        by_key = {"key1": torch.arange(2), "key2": torch.arange(3)}
        held = by_key["key1"]
        dist.all_reduce_dict(by_key)
        assert same(by_key, {"key1": torch.tensor([0, 2]), "key2": torch.tensor([0, 2, 4])})
        assert by_key["key1"] is held
        params = (
            [torch.tensor([1, 2]), torch.tensor([3, 4])] if rank == 0 else [torch.tensor([2, 3]), torch.tensor([4, 5])]
        )
        dist.all_reduce_params(param for param in params)
        assert [param.tolist() for param in params] == [[3, 5], [7, 9]]
        sent = torch.tensor([1, 2]) if rank == 0 else torch.zeros(2, 1, dtype=torch.int64)
        dist.broadcast(sent)
        assert sent.flatten().tolist() == [1, 2]
        listed: list[object] = list(objects) if rank == 0 else [None] * 3
        dist.broadcast_object_list(listed)
        assert same(listed, objects)
        results: list[object] = ["foo", {1: 2}] if rank == 0 else [24, {"a": "b"}]
        expected_results = ["foo", 24, {1: 2}, {"a": "b"}] if rank == 0 else None
        assert dist.collect_results(results, 4) == expected_results
        assert dist.collect_results_cpu(results, 4) == expected_results
        assert len(set(dist.all_gather_object(dist.sync_random_seed()))) == 1
        assert dist.get_dist_info() == (rank, 2)
        assert dist.is_distributed()
        assert dist.is_main_process() is (rank == 0)
        assert dist.get_default_group() is current_communicator()

    on_ranks(2, program)


def test_master_only_works_on_rank_0_and_keeps_its_name() -> None:
    @dist.master_only
    def told(text: str, *, twice: bool = False) -> str:
        """Tell it."""
        return text * (1 + twice)

    assert (told.__name__, told.__doc__) == ("told", "Tell it.")
    assert told("a", twice=True) == "aa"
    assert on_ranks(3, lambda communicator: told("a")) == ["a", None, None]


def test_a_group_is_a_communicator_whose_ranks_are_numbered_in_it() -> None:
    def program(communicator: Communicator) -> object:
        group = communicator.group([2, 1])
        if group is None:
            return None
        data = torch.tensor([communicator.rank])
        dist.all_reduce(data, group=group)
        return dist.get_rank(group), int(data), dist.gather(data, 1, group) != []

    assert on_ranks(3, program) == [None, (1, 3, True), (0, 3, False)]


def test_local_groups_are_those_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)

    def program(communicator: Communicator) -> tuple[int, int, list[int]]:
        with pytest.raises(CommunicationError, match="call init_local_group"):
            dist.get_local_rank()
        with pytest.raises(CommunicationError, match="4 ranks cannot be on machines with 3 each"):
            dist.init_local_group(0, 3)
        with pytest.raises(CommunicationError, match="not 7"):
            dist.init_local_group(7, 2)
        dist.init_local_group(communicator.rank // 2, 2)
        ranks = torch.tensor([communicator.rank])
        dist.all_reduce(ranks, group=dist.get_local_group())
        return dist.get_local_rank(), dist.get_local_size(), ranks.tolist()

    assert on_ranks(4, program) == [(0, 2, [1]), (1, 2, [1]), (0, 2, [5]), (1, 2, [5])]


def test_a_launcher_tells_the_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert on_ranks(2, lambda communicator: (dist.get_local_rank(), dist.get_local_size())) == [(1, 2)] * 2
    assert (dist.get_local_rank(), dist.get_local_size()) == (0, 1)


@pytest.mark.parametrize(
    ("variables", "launcher"),
    [
        ({}, "none"),
        ({"WORLD_SIZE": "2"}, "pytorch"),
        ({"SLURM_NTASKS": "2"}, "slurm"),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "0"}, "mpi"),
    ],
)
def test_the_launcher_is_known_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], launcher: str
) -> None:
    for name in ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert dist.infer_launcher() == launcher


def test_mistakes_are_errors_on_every_rank() -> None:
    ones = torch.ones(2)
    assert "there is no operation 'average'" in refusal(
        2, lambda communicator: dist.all_reduce(ones.clone(), "average")
    )
    assert "no rank 5" in refusal(2, lambda communicator: dist.gather(ones, 5))
    assert "do not communicate through GPUs" in refusal(2, lambda communicator: dist.collect_results_gpu([1], 1))
    with pytest.raises(CommunicationError, match="there is no operation"):
        dist.operation(dist.ReduceOp.PREMUL_SUM)
