"""Parts of an engine: anything with a state, torch's own objects included."""

from torch import nn, optim

from treenail.kernel import Engine, Stateful


class Counter:
    def __init__(self) -> None:
        self.seen = 0

    def state_dict(self) -> dict[str, object]:
        return {"seen": self.seen}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        seen = state_dict["seen"]
        assert isinstance(seen, int)
        self.seen = seen


model = nn.Linear(2, 1)
optimizer = optim.SGD(model.parameters(), lr=0.1)
scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=1)
parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "counter": Counter()}
engine = Engine(parts)
engine.part("counter", Counter).seen += 3
assert engine.state_dict()["counter"] == {"seen": 3}
