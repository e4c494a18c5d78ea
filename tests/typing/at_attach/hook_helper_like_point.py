# raises: HookError: 'on_plateau' is not a hook point, it would never be called
"""A helper whose name begins like a point's."""

from typing_extensions import override

from treenail.kernel import Engine, Hook


class Watch(Hook):
    @override
    def after_val_epoch(self, engine: Engine, metrics: dict[str, float]) -> None:
        self.on_plateau(engine)

    def on_plateau(self, engine: Engine) -> None:
        engine.request_stop("the loss does not fall any more")


Engine().attach(Watch())
