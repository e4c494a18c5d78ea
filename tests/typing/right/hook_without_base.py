"""A hook is any object with a hook point: no base class is needed."""

from treenail.kernel import Engine


class CountEpochs:
    def __init__(self) -> None:
        self.epochs = 0

    def after_train_epoch(self, engine: Engine) -> None:
        self.epochs += 1

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        error.add_note(f"after {self.epochs} epochs")


engine = Engine()
counter = CountEpochs()
engine.attach(counter)
if fire := engine.points.after_train_epoch:
    fire(engine)
assert counter.epochs == 1
assert engine.points.before_train_epoch is None
