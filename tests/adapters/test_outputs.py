"""What a run leaves behind: curves, logs, and the files of the local backend on a bad day."""

import json
from io import StringIO
from pathlib import Path

import pytest
import torch
from torch import nn

from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.comm import SingleProcess, all_gather_object, broadcast_object
from treenail.adapters.data import Batches
from treenail.adapters.files import LocalFiles
from treenail.adapters.hooks import BestHook, CheckpointHook, LoggerHook, TimerHook, VisHook
from treenail.adapters.logging import terminal_logger
from treenail.adapters.loops import EpochLoop, EvalLoop
from treenail.adapters.optim import SupervisedStep
from treenail.adapters.vis import JsonLines, TensorBoard
from treenail.contracts import TrainWork
from treenail.contracts.vis import Histogram
from treenail.kernel import CommunicationError, Communicator, Engine, FileError, Record, TrainingError, VisBackend


def records(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_resumed_run_drops_what_was_written_after_the_commit_it_goes_on_from(tmp_path: Path) -> None:
    curves = JsonLines(tmp_path)
    curves.start(run="r", attempt=1, step=0, commit=0)
    for commit in range(1, 6):
        curves.scalars(Record({"loss": commit / 10}, commit, 0, commit, 1))
    curves.close()
    with (tmp_path / "scalars.jsonl").open("a") as file:
        file.write('{"step": 6, "torn')
    curves.start(run="r", attempt=2, step=3, commit=3)
    curves.scalars(Record({"loss": 9.0}, 4, 0, 4, 2))
    curves.close()
    curves.close()
    found = records(tmp_path / "scalars.jsonl")
    assert [(line["commit"], line["attempt"], line["loss"]) for line in found] == [
        (1, 1, 0.1),
        (2, 1, 0.2),
        (3, 1, 0.3),
        (4, 2, 9.0),
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_full_disk_is_said_with_the_file_and_what_to_do(tmp_path: Path) -> None:
    curves = JsonLines(tmp_path)
    curves.start(run="r", attempt=1, step=0, commit=0)
    (tmp_path / "histograms.jsonl").symlink_to("/dev/full")
    with pytest.raises(FileError, match=r"histograms\.jsonl.*No space left on device.*free some space"):
        curves.histogram("weights", Histogram((0.0, 1.0), (1,), 0.5, 0.25), step=1)
    curves.close()


@pytest.mark.parametrize("kind", [JsonLines, TensorBoard])
def test_every_kind_of_output_is_written(tmp_path: Path, kind: type[JsonLines] | type[TensorBoard]) -> None:
    place: VisBackend = kind(tmp_path)
    place.start(run="r", attempt=1, step=0, commit=0)
    place.scalars(Record({"loss": 1.0}, 1, 0, 1, 1))
    place.image("sample", torch.rand(3, 4, 5), step=1)
    place.image("grey/sample", torch.rand(1, 4, 5), step=1)
    place.text("note", "hello", step=1)
    place.config("seed: 0")
    place.graph(nn.Linear(2, 3), torch.ones(1, 2))
    place.close()
    if kind is JsonLines:
        names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
        expected = {"images/sample/00000001.png", "images/grey/sample/00000001.png", "texts/note/00000001.txt"}
        assert names == expected | {"config.txt", "graph.txt", "scalars.jsonl"}
    else:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(tmp_path))
        events.Reload()
        assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0)]
        assert events.Tags()["images"] == ["sample", "grey/sample"]
    with pytest.raises(FileError, match="clos"):
        place.scalars(Record({}, 1, 0, 1, 1))


def test_a_hook_may_publish_a_tensor(tmp_path: Path) -> None:
    curves = JsonLines(tmp_path)
    curves.start(run="r", attempt=1, step=0, commit=0)
    curves.scalars(Record({"loss": torch.tensor(0.5)}, 1, 0, 1, 1))  # type: ignore[dict-item]  # as an untyped hook does
    curves.close()
    assert records(tmp_path / "scalars.jsonl")[0]["loss"] == 0.5


def test_tensorboard_drops_the_tail_of_an_earlier_attempt(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for attempt, first in ((1, 1), (2, 3)):
        place = TensorBoard(tmp_path)
        place.start(run="r", attempt=attempt, step=first - 1, commit=first - 1)
        for step in range(first, 5):
            place.scalars(Record({"loss": float(attempt)}, step, 0, step, attempt))
        place.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]


def run(hooks: list[object], steps: int, loss: nn.Module | None = None) -> Engine:
    network = nn.Linear(2, 2)
    step = SupervisedStep(network, loss or nn.CrossEntropyLoss(), torch.optim.SGD(network.parameters(), lr=0.1))
    engine = Engine()
    for hook in hooks:
        engine.attach(hook)
    source = Batches([(torch.ones(2, 2), torch.zeros(2).long())] * steps)
    engine.run(EpochLoop(TrainWork(step, source), max_epochs=1))
    return engine


def test_log_lines_come_at_the_interval_and_at_the_end_of_the_epoch(tmp_path: Path) -> None:
    console = StringIO()
    logger = LoggerHook(interval=2, least_seconds=0, terminal=terminal_logger(console), log_file=tmp_path / "log.jsonl")
    run([TimerHook(), logger, VisHook([JsonLines(tmp_path)], run="r")], 5)
    assert [line["step"] for line in records(tmp_path / "scalars.jsonl")] == [2, 4, 5]
    assert [line["step"] for line in records(tmp_path / "log.jsonl")] == [2, 4, 5]
    assert all(
        {"time", "data_time", "train/loss", "timestamp"} <= line.keys() for line in records(tmp_path / "log.jsonl")
    )
    assert console.getvalue().count("train/loss=") == 3
    assert "\x1b" not in console.getvalue(), "no colours where nobody sees them"


def test_lines_of_the_training_are_at_least_some_seconds_apart(tmp_path: Path) -> None:
    console, path = StringIO(), tmp_path / "log.jsonl"
    run([LoggerHook(interval=1, least_seconds=60, terminal=terminal_logger(console), log_file=path)], 5)
    assert console.getvalue().count("train/loss=") == 1
    assert len(records(path)) == 1


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    class Infinite(nn.Module):
        def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return outputs.sum() * float("inf")

    with pytest.raises(TrainingError, match=r"the loss became (inf|-inf|nan) in the 2 steps up to step 2"):
        run([LoggerHook(interval=2, terminal=terminal_logger(StringIO()))], 5, Infinite())


def test_a_lost_model_is_not_saved_over_the_good_ones(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path), keep_last=1)
    network = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    inputs = [torch.ones(2, 2), torch.ones(2, 2), torch.full((2, 2), float("inf")), torch.ones(2, 2)]
    source = Batches([(each, torch.zeros(2).long()) for each in inputs])
    loop = EpochLoop(TrainWork(SupervisedStep(network, nn.CrossEntropyLoss(), optimizer), source), max_epochs=1)
    engine = Engine({"model": network, "loop": loop}, checkpointer=store)
    engine.attach(CheckpointHook(interval=1, by="step"))
    with pytest.raises(
        TrainingError, match=r"the parameter 'weight' is not finite after step 3; this state was not saved"
    ):
        engine.run(loop)
    manifest, state = store.load()
    assert manifest.step == 2
    assert "nan" not in str(state["model"])


def test_an_evaluation_after_a_training_is_a_run_of_its_own(tmp_path: Path) -> None:
    engine = run([VisHook([JsonLines(tmp_path)], run="r")], 2)
    engine.request_stop("between")
    source = Batches([(torch.ones(2, 2), torch.zeros(2).long())])
    engine.run(EvalLoop("test", nn.Linear(2, 2), nn.CrossEntropyLoss(), source))
    assert engine.stop_reason is None
    assert engine.commits == 6, "the commits of the training, and one of the evaluation"


def test_a_value_cannot_take_the_name_of_a_records_own_field(tmp_path: Path) -> None:
    engine = Engine()
    engine.attach(VisHook([JsonLines(tmp_path)], run="r"))
    engine.attach(LoggerHook(terminal=terminal_logger(StringIO()), log_file=tmp_path / "log.jsonl"))

    class Publishes:
        def after_train_epoch(self, engine: Engine) -> None:
            engine.publish({"step": 99.0, "commit": 99.0, "val/x": 1.0})

    engine.attach(Publishes())
    step = SupervisedStep(nn.Linear(2, 2), nn.CrossEntropyLoss(), torch.optim.SGD([nn.Parameter(torch.ones(1))]))
    engine.run(EpochLoop(TrainWork(step, Batches([(torch.ones(2, 2), torch.zeros(2).long())])), max_epochs=1))
    found = next(line for line in records(tmp_path / "scalars.jsonl") if "val/x" in line)
    assert (found["step"], found["commit"]) == (1, 2)


def test_a_best_value_is_a_number() -> None:
    engine, hook = Engine(), BestHook("val/loss", mode="min")
    for value in (float("nan"), 3.0, float("nan"), float("-inf")):
        hook.after_val_epoch(engine, {"val/loss": value})
    assert hook.best == 3.0


def test_the_best_value_is_kept_and_restored() -> None:
    engine, hook = Engine(), BestHook("val/loss", mode="min")
    for value in (0.5, 0.7, 0.3, 0.4):
        hook.after_val_epoch(engine, {"val/loss": value})
    assert hook.best == 0.3
    other = BestHook("val/loss", mode="min")
    other.load_state_dict(hook.state_dict())
    assert other.best == 0.3


def test_one_process_is_a_world_of_one_rank() -> None:
    world: Communicator = SingleProcess()
    value = torch.tensor([1, 2])
    assert (world.rank, world.world_size) == (0, 1)
    for found in (world.all_reduce(value), world.broadcast(value), *world.all_gather(value)):
        assert torch.equal(found, value)
        assert found.data_ptr() != value.data_ptr()
    assert all_gather_object(world, "a") == ["a"]
    assert broadcast_object(world, "a") == "a"
    with pytest.raises(CommunicationError, match="no operation 'prod'; did you mean 'product'"):
        world.all_reduce(value, "prod")
    with pytest.raises(CommunicationError, match="no rank 1 in a world of 1"):
        world.broadcast(value, source=1)


def test_a_link_out_of_the_root_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(FileError, match="leads out of the root through a symbolic link"):
        LocalFiles(root).read("link/secret")
