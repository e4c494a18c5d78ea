"""What training loops do: when they validate, where epochs end, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.loops.small_runs import SAMPLES, Memory, NoisyPoints, attempt, infinite, shuffled, streamed

from treenail.adapters.data import Batches, Indexed, IndexedBatch, Loader, StreamedBatches, copied_ahead
from treenail.adapters.loops import EpochLoop, EvalLoop, IterBasedTrainLoop, StepLoop, ValidationIntervals
from treenail.adapters.sampling import RandomSampler
from treenail.contracts import StepOutput, TrainWork
from treenail.kernel import BatchSource, Engine, EngineError, Loop, StateError, TrainingError

T = TypeVar("T")


@settings(deadline=None)
@given(
    last=st.integers(1, 60),
    begin=st.integers(1, 70),
    interval=st.integers(1, 20),
    dynamic=st.dictionaries(st.integers(1, 50), st.integers(1, 9), max_size=3),
)
def test_what_is_due_is_a_multiple_of_the_interval_that_holds(
    last: int, begin: int, interval: int, dynamic: dict[int, int]
) -> None:
    pairs = sorted(dynamic.items())
    intervals = ValidationIntervals(last, begin, interval, pairs)

    def rule(done: int) -> bool:
        holds = next((length for first, length in reversed(pairs) if first <= done), interval)
        return (done >= begin and done % holds == 0) or done == last

    due = [done for done in range(1, last + 1) if rule(done)]
    assert [done for done in range(1, last + 1) if done in intervals] == due
    for done in range(last):
        assert intervals.following(done) == next(each for each in due if each > done)
    assert 0 not in intervals


@pytest.mark.parametrize(
    ("last", "begin", "interval", "dynamic", "said"),
    [
        (0, 1, 1, (), "at least 1"),
        (3, 0, 1, (), "val_begin=0"),
        (3, 1, 0, (), "val_interval=0"),
        (3, 1, 1, ((2, 0),), "at least 1"),
        (3, 1, 1, ((2, 1), (2, 2)), r"\[2, 2\], which must ascend"),
    ],
)
def test_intervals_that_make_no_sense_are_refused(
    last: int, begin: int, interval: int, dynamic: Sequence[tuple[int, int]], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        ValidationIntervals(last, begin, interval, dynamic)


def validated(make: Callable[[TrainWork], Loop], source: Callable[[], BatchSource] = shuffled) -> list[str]:
    return [" ".join(event.split()[:6]) for event in attempt(make, source, Memory()).watch.events]


def test_epochs_are_validated_from_a_beginning_on_at_intervals_that_change() -> None:
    def make(work: TrainWork) -> Loop:
        return EpochLoop(work, max_epochs=7, val_begin=2, val_interval=2, dynamic_intervals=((5, 1),))

    found = [event for event in validated(make) if event.startswith("validated")]
    steps = [4 * epoch for epoch in (2, 4, 5, 6, 7)]
    assert found == [f"validated after step {step} in epoch" for step in steps]


def test_epochs_of_a_step_loop_end_where_the_data_does() -> None:
    assert validated(lambda work: StepLoop(work, max_steps=9, val_interval=4)) == [
        "validated after step 4 in epoch",
        "epoch 0 ended after step 4",
        "validated after step 8 in epoch",
        "epoch 1 ended after step 8",
        "validated after step 9 in epoch",
    ]


def test_a_step_loop_that_ends_with_an_epoch_ends_the_epoch() -> None:
    for source in (shuffled, infinite):
        run = attempt(lambda work: IterBasedTrainLoop(work, max_iters=8), source, Memory())
        assert (run.engine.step, run.engine.epoch) == (8, 2)
        assert [event.split(":")[0] for event in run.watch.events] == [
            "epoch 0 ended after step 4",
            "validated after step 8 in epoch 1",
            "epoch 1 ended after step 8",
        ]


def test_steps_are_the_same_whatever_counts_them() -> None:
    whole = attempt(lambda work: EpochLoop(work, max_epochs=3), shuffled, Memory())
    for make in (
        lambda work: EpochLoop(work, max_epochs=4, epoch_length=3),
        lambda work: StepLoop(work, max_steps=12),
    ):
        other = attempt(make, shuffled, Memory())
        assert [batch[1:] for batch in other.watch.inputs] == [batch[1:] for batch in whole.watch.inputs]
        assert other.engine.total_steps == whole.engine.total_steps == 12


def test_a_run_goes_over_to_epochs_of_another_length_where_it_stands() -> None:
    memory = Memory()
    first = attempt(lambda work: EpochLoop(work, max_epochs=2), shuffled, memory)
    then = attempt(lambda work: EpochLoop(work, max_epochs=4, epoch_length=2), shuffled, memory)
    whole = attempt(lambda work: EpochLoop(work, max_epochs=3), shuffled, Memory())
    seen = [batch[1:] for batch in [*first.watch.inputs, *then.watch.inputs]]
    assert seen == [batch[1:] for batch in whole.watch.inputs]
    assert then.engine.epoch == 4


def test_data_of_unknown_length_trains_by_epoch_and_by_step() -> None:
    run = attempt(lambda work: EpochLoop(work, max_epochs=2), streamed, Memory())
    assert (run.engine.step, run.engine.epoch, run.engine.total_steps) == (8, 2, None)
    run = attempt(lambda work: EpochLoop(work, max_epochs=3, epoch_length=5), streamed, Memory())
    assert (run.engine.step, run.engine.epoch, run.engine.total_steps) == (15, 3, 15)


def test_a_stream_leaves_the_generators_alone_and_refuses_a_state_that_is_not_its() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    source = streamed()
    batches = list(source)
    assert len(batches) == 4
    assert torch.equal(before, torch.get_rng_state())
    source.advance()
    state = source.state_dict()
    again = streamed()
    again.load_state_dict(state)
    assert torch.equal(next(iter(again))[0], batches[1][0])  # type: ignore[index]  # it is a list of tensors
    short = StreamedBatches(lambda _: [], seed=3)
    short.load_state_dict(state)
    with pytest.raises(StateError, match="1 batches of epoch 0 had been consumed, and there are 0"):
        list(short)
    for wrong, said in (({**state, "seed": 4}, "seed 4"), ({**state, "consumed": -1}, "no position")):
        with pytest.raises(StateError, match=said):
            again.load_state_dict(wrong)
    with pytest.raises(TypeError, match="nobody knows"):
        len(source)


class EndsEarly(Batches):
    """Says that it has more batches than it gives."""

    def __len__(self) -> int:
        return 9


MAKES: list[Callable[[TrainWork], Loop]] = [
    lambda work: EpochLoop(work, max_epochs=2),
    lambda work: EpochLoop(work, max_epochs=2, epoch_length=20),
    lambda work: StepLoop(work, max_steps=20),
]


@pytest.mark.parametrize("make", MAKES, ids=["epochs", "epoch_length", "steps"])
def test_data_without_batches_or_with_less_than_it_says_is_an_error(make: Callable[[TrainWork], Loop]) -> None:
    def train(batches: BatchSource) -> None:
        Engine().run(make(TrainWork(lambda _: StepOutput(0.0, 1), batches)))

    with pytest.raises(TrainingError, match="there is no batch to train on"):
        train(Batches([]))
    with pytest.raises(TrainingError, match=r"ended after 3 of 9 batches.*raise StopIteration"):
        train(EndsEarly([1, 2, 3]))
    with pytest.raises(TrainingError, match=r"the data gave no batch at all.*iterated only once"):
        train(StreamedBatches(lambda _: iter(())))


@pytest.mark.parametrize("make", MAKES, ids=["epochs", "epoch_length", "steps"])
def test_a_loop_refuses_a_state_of_another_kind(make: Callable[[TrainWork], Loop]) -> None:
    loop = make(TrainWork(lambda _: StepOutput(0.0, 1), Batches([1])))
    state = loop.state_dict()
    for name in state:
        with pytest.raises(StateError):
            loop.load_state_dict({**state, name: "wrong"})
    loop.load_state_dict(state)
    assert loop.state_dict() == state


def test_loops_refuse_numbers_below_one() -> None:
    work = TrainWork(lambda _: StepOutput(0.0, 1), Batches([1]))
    for make in (
        lambda: EpochLoop(work, max_epochs=0),
        lambda: EpochLoop(work, max_epochs=1, epoch_length=0),
        lambda: StepLoop(work, max_steps=0),
        lambda: IterBasedTrainLoop(work, max_iters=1, val_interval=0),
    ):
        with pytest.raises(ValueError, match="at least 1"):
            make()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_with_a_limit_gives_the_first_batches_of_each_epoch(workers: int) -> None:
    whole, few = (
        Loader(NoisyPoints(), RandomSampler(SAMPLES, seed=3), batch_size=3, seed=3, limit=limit, num_workers=workers)
        for limit in (None, 2)
    )
    for epoch in range(2 if workers == 0 else 1):
        for source in (whole, few):
            source.set_epoch(epoch)
        inputs = [[batch[0] for batch in source] for source in (whole, few)]  # type: ignore[index]  # lists of tensors
        assert len(few) == len(inputs[1]) == 2
        assert all(torch.equal(one, other) for one, other in zip(inputs[0][:2], inputs[1], strict=True))
    few.advance()
    assert (few.consumed, len(list(few))) == (1, 1)
    few.advance()
    assert (few.consumed, len(list(few))) == (2, 0)
    with pytest.raises(ValueError, match="limit is 0"):
        Loader(NoisyPoints(), RandomSampler(SAMPLES), batch_size=3, limit=0)


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device to copy to")


@cuda
def test_batches_are_copied_ahead_and_errors_come_in_their_turn() -> None:
    device = torch.device("cuda")

    def host() -> Iterator[object]:
        for number in range(3):
            yield {"number": number, "data": [torch.full((1 << 20,), float(number)).pin_memory()]}
        raise OSError("the fourth")

    ahead = copied_ahead(host(), device)
    seen = []
    for _ in range(3):
        batch = next(ahead)
        assert isinstance(batch, dict)
        assert batch["data"][0].device.type == "cuda"
        seen.append(float(batch["data"][0].sum()) / (1 << 20))
    assert seen == [0.0, 1.0, 2.0]
    with pytest.raises(OSError, match="the fourth"):
        next(ahead)


@cuda
def test_a_loader_that_copies_ahead_gives_the_same_batches_and_counts_those_consumed() -> None:
    plain, ahead = (
        Loader(NoisyPoints(), RandomSampler(SAMPLES, seed=3), batch_size=3, seed=3, device=device)
        for device in (None, torch.device("cuda"))
    )
    for one, other in zip(plain, ahead, strict=True):
        assert isinstance(one, list)
        assert isinstance(other, list)
        assert other[0].is_cuda
        assert torch.equal(one[0], other[0].cpu())
        ahead.advance()
    assert ahead.consumed == len(plain)


@pytest.mark.parametrize(
    ("loop", "mend"),
    [(EpochLoop, "wrap work"), (StepLoop, "wrap work"), (IterBasedTrainLoop, "wrap work"), (EvalLoop, "val_step")],
)
def test_a_method_that_no_loop_asks_is_refused_where_it_is_defined(loop: type, mend: str) -> None:
    for name in ("run_iter", "run_epoch"):
        with pytest.raises(
            EngineError, match=rf"test_loops:Twice: {name} of a {loop.__name__} is never called; .*{mend}"
        ):
            type("Twice", (loop,), {name: lambda self: None, "__module__": "test_loops"})
    type("Other", (loop,), {"run": lambda self, engine: None})


def test_other_bases_of_a_loop_prepare_its_subclasses_too() -> None:
    class Epochs(EpochLoop, Generic[T]): ...

    class Steps(StepLoop, Generic[T]): ...

    class Evaluation(EvalLoop, Generic[T]): ...

    assert all(hasattr(each, "__parameters__") for each in (Epochs, Steps, Evaluation))


def test_a_loader_has_the_dataset_that_it_was_given_though_batches_tell_their_samples() -> None:
    points = NoisyPoints()
    indexed = Indexed(points)
    loader = Loader(indexed, RandomSampler(SAMPLES, seed=3), batch_size=3, collate=indexed.collate)
    assert loader.dataset is points
    assert isinstance(next(iter(loader)), IndexedBatch)
