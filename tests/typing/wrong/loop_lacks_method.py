"""A loop that cannot be resumed."""

from treenail.contracts import TrainWork
from treenail.kernel import Engine, Loop


class Once:
    def __init__(self, work: TrainWork) -> None:
        self.work = work

    def run(self, engine: Engine) -> None:
        for batch in self.work.batches:
            self.work.step(batch)
            engine.commit(steps=1)

    def state_dict(self) -> dict[str, object]:
        return {}


def start(work: TrainWork) -> Loop:
    return Once(work)  # E: "Once" is missing following "Loop" protocol member ... load_state_dict
