"""The names of other hooks are a tuple."""

from typing_extensions import override

from treenail.kernel import Engine, Hook


class Watch(Hook):
    after = "LoggerHook"  # E: base class "Hook" defined the type as "tuple[str, ...]"

    @override
    def after_train(self, engine: Engine) -> None:
        engine.request_stop("trained")
