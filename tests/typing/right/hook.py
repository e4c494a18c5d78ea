"""A hook of one's own: overrides points, keeps state, asks for checkpoints and stops."""

from typing_extensions import override

from treenail.contracts import StepOutput
from treenail.kernel import Engine, Hook


class StopOnPlateau(Hook):
    """Asks for a stop when the best loss is too old."""

    priority = 70
    after = ("LoggerHook",)

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best = float("inf")
        self.age = 0

    @override
    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        if isinstance(outputs, StepOutput):
            engine.meters.add("train/loss", outputs.loss, outputs.weight)

    @override
    def after_val_epoch(self, engine: Engine, metrics: dict[str, float]) -> None:
        loss = metrics["val/loss"]
        if loss < self.best:
            self.best, self.age = loss, 0
            engine.request_checkpoint(f"best loss {loss:.3g}", "best")
        else:
            self.age += 1
        if self.age >= self.patience:
            engine.request_stop("the loss does not fall any more")

    def state_dict(self) -> dict[str, object]:
        return {"best": self.best, "age": self.age}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        best, age = state_dict["best"], state_dict["age"]
        assert isinstance(best, float)
        assert isinstance(age, int)
        self.best, self.age = best, age


engine = Engine()
engine.attach(StopOnPlateau(patience=2), "plateau")
for loss in (0.5, 0.6, 0.7):
    if fire := engine.points.after_val_epoch:
        fire(engine, {"val/loss": loss})
assert engine.stop_reason == "the loss does not fall any more"
assert engine.state_dict()["hooks"] == {"plateau": {"best": 0.5, "age": 2}}
