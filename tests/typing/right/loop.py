"""A loop of one's own: trains for a number of steps, epochs going by."""

from torch import nn, optim, rand

from treenail.adapters.data import Batches
from treenail.adapters.optim import SupervisedStep
from treenail.contracts import TrainWork
from treenail.kernel import Engine, Late, Loop, late


class StepLoop:
    def __init__(self, work: TrainWork, *, max_steps: int) -> None:
        self._work = work
        self.max_steps = max_steps

    def run(self, engine: Engine) -> None:
        batches, points = self._work.batches, engine.points
        while engine.step < self.max_steps and engine.stop_reason is None:
            batches.set_epoch(engine.epoch)
            for index, batch in enumerate(batches, start=batches.consumed):
                if before := points.before_train_iter:
                    before(engine, index, batch)
                outputs = self._work.step(batch)
                if after := points.after_train_iter:
                    after(engine, index, batch, outputs)
                batches.advance()
                engine.commit(steps=1)
                if engine.step == self.max_steps:
                    return
            engine.commit(epochs=1)

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """The counters are the engine's."""


described: Late[TrainWork, Loop] = late(StepLoop)(max_steps=5)
model = nn.Linear(3, 1)
step = SupervisedStep(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1))
work = TrainWork(step=step, batches=Batches([(rand(2, 3), rand(2, 1)) for _ in range(3)]))
engine = Engine({"model": model})
engine.run(described.build(work))
assert (engine.step, engine.epoch) == (5, 1)
