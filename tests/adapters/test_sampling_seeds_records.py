"""SCEPTER's batches of records, and the index that they are drawn from."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.multiprocessing.spawn import spawn
from torch.utils.data import DataLoader

from treenail.adapters.data import Loader
from treenail.adapters.files import LocalFiles
from treenail.adapters.sampling import RandomSampler
from treenail.adapters.sampling.compat import (
    DrawMode,
    MixtureOfSamplers,
    MultiLevelBatchSampler,
    Record,
    build_index,
    init_1level_llfs,
)
from treenail.contracts import BatchSampler, SamplerShard
from treenail.kernel import FileError, FileMissingError, StateError

MODES: tuple[DrawMode, ...] = ("uniform", "weighted", "epoch")


def through_json(state: dict[str, object]) -> dict[str, object]:
    text = json.dumps(state)
    assert len(text) < 1024
    loaded: dict[str, object] = json.loads(text)
    return loaded


def listed(folder: Path, count: int) -> Path:
    path = folder / "train.txt"
    path.write_text("".join(f"images/{number}.jpg,caption {number}, with a comma\n" for number in range(count)))
    return path


def numbers(batch: list[Record]) -> list[int]:
    return [int(record.fields["prompt"].split()[1].rstrip(",")) for record in batch]


@pytest.fixture
def index(tmp_path: Path) -> str:
    """Ten files of ten records and one of three."""
    return str(build_index(listed(tmp_path, 103), 10))


# The builder


def test_an_index_splits_its_list_and_counts_the_parts(tmp_path: Path) -> None:
    source = tmp_path / "train.txt"
    source.write_bytes("a,1\r\n\nb,2\n  \nc,\u2028 three".encode())
    path = init_1level_llfs(source, 2, "parts")
    assert path == tmp_path / "train" / "parts.json"
    assert json.loads(path.read_text()) == {
        "list": ["parts/000000000.txt", "parts/000000001.txt"],
        "index_level": 2,
        "counts": [2, 1],
    }
    assert (path.parent / "parts" / "000000000.txt").read_bytes() == b"a,1\nb,2\n"
    sampler = MultiLevelBatchSampler(str(path), 3, fields=["key", "text"], mode="epoch")
    [batch] = list(sampler)
    assert sorted(tuple(record.fields.values()) for record in batch) == [("a", "1"), ("b", "2"), ("c", "\u2028 three")]


def test_fault_scepter_the_builder_and_the_sampler_fit_each_other(index: str) -> None:
    seen = [number for batch in MultiLevelBatchSampler(index, 8, mode="epoch") for number in numbers(batch)]
    assert sorted(seen) == list(range(103))
    assert [len(path.name) for path in Path(index).with_suffix("").iterdir()] == [13] * 11  # the last part, too


def test_an_index_is_not_overwritten_and_what_cannot_be_built_is_refused(tmp_path: Path, index: str) -> None:
    with pytest.raises(FileError, match=r"index\.json: there is such an index already; delete it"):
        build_index(tmp_path / "train.txt")
    with pytest.raises(FileError, match=r"none\.txt: there is no such file"):
        build_index(tmp_path / "none.txt")
    (tmp_path / "blank.txt").write_text("\n \n")
    with pytest.raises(FileError, match=r"blank\.txt: the file holds no record"):
        build_index(tmp_path / "blank.txt")
    with pytest.raises(ValueError, match="max_lines is 0"):
        build_index(tmp_path / "train.txt", 0)
    for name in ("", "..", "a/b"):
        with pytest.raises(ValueError, match="index_name is"):
            build_index(tmp_path / "train.txt", index_name=name)


# Drawing


def test_records_have_fields_prefixes_and_an_image_size(tmp_path: Path) -> None:
    path = tmp_path / "flat.txt"
    path.write_text("a.jpg|one|two\n/b.jpg|three|four|five\n")
    sampler = MultiLevelBatchSampler(
        str(path),
        2,
        fields=["image", "title", "text"],
        delimiter="|",
        path_prefix="images",
        oss_prefix="oss://bucket",
        prompt_prefix="A photo of ",
        image_size=(64, 32),
        mode="epoch",
    )
    [batch] = list(sampler)
    assert sorted(batch, key=lambda record: record.fields["title"]) == [
        Record({"image": "oss://bucket/images/a.jpg", "title": "one", "text": "two"}, (64, 32), "A photo of "),
        Record({"image": "/b.jpg", "title": "three", "text": "four|five"}, (64, 32), "A photo of "),
    ]


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_is_a_pure_function_of_seed_rank_and_number(index: str, mode: DrawMode) -> None:
    def drawn(seed: int, rank: int) -> list[list[int]]:
        sampler = MultiLevelBatchSampler(index, 4, rank, seed, mode=mode, num_replicas=2)
        return [numbers(batch) for batch in islice(sampler, 12)]

    assert drawn(0, 0) == drawn(0, 0)
    assert len({str(drawn(seed, rank)) for seed in (0, 1) for rank in (0, 1)}) == 4  # (1, 0) is not (0, 1)
    sampler = MultiLevelBatchSampler(index, 4, 0, 0, mode=mode, num_replicas=2)
    assert [numbers(batch) for batch in islice(sampler, 12)] == drawn(0, 0)
    assert [numbers(batch) for batch in islice(sampler, 12)] == drawn(0, 0)  # iterating moved nothing


@pytest.mark.parametrize("mode", MODES)
def test_epochs_differ_in_their_files(tmp_path: Path, mode: DrawMode) -> None:
    sampler = MultiLevelBatchSampler(str(build_index(listed(tmp_path, 40), 1)), 4, mode=mode)
    first = list(islice(sampler, 10))
    sampler.set_epoch(1)
    assert list(islice(sampler, 10)) != first


@pytest.mark.parametrize("mode", MODES)
def test_batches_resume_at_every_position(index: str, mode: DrawMode) -> None:
    def make() -> MultiLevelBatchSampler:
        return MultiLevelBatchSampler(index, 8, 1, mode=mode, num_replicas=3, cached_files=2)

    for epoch in (0, 2):
        whole = make()
        whole.set_epoch(epoch)
        expected = list(islice(whole, 5))
        for done in range(6):
            stopped = make()
            stopped.set_epoch(epoch)
            stopped.advance(done)
            resumed = make()
            resumed.load_state_dict(through_json(stopped.state_dict()))
            assert list(islice(resumed, 5 - done)) == expected[done:]


def test_an_epoch_has_every_record_once_over_all_ranks_and_in_other_worlds(index: str) -> None:
    orders = set()
    for epoch in range(3):
        state: dict[str, object] | None = None
        seen: list[int] = []
        for world, count in ((3, 2), (1, 3), (4, 100)):
            ranks = [MultiLevelBatchSampler(index, 5, r, mode="epoch", num_replicas=world) for r in range(world)]
            for sampler in ranks:
                sampler.set_epoch(epoch)
                if state:
                    sampler.load_state_dict(through_json(state))
            assert len({len(list(sampler)) for sampler in ranks}) == 1
            steps = ranks[0].remaining
            for step, batches in enumerate(islice(zip(*ranks, strict=True), count)):
                left = len(ranks[0].sampler) - ranks[0].cursor - step * world
                seen += [number for batch in batches[:left] for number in numbers(batch)]
            for sampler in ranks:
                sampler.advance(min(count, steps))
            state = ranks[0].state_dict()
        assert sorted(seen) == list(range(103))
        orders.add(tuple(seen))
    assert len(orders) == 3


def test_incomplete_batches_are_dropped_on_request(index: str) -> None:
    ranks = [MultiLevelBatchSampler(index, 10, rank, mode="epoch", num_replicas=3, drop_last=True) for rank in range(3)]
    batches = [batch for sampler in ranks for batch in sampler]
    assert [len(sampler) for sampler in ranks] == [3, 3, 3]
    assert {len(batch) for batch in batches} == {10}
    assert max(Counter(number for batch in batches for number in numbers(batch)).values()) == 1


def test_fault_scepter_a_short_file_is_not_favoured(tmp_path: Path) -> None:
    path = str(build_index(listed(tmp_path, 103), 100))  # files of 100 and of 3 records

    def of_short_file(mode: DrawMode) -> int:
        sampler = MultiLevelBatchSampler(path, 1, mode=mode)
        return sum(numbers(batch)[0] >= 100 for batch in islice(sampler, 2000))

    assert 900 < of_short_file("uniform") < 1100  # as in SCEPTER
    assert 30 < of_short_file("weighted") < 90  # 58 expected


def test_fault_scepter_no_record_comes_twice_in_a_batch_that_need_not_have_it(tmp_path: Path) -> None:
    path = str(build_index(listed(tmp_path, 23), 3))
    for mode in ("uniform", "weighted"):
        for batch in islice(MultiLevelBatchSampler(path, 23, mode="weighted" if mode == "weighted" else "uniform"), 20):
            assert sorted(numbers(batch)) == list(range(23))
        for batch in islice(MultiLevelBatchSampler(path, 30, mode="weighted" if mode == "weighted" else "uniform"), 20):
            assert set(numbers(batch)) == set(range(23))
            assert len(batch) == 30


def test_three_levels_and_one(tmp_path: Path) -> None:
    for name, lines in (("a", ["0", "1"]), ("b", ["2"]), ("c", ["3", "4", "5"])):
        (tmp_path / "leaves").mkdir(exist_ok=True)
        (tmp_path / "leaves" / f"{name}.txt").write_text("".join(f"{line}.jpg,caption {line}\n" for line in lines))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "1.txt").write_text("leaves/a.txt\nleaves/b.txt\n")
    (tmp_path / "lists" / "2.txt").write_text(f"{tmp_path}/leaves/c.txt\n")
    three = tmp_path / "three.json"
    # The last one was written before the folder was moved here.
    three.write_text(json.dumps({"list": ["lists/1.txt", "/elsewhere/before/lists/2.txt"], "index_level": 3}))
    one = tmp_path / "one.json"
    one.write_text(json.dumps({"list": [f"{n}.jpg,caption {n}" for n in range(6)], "index_level": 1, "num_fields": 2}))
    for path in (three, one):
        for mode in MODES:
            sampler = MultiLevelBatchSampler(str(path), 2, mode=mode)
            seen = Counter(number for batch in islice(sampler, 300) for number in numbers(batch))
            assert set(seen) == set(range(6))
            if mode == "epoch":
                assert set(seen.values()) == {1}


def test_files_may_lie_in_a_store_and_below_a_folder(index: str) -> None:
    store = LocalFiles(Path(index).parents[1])
    sampler = MultiLevelBatchSampler("train/index.json", 4, files=store)
    assert next(iter(sampler)) == next(iter(MultiLevelBatchSampler(index, 4)))
    with pytest.raises(ValueError, match="give its store as `files`"):
        MultiLevelBatchSampler("oss://bucket/index.json", 4)


def test_only_so_many_files_are_kept(index: str) -> None:
    reads: Counter[str] = Counter()

    class Counting(LocalFiles):
        def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
            reads[path] += 1
            return super().read(path, start, length)

    def draw(cached: int) -> int:
        reads.clear()
        sampler = MultiLevelBatchSampler("index.json", 5, cached_files=cached, files=Counting(Path(index).parent))
        for _ in islice(sampler, 200):
            pass
        return reads.total()

    assert draw(11) == 12  # each file once, and the index
    assert draw(1) > 100


# Faults


def test_fault_scepter_what_is_missing_or_malformed_is_said_with_its_file(tmp_path: Path) -> None:
    def make(
        text: str | None, name: str = "index.json", **options: Any
    ) -> MultiLevelBatchSampler:  # Any: arguments by name
        if text is not None:
            (tmp_path / name).write_text(text)
        return MultiLevelBatchSampler(str(tmp_path / name), 2, **options)

    for name in ("none.txt", "none.json"):
        with pytest.raises(FileMissingError, match=name):
            make(None, name)
    with pytest.raises(FileError, match=r"index\.json: the index is no JSON: .*; build the index again"):
        make("{")
    for text, message in (
        ("[]", 'no "list" of texts'),
        ('{"list": [1]}', 'no "list" of texts'),
        ('{"list": []}', "the index is empty"),
        ('{"list": ["a"], "index_level": 0}', '"index_level" is 0'),
        ('{"list": ["a"], "index_level": 2, "counts": [1, 2]}', '"counts" is no list'),
        ('{"list": ["a"], "index_level": 2, "counts": [0]}', '"counts" is no list'),
    ):
        with pytest.raises(FileError, match=message):
            make(text)
    with pytest.raises(FileError, match=r"flat\.txt: the file holds no record"):
        make("\n\n", "flat.txt")
    for mode in MODES:
        with pytest.raises(FileMissingError, match=r"part\.txt"):
            list(islice(make('{"list": ["part.txt"], "index_level": 2}', mode=mode), 1))
    (tmp_path / "part.txt").write_text("")
    for mode in MODES:
        with pytest.raises(FileError, match=r"part\.txt: the file holds no record; leave it out"):
            list(islice(make('{"list": ["part.txt"], "index_level": 2}', mode=mode), 1))
    (tmp_path / "part.txt").write_text("a,b\nc,d\n")
    with pytest.raises(FileError, match="holds 2 records, its index counts 3"):
        list(make('{"list": ["part.txt"], "index_level": 2, "counts": [3]}', mode="epoch"))
    (tmp_path / "part.txt").write_bytes(b"\xff\xfe,b\n")
    with pytest.raises(FileError, match=r"part\.txt: the file is no UTF-8"):
        next(iter(make('{"list": ["part.txt"], "index_level": 2}')))
    with pytest.raises(FileError, match=r"flat\.txt: the record 'a' has 1 of the fields oss_key, prompt"):
        next(iter(make("a\n", "flat.txt")))


def test_arguments_are_checked(index: str) -> None:
    for options, message in (
        ({"batch_size": 0}, "batch_size is 0"),
        ({"rank": -1}, "rank is -1"),
        ({"cached_files": 0}, "cached_files is 0"),
        ({"batch_size": True}, "batch_size is True"),
        ({"batch_size": 2.0}, "batch_size is 2"),
        ({"seed": "1"}, "seed is '1'"),
        ({"rank": 0.0}, "rank is 0"),
        ({"image_size": (64, 0)}, "image_size is 0"),
        ({"image_size": (64.5, 64)}, "image_size is 64"),
        ({"mode": "random"}, "mode is 'random'"),
        ({"fields": []}, "fields is"),
        ({"fields": "prompt"}, "fields is 'prompt'"),
        ({"delimiter": ""}, "delimiter ''"),
        ({"mode": "epoch", "rank": 2, "num_replicas": 2}, "rank is 2"),
    ):
        arguments: dict[str, Any] = {"batch_size": 2, **options}  # Any: arguments by name
        with pytest.raises(ValueError, match=message):
            MultiLevelBatchSampler(index, **arguments)


def test_a_state_of_other_records_is_refused(index: str, tmp_path: Path) -> None:
    state = MultiLevelBatchSampler(index, 4).state_dict()
    (tmp_path / "other").mkdir()
    other = str(build_index(listed(tmp_path / "other", 50), 10))
    for sampler in (
        MultiLevelBatchSampler(other, 4),
        MultiLevelBatchSampler(index, 5),
        MultiLevelBatchSampler(index, 4, seed=1),
        MultiLevelBatchSampler(index, 4, mode="weighted"),
        MultiLevelBatchSampler(index, 4, mode="epoch"),
    ):
        with pytest.raises(StateError, match="resume with the dataset, sampler and seed"):
            sampler.load_state_dict(state)


@pytest.mark.parametrize("mode", MODES)
def test_a_state_is_refused_after_a_record_moved_from_a_part_to_another(index: str, mode: DrawMode) -> None:
    state = MultiLevelBatchSampler(index, 4, mode=mode).state_dict()
    parsed = json.loads(Path(index).read_text())
    first, second = (Path(index).parent / entry for entry in parsed["list"][:2])
    *kept, moved = first.read_text().splitlines()
    first.write_text("\n".join(kept))
    second.write_text(second.read_text() + moved + "\n")
    parsed["counts"][:2] = [9, 11]
    Path(index).write_text(json.dumps(parsed))
    with pytest.raises(StateError, match="the state's counts is"):
        MultiLevelBatchSampler(index, 4, mode=mode).load_state_dict(state)


@pytest.mark.parametrize("mode", ["weighted", "epoch"])
def test_a_record_that_moved_is_seen_without_counts_in_the_index(index: str, mode: DrawMode) -> None:
    parsed = json.loads(Path(index).read_text())
    del parsed["counts"]
    Path(index).write_text(json.dumps(parsed))
    state = MultiLevelBatchSampler(index, 4, mode=mode).state_dict()
    MultiLevelBatchSampler(index, 4, mode=mode).load_state_dict(through_json(state))
    first, second = (Path(index).parent / entry for entry in parsed["list"][:2])
    *kept, moved = first.read_text().splitlines()
    first.write_text("\n".join(kept))
    second.write_text(second.read_text() + moved + "\n")
    with pytest.raises(StateError, match="the state's counts is"):
        MultiLevelBatchSampler(index, 4, mode=mode).load_state_dict(state)


def test_numbers_of_numpy_are_numbers(index: str) -> None:
    for mode in MODES:
        sampler = MultiLevelBatchSampler(index, np.int64(4), np.int64(0), np.int64(3), mode=mode)  # type: ignore[arg-type]  # the point of the test
        plain = MultiLevelBatchSampler(index, 4, 0, 3, mode=mode)
        assert through_json(sampler.state_dict()) == plain.state_dict()
        assert list(islice(sampler, 5)) == list(islice(plain, 5))


# Ranks


def draw_in_a_group(rank: int, world: int, folder: str, index: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    drawn: dict[str, object] = {}
    states = []
    for mode in MODES:
        sampler = MultiLevelBatchSampler(index, 8, mode=mode)
        drawn[mode] = [numbers(batch) for batch in islice(sampler, 20)]
        states.append(sampler.state_dict())
    mixture: MixtureOfSamplers[int] = MixtureOfSamplers([RandomSampler(30), RandomSampler(40)], [0.5, 0.5])
    drawn["mixture"] = list(mixture)
    states.append(mixture.state_dict())
    Path(folder, f"{rank}.json").write_text(json.dumps([drawn, states]))
    torch.distributed.destroy_process_group()


def test_ranks_are_those_of_the_process_group(index: str, tmp_path: Path) -> None:
    spawn(draw_in_a_group, (2, str(tmp_path), index), nprocs=2)  # type: ignore[no-untyped-call]  # torch's
    (first, states), (second, others) = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert states == others
    for rank, drawn in enumerate((first, second)):
        for mode in MODES:
            given = MultiLevelBatchSampler(index, 8, rank, mode=mode, num_replicas=2)
            assert drawn[mode] == [numbers(batch) for batch in islice(given, 20)]
        mixture: MixtureOfSamplers[int] = MixtureOfSamplers([RandomSampler(30), RandomSampler(40)], [0.5, 0.5], rank)
        assert drawn["mixture"] == list(mixture)
    # 13 batches of 103 records: seven for each rank, of which one is repeated.
    assert {number for drawn in (first, second) for batch in drawn["epoch"] for number in batch} == set(range(103))
    assert [len(first["epoch"]), len(second["epoch"])] == [7, 7]
    assert all(first[name] != second[name] for name in (*MODES, "mixture"))


# In loaders and mixtures


class Captions:
    """A dataset whose keys are records."""

    def __len__(self) -> int:
        return 103

    def __getitem__(self, record: Record) -> str:
        return record.fields["prompt"]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_records_go_through_loaders(index: str, workers: int) -> None:
    expected = [
        [record.fields["prompt"] for record in batch] for batch in MultiLevelBatchSampler(index, 8, mode="epoch")
    ]
    sampler = MultiLevelBatchSampler(index, 8, mode="epoch")
    assert isinstance(sampler, SamplerShard)
    theirs: DataLoader[str] = DataLoader(Captions(), batch_sampler=sampler, num_workers=workers)  # type: ignore[arg-type]  # torch wants indices
    assert list(theirs) == expected
    assert isinstance(sampler.sampler, BatchSampler)
    ours = Loader(Captions(), sampler, batch_size=None, num_workers=workers)  # type: ignore[arg-type]  # keys are records
    ours.advance()
    assert [*ours] == expected[1:]
    assert (ours.consumed, len(ours)) == (1, 13)
    ours.close()


def test_a_mixture_of_batches_of_records(index: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = str(build_index(listed(tmp_path / "other", 50), 10))

    def make() -> MixtureOfSamplers[list[Record]]:
        return MixtureOfSamplers(
            [MultiLevelBatchSampler(index, 4), MultiLevelBatchSampler(other, 6, mode="epoch")],
            [0.5, 0.5],
            num_samples=40,
        )

    batches = list(make())
    assert Counter(len(batch) for batch in batches[:40]).keys() >= {4, 6}
    assert sum(len(batch) == 4 for batch in batches) == 20
    resumed = make()
    resumed.advance(17)
    again = make()
    again.load_state_dict(through_json(resumed.state_dict()))
    assert list(again) == batches[17:]


def test_a_mixture_of_indices_is_no_mixture_of_records(index: str) -> None:
    state = MixtureOfSamplers([RandomSampler(5)], [1.0]).state_dict()
    with pytest.raises(StateError):
        MixtureOfSamplers([MultiLevelBatchSampler(index, 4)], [1.0]).load_state_dict(state)
