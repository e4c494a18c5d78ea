"""A hook that counts steps itself."""

from treenail.kernel import Engine, Hook


class Count(Hook):
    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object, /) -> None:
        engine.step += 1  # E: Property "step" defined in "Engine" is read-only
