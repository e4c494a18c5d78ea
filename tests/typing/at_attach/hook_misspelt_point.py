# raises: HookError: 'after_train_step' is not a hook point, it would never be called; did you mean 'after_train_iter'?
"""A misspelt point without @override: to mypy it is a method like any other."""

from treenail.kernel import Engine, Hook


class Watch(Hook):
    def after_train_step(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        engine.request_stop("trained")


Engine().attach(Watch())
