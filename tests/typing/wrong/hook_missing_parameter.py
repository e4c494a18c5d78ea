"""A hook point that lacks a parameter."""

from typing_extensions import override

from treenail.kernel import Engine, Hook


class Watch(Hook):
    @override
    def after_val_epoch(self, engine: Engine) -> None:  # E: Signature of "after_val_epoch" incompatible with supertype
        engine.request_stop("validated")
