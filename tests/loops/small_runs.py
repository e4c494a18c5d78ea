"""Trainings of a few steps in this process, that can be killed anywhere and go on from what was saved last."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from treenail.adapters.data import Loader, StreamedBatches
from treenail.adapters.hooks import RollbackError
from treenail.adapters.loops import EvalLoop
from treenail.adapters.optim import SupervisedStep
from treenail.adapters.runtime import RollbackLoop
from treenail.adapters.sampling import RandomSampler, SequentialSampler
from treenail.adapters.sampling.compat import InfiniteSampler
from treenail.adapters.seeding import seed_process
from treenail.contracts import TrainWork
from treenail.kernel import BatchSource, Engine, Hook, Loop, Record, Stateful

SAMPLES = 10  # 4 batches of 3, the last one of 1


class NoisyPoints:
    """Points whose every draw has fresh noise."""

    def __init__(self, size: int = SAMPLES) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.tensor([float(index), 1.0]) / 10 + torch.rand(2) / 10, torch.tensor([index / 10])


class EndlessPoints(IterableDataset[tuple[Tensor, Tensor]]):
    """The same without a length."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (NoisyPoints()[index] for index in range(SAMPLES))


def shuffled() -> BatchSource:
    return Loader(NoisyPoints(), RandomSampler(SAMPLES, seed=3), batch_size=3, seed=3)


def infinite() -> BatchSource:
    return Loader(NoisyPoints(), InfiniteSampler(SAMPLES, seed=3), batch_size=3, seed=3)


def streamed() -> BatchSource:
    return StreamedBatches(lambda _: torch.utils.data.DataLoader(EndlessPoints(), batch_size=3), seed=3)


class KilledError(BaseException):
    """Stands for the end of a process: no hook runs after it, and nothing is saved."""


class Watch(Hook):
    """Saves after every step, keeps what happens, and kills the run at a point of a step."""

    def __init__(self, kill: tuple[str, int] | None = None) -> None:
        self.kill = kill
        self.passed: list[tuple[str, int]] = []
        self.events: list[str] = []
        self.inputs: list[list[float]] = []

    def _pass(self, engine: Engine, point: str) -> None:
        self.passed.append((point, engine.step))
        if self.kill == (point, engine.step):
            raise KilledError

    def before_train_iter(self, engine: Engine, batch_index: int, batch: object) -> None:
        assert isinstance(batch, list)
        self.inputs.append([float(batch_index), *batch[0].flatten().tolist()])

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        engine.request_checkpoint("every step")
        self._pass(engine, "after_train_iter")

    def after_train_epoch(self, engine: Engine) -> None:
        self.events.append(f"epoch {engine.epoch} ended after step {engine.step}")
        self._pass(engine, "after_train_epoch")

    def before_val(self, engine: Engine) -> None:
        self._pass(engine, "before_val")

    def after_val_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        self._pass(engine, "after_val_iter")

    def after_val_epoch(self, engine: Engine, metrics: dict[str, float]) -> None:
        self.events.append(f"validated after step {engine.step} in epoch {engine.epoch}: {metrics}")
        engine.request_checkpoint("validated")
        self._pass(engine, "after_val_epoch")

    def before_save_checkpoint(self, engine: Engine, checkpoint: dict[str, object]) -> None:
        self._pass(engine, "before_save_checkpoint")


class Fails(Hook):
    """Says of a step that it failed, as a loss that is not finite does."""

    priority = 5

    def __init__(self, step: int) -> None:
        self.step = step

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        if engine.step == self.step:
            raise RollbackError("it failed", step=engine.step)


class TorchRng:
    """torch's generator, from which dropout draws: a part of a run."""

    def state_dict(self) -> dict[str, object]:
        return {"torch": torch.get_rng_state()}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        state = state_dict["torch"]
        assert isinstance(state, Tensor)
        torch.set_rng_state(state)


class Memory:
    """Keeps the last checkpoint: a `Checkpointer`."""

    def __init__(self) -> None:
        self.last: dict[str, object] | None = None
        self.count = 0

    def save(
        self, checkpoint: Mapping[str, object], *, step: int, epoch: int, reason: str, pointers: Sequence[str]
    ) -> str:
        self.last = copy.deepcopy(dict(checkpoint))
        self.count += 1
        return "memory"


class Attempt(NamedTuple):
    """What one process of a run left."""

    engine: Engine
    watch: Watch
    records: list[Record]
    batches: BatchSource
    killed: bool


def attempt(
    make: Callable[[TrainWork], Loop],
    source: Callable[[], BatchSource],
    memory: Memory,
    *,
    kill: tuple[str, int] | None = None,
    fails_at: int | None = None,
    validates: bool = True,
) -> Attempt:
    """Train from what the memory holds, if it holds something, as a new process would."""
    seed_process(11)
    model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.4), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loss = nn.MSELoss()
    batches = source()
    validation = None
    if validates:
        validation = EvalLoop("val", model, loss, Loader(NoisyPoints(5), SequentialSampler(5), batch_size=2, seed=4))
    loop = make(TrainWork(SupervisedStep(model, loss, optimizer), batches, validation))
    parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer, "batches": batches, "loop": loop}
    engine = Engine({**parts, "rng": TorchRng()}, checkpointer=memory)
    watch = Watch(kill)
    engine.attach(watch)
    if fails_at is not None:
        engine.attach(Fails(fails_at))

        def load() -> dict[str, object]:
            assert memory.last is not None
            return copy.deepcopy(memory.last)

        loop = RollbackLoop(loop, load)
    records: list[Record] = []
    engine.subscribe(records.append)
    killed = False
    try:
        engine.run(loop, resume=copy.deepcopy(memory.last))
    except KilledError:
        killed = True
    return Attempt(engine, watch, records, batches, killed)


def final_state(engine: Engine) -> dict[str, object]:
    """Return an engine's tree without what counts attempts."""
    tree = copy.deepcopy(engine.state_dict())
    own = tree["engine"]
    assert isinstance(own, dict)
    del own["attempt"]
    return tree
