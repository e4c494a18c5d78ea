# raises: HookError: cannot take what the engine passes; its parameters are after_val_epoch(engine, metrics)
"""A hook without the base class: nothing tells mypy what a point must take."""

from treenail.kernel import Engine


class Watch:
    def after_val_epoch(self, engine: Engine) -> None:
        engine.request_stop("validated")


Engine().attach(Watch())
