"""A training that is killed anywhere and goes on equals the undisturbed one, bit for bit, by epoch and by step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.loops.small_runs import Attempt, Memory, attempt, final_state, infinite, shuffled, streamed
from tests.resume.outcomes import difference

from treenail.adapters.loops import EpochLoop, IterBasedTrainLoop, StepLoop
from treenail.contracts import TrainWork
from treenail.kernel import BatchSource, Loop

CASES: dict[str, tuple[Callable[[TrainWork], Loop], Callable[[], BatchSource]]] = {
    "epochs": (lambda work: EpochLoop(work, max_epochs=3, val_interval=2), shuffled),
    "epochs of passes without end": (lambda work: EpochLoop(work, max_epochs=3), infinite),
    "epochs of a stream": (lambda work: EpochLoop(work, max_epochs=3), streamed),
    "short epochs": (lambda work: EpochLoop(work, max_epochs=4, epoch_length=3), shuffled),
    "long epochs": (lambda work: EpochLoop(work, max_epochs=2, epoch_length=6), shuffled),
    "short epochs of passes without end": (lambda work: EpochLoop(work, max_epochs=4, epoch_length=3), infinite),
    "short epochs of a stream": (lambda work: EpochLoop(work, max_epochs=4, epoch_length=3), streamed),
    "steps": (lambda work: StepLoop(work, max_steps=11, val_interval=4, dynamic_intervals=((8, 1),)), shuffled),
    "steps to an epoch's end": (lambda work: IterBasedTrainLoop(work, max_iters=12, val_interval=5), shuffled),
    "steps of passes without end": (lambda work: StepLoop(work, max_steps=11, val_interval=4), infinite),
    "steps of a stream": (lambda work: StepLoop(work, max_steps=11, val_interval=3), streamed),
}
POINTS = (
    *("after_train_iter", "after_train_epoch", "before_val", "after_val_iter", "after_val_epoch"),
    "before_save_checkpoint",
)


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Attempt]:
    runs: dict[str, Attempt] = {}
    for name, (make, source) in CASES.items():
        runs[name] = attempt(make, source, Memory())
        assert not runs[name].killed
    return runs


@pytest.mark.parametrize("case", CASES)
def test_a_killed_training_goes_on_as_if_nothing_had_happened(case: str, undisturbed: dict[str, Attempt]) -> None:
    make, source = CASES[case]
    whole = undisturbed[case]
    seen = whole.watch.passed
    assert {point for point, _ in seen} == set(POINTS)
    last = whole.engine.step - 1
    # First step, within an epoch, an epoch's last and first step, the last step; the first and last time of what is rarer.
    of_steps = [("after_train_iter", step) for step in (0, 1, 3, 4, last)] + [("before_save_checkpoint", 4)]
    kinds = [[kill for kill in seen if kill[0] == point] for point in POINTS if point not in dict(of_steps)]
    for kill in dict.fromkeys([*of_steps, *(kind[end] for kind in kinds for end in (0, -1))]):
        memory = Memory()
        first = attempt(make, source, memory, kill=kill)
        assert first.killed
        second = attempt(make, source, memory)
        where = difference(final_state(second.engine), final_state(whole.engine))
        assert where is None, (kill, where)
        saved = second.records[0].commit if second.records else whole.engine.commits + 1
        kept = [*(record for record in first.records if record.commit < saved), *second.records]
        ours, theirs = ([(r.values, r.step, r.epoch, r.commit) for r in each] for each in (kept, whole.records))
        assert ours == theirs, kill
        assert second.watch.inputs == whole.watch.inputs[len(whole.watch.inputs) - len(second.watch.inputs) :], kill
        assert second.watch.events == whole.watch.events[len(whole.watch.events) - len(second.watch.events) :], kill


def test_a_longer_training_goes_on_from_a_shorter_ones_end() -> None:
    for source in (shuffled, streamed):
        memory = Memory()
        attempt(lambda work: StepLoop(work, max_steps=6, val_interval=3), source, memory)
        longer = attempt(lambda work: StepLoop(work, max_steps=11, val_interval=3), source, memory)
        whole = attempt(lambda work: StepLoop(work, max_steps=11, val_interval=3), source, Memory())
        for part in ("model", "optimizer", "batches", "rng"):
            assert difference(final_state(longer.engine)[part], final_state(whole.engine)[part]) is None


@pytest.mark.parametrize("step", [1, 3, 11])
@pytest.mark.parametrize(
    "make",
    [
        lambda work: EpochLoop(work, max_epochs=3),
        lambda work: EpochLoop(work, max_epochs=4, epoch_length=3),
        lambda work: StepLoop(work, max_steps=12, val_interval=4),
    ],
    ids=["epochs", "short epochs", "steps"],
)
def test_a_batch_that_a_rollback_leaves_out_is_no_other_ones_loss(make: Callable[[TrainWork], Loop], step: int) -> None:
    """Between two attempts the batch is consumed and the step counts, without the loop."""
    whole = attempt(make, shuffled, Memory()).watch
    rolled = attempt(make, shuffled, Memory(), fails_at=step)
    assert rolled.watch.inputs == whole.inputs
    assert rolled.engine.step == 12
    events = {event.split(":")[0] for event in whole.events}
    assert {event.split(":")[0] for event in rolled.watch.events} == events
