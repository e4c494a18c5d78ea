"""Loops, loader and step: what a training does, by example."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from treenail.adapters.data import Batches, Loader
from treenail.adapters.evaluation import Accuracy
from treenail.adapters.hooks import BoundSchedule, ScheduleHook, Schedules
from treenail.adapters.loops import EpochLoop, EvalLoop
from treenail.adapters.optim import SupervisedStep
from treenail.adapters.sampling import ClassBalancedSampler, RandomSampler, SequentialSampler, WeightedSampler
from treenail.adapters.seeding import seed_process
from treenail.contracts import StepOutput, TrainWork
from treenail.kernel import Engine, Hook, Sampler, StateError, TrainingError


def batches(count: int = 4, size: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(size, 2, generator=generator), torch.zeros(size).long()) for _ in range(count)]


def model() -> nn.Module:
    seed_process(0)
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))


class Noise:
    """Samples that are random numbers."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> float:
        return random.random()


class Journal(Hook):
    """Writes down what happens."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.lines: list[str] = []
        self.stop_at = stop_at

    def before_train(self, engine: Engine) -> None:
        self.lines.append("train")

    def before_train_epoch(self, engine: Engine) -> None:
        self.lines.append(f"epoch {engine.epoch}")

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        self.lines.append(f"{engine.step}:{batch_index}")
        if engine.step == self.stop_at:
            engine.request_stop("enough")

    def after_train_epoch(self, engine: Engine) -> None:
        self.lines.append("trained")

    def after_val_epoch(self, engine: Engine, metrics: dict[str, float]) -> None:
        self.lines.append("validated")

    def after_train(self, engine: Engine) -> None:
        self.lines.append("end")


def training(stop_at: int | None = None, epochs: int = 2, val_interval: int = 1) -> tuple[Engine, EpochLoop, Journal]:
    network, loss, source = model(), nn.CrossEntropyLoss(), Batches(batches(2))
    step = SupervisedStep(network, loss, torch.optim.SGD(network.parameters(), lr=0.1))
    loop = EpochLoop(
        TrainWork(step, source, EvalLoop("val", network, loss, Batches(batches(1)))),
        max_epochs=epochs,
        val_interval=val_interval,
    )
    engine = Engine({"model": network, "batches": source, "loop": loop})
    journal = Journal(stop_at)
    engine.attach(journal, "journal")
    return engine, loop, journal


def test_a_training_runs_epochs_steps_and_validations_in_order() -> None:
    engine, loop, journal = training()
    engine.run(loop)
    epoch = ["epoch 0", "0:0", "1:1", "trained", "validated", "epoch 1", "2:0", "3:1", "trained", "validated"]
    assert journal.lines == ["train", *epoch, "end"]
    assert (engine.step, engine.epoch, engine.total_steps) == (4, 2, 4)


def test_the_last_epoch_is_validated_whatever_the_interval() -> None:
    engine, loop, journal = training(epochs=3, val_interval=2)
    engine.run(loop)
    assert [line for line in journal.lines if line in ("trained", "validated")] == [
        "trained",
        "trained",
        "validated",
        "trained",
        "validated",
    ]


@pytest.mark.parametrize("stop_at", [0, 1, 2, 3])
def test_a_stopped_training_goes_on_with_the_next_batch(stop_at: int) -> None:
    engine, loop, journal = training(stop_at)
    engine.run(loop)
    assert (engine.step, journal.lines[-1]) == (stop_at + 1, "end")
    again, loop, rest = training()
    again.run(loop, resume=engine.state_dict())
    steps = [line for line in journal.lines + rest.lines if ":" in line]
    assert steps == ["0:0", "1:1", "2:0", "3:1"]
    assert (again.step, again.epoch, again.attempt) == (4, 2, 2)


def test_an_interrupted_validation_begins_anew_after_a_resume() -> None:
    class StopInValidation(Hook):
        def before_val_iter(self, engine: Engine, batch_index: int, batch: object) -> None:
            engine.request_stop("now")

        def before_val(self, engine: Engine) -> None:
            engine.request_stop("now")

    engine, loop, journal = training()
    engine.attach(StopInValidation())
    engine.run(loop)
    assert journal.lines[-2:] == ["trained", "end"]
    assert (engine.step, engine.epoch) == (2, 0)
    again, loop, rest = training()
    again.run(loop, resume=engine.state_dict())
    assert rest.lines[:4] == ["train", "validated", "epoch 1", "2:0"]


def test_validation_leaves_modes_weights_and_generators_as_they_were() -> None:
    network = model()
    network.get_submodule("1").eval()
    before = [module.training for module in network.modules()]
    torch.manual_seed(5)
    random.seed(5)
    expected = (torch.rand(1), random.random())
    torch.manual_seed(5)
    random.seed(5)
    loop = EvalLoop("val", network, nn.CrossEntropyLoss(), Batches(batches()), [Accuracy()])
    Engine().run(loop)
    assert (torch.rand(1), random.random()) == expected
    assert [module.training for module in network.modules()] == before


def test_evaluation_weighs_uneven_batches_by_their_samples() -> None:
    outputs = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    targets = torch.tensor([0, 0, 0, 0, 0])
    source = Batches([(outputs[:4], targets[:4]), (outputs[4:], targets[4:])])
    loop = EvalLoop("test", nn.Identity(), nn.CrossEntropyLoss(), source, [Accuracy()])
    Engine().run(loop)
    assert loop.metrics is not None
    assert loop.metrics["test/accuracy"] == 3 / 5
    assert loop.metrics["test/loss"] == pytest.approx(float(nn.CrossEntropyLoss()(outputs, targets)))


def test_wrong_batches_losses_and_metrics_are_explained() -> None:
    network = nn.Linear(2, 2)
    step = SupervisedStep(network, nn.CrossEntropyLoss(), torch.optim.SGD(network.parameters(), lr=0.1))
    with pytest.raises(TrainingError, match=r"a batch is a dict of 1; let the dataset return \(input, target\) pairs"):
        step({"image": torch.ones(1)})
    with pytest.raises(TrainingError, match=r"a batch is \(Tensor, list of 2\)"):
        step((torch.ones(1), ["a", "b"]))
    summed = SupervisedStep(network, lambda outputs, targets: outputs, torch.optim.SGD(network.parameters(), lr=0.1))
    with pytest.raises(TrainingError, match=r"the loss is a tensor of shape \[3, 2\]"):
        summed(batches(1)[0])
    cut = SupervisedStep(
        network, lambda outputs, targets: torch.ones(()), torch.optim.SGD(network.parameters(), lr=0.1)
    )
    with pytest.raises(TrainingError, match="requires_grad=False; a loss must be one number"):
        cut(batches(1)[0])
    loop = EvalLoop("val", network, nn.CrossEntropyLoss(), Batches(batches()), [Accuracy(), Accuracy()])
    with pytest.raises(TrainingError, match="two metrics give 'val/accuracy'"):
        Engine().run(loop)
    with pytest.raises(TrainingError, match="no batch to train on"):
        Engine().run(EpochLoop(TrainWork(step, Batches(())), max_epochs=1))


def test_a_skipped_step_does_not_advance_a_schedule() -> None:
    network = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    skipped = iter([False, True, False, True])

    def step(batch: object) -> StepOutput:
        optimizer.step()
        return StepOutput(torch.zeros(()), 1.0, stepped=not next(skipped))

    engine = Engine({"optimizer": optimizer, "schedules": Schedules([BoundSchedule(scheduler, "step")])})
    engine.attach(ScheduleHook())
    engine.run(EpochLoop(TrainWork(step, Batches(batches(4))), max_epochs=1))
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert engine.meters.drain()["lr"] == 0.25


class Noisy:
    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([float(index), float(torch.rand(())), random.random()])


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_samples_depend_on_seed_epoch_and_index_alone(workers: int) -> None:
    def drawn(sampler: RandomSampler | SequentialSampler, workers: int, epoch: int) -> dict[float, Tensor]:
        loader = Loader(Noisy(), sampler, batch_size=4, num_workers=workers, seed=1)
        loader.set_epoch(epoch)
        rows = [row for batch in loader for row in batch]  # type: ignore[attr-defined]  # batches are tensors here
        return {float(row[0]): row for row in rows}

    plain = drawn(SequentialSampler(23), 0, 2)
    shuffled = drawn(RandomSampler(23), workers, 2)
    assert plain.keys() == shuffled.keys()
    assert all(torch.equal(plain[index], shuffled[index]) for index in plain)
    other = drawn(SequentialSampler(23), 0, 3)
    assert not any(torch.equal(plain[index], other[index]) for index in plain)


@pytest.mark.parametrize(
    "sampler",
    [
        RandomSampler(10, repeats=3),
        ClassBalancedSampler(10, [0] * 9 + [1], num_samples=30),
        WeightedSampler(10, [1.0] * 10),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_that_comes_again_is_no_copy(sampler: Sampler, workers: int) -> None:
    def drawn() -> list[float]:
        loader = Loader(Noise(), sampler, batch_size=4, num_workers=workers)
        noise = [value for batch in loader if isinstance(batch, Tensor) for value in batch.tolist()]
        loader.close()
        return noise

    noise = drawn()
    assert len(set(noise)) == len(sampler)
    assert drawn() == noise


@settings(deadline=None)  # makes loaders, which takes long on a busy machine
@given(size=st.integers(0, 30), batch=st.integers(1, 7), consumed=st.integers(0, 40), drop_last=st.booleans())
def test_a_loader_goes_on_after_the_batches_that_were_consumed(
    size: int, batch: int, consumed: int, drop_last: bool
) -> None:
    def loader() -> Loader:
        data = [torch.tensor(index) for index in range(size)]
        return Loader(data, RandomSampler(size, 3), batch_size=batch, drop_last=drop_last)

    first = loader()
    whole = [batch.tolist() for batch in first]  # type: ignore[attr-defined]  # batches are tensors here
    assert len(whole) == len(first)
    consumed = min(consumed, len(whole))
    prefetching = iter(first)
    for _ in range(min(consumed + 2, len(whole))):
        next(prefetching)
    for _ in range(consumed):
        first.advance()
    second = loader()
    second.load_state_dict(first.state_dict())
    assert second.consumed == consumed
    rest = [batch.tolist() for batch in second]  # type: ignore[attr-defined]  # likewise
    assert rest == whole[consumed:]


class Ends:
    """Says it has ten samples and has five."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index >= 5:
            raise StopIteration
        return torch.ones(2), torch.tensor(0)


def test_data_that_ends_too_early_is_an_error_not_a_short_epoch() -> None:
    network, loss = nn.Linear(2, 2), nn.CrossEntropyLoss()
    step = SupervisedStep(network, loss, torch.optim.SGD(network.parameters(), lr=0.1))

    def source() -> Loader:
        return Loader(Ends(), SequentialSampler(10), batch_size=5)

    with pytest.raises(TrainingError, match="the epoch ended after 1 of 2 batches"):
        Engine().run(EpochLoop(TrainWork(step, source()), max_epochs=1))
    with pytest.raises(TrainingError, match="the val data ended after 1 of 2 batches"):
        Engine().run(EvalLoop("val", network, loss, source()))


def test_an_optimizer_that_needs_a_closure_gets_one() -> None:
    seed_process(0)
    network = nn.Linear(2, 1)
    step = SupervisedStep(network, nn.MSELoss(), torch.optim.LBFGS(network.parameters(), lr=0.5))
    inputs = torch.randn(16, 2)
    losses = [float(step((inputs, inputs.sum(1, keepdim=True))).loss) for _ in range(3)]
    assert losses[2] < losses[0] / 100


def test_a_loss_that_is_a_module_is_in_eval_mode_during_an_evaluation() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(2)

        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return nn.functional.cross_entropy(self.norm(outputs), targets)

    loss = Normed()
    before = loss.norm.running_mean
    assert before is not None
    before = before.clone()
    Engine().run(EvalLoop("val", nn.Identity(), loss, Batches(batches())))
    assert loss.norm.training
    assert loss.norm.running_mean is not None
    assert torch.equal(loss.norm.running_mean, before)


def test_a_collate_that_draws_depends_on_the_batch_alone_and_disturbs_nobody() -> None:
    def noisy(samples: list[object]) -> object:
        return torch.rand(3)

    def drawn(workers: int) -> list[Tensor]:
        loader = Loader([0] * 8, SequentialSampler(8), batch_size=4, num_workers=workers, collate=noisy)
        return [batch for batch in loader if isinstance(batch, Tensor)]

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    plain, parallel = drawn(0), drawn(2)
    assert torch.equal(torch.rand(1), expected)
    assert len(plain) == 2
    assert all(map(torch.equal, plain, parallel))


def test_a_loader_can_be_closed_and_iterated_again() -> None:
    loader = Loader(list(range(8)), SequentialSampler(8), batch_size=4, num_workers=1)
    first = [batch.tolist() for batch in loader]  # type: ignore[attr-defined]  # batches are tensors here
    loader.close()
    assert [batch.tolist() for batch in loader] == first == [[0, 1, 2, 3], [4, 5, 6, 7]]  # type: ignore[attr-defined]  # likewise
    loader.close()
    loader.close()


def test_states_of_other_data_are_refused() -> None:
    with pytest.raises(StateError, match=r"the state's size is 5, this sampler's is 6; resume with the dataset"):
        RandomSampler(6).load_state_dict(RandomSampler(5).state_dict())
    with pytest.raises(StateError, match="the state is of 2 batches, here are 3"):
        Batches(batches(3)).load_state_dict(Batches(batches(2)).state_dict())
