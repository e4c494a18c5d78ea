"""A priority is a number."""

from typing_extensions import override

from treenail.kernel import Engine, Hook


class Watch(Hook):
    priority = "VERY_LOW"  # E: base class "Hook" defined the type as "int"

    @override
    def after_train(self, engine: Engine) -> None:
        engine.request_stop("trained")
