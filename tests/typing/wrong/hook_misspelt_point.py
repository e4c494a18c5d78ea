"""A hook point that does not exist, marked as an override."""

from typing_extensions import override

from treenail.kernel import Engine, Hook


class Watch(Hook):
    @override
    def after_train_step(self, engine: Engine) -> None:  # E: is marked as an override, but no base method
        engine.request_stop("trained")
