"""A hook point that would never be awaited."""

from typing_extensions import override

from treenail.kernel import Engine, Hook


class Watch(Hook):
    @override
    async def after_train(self, engine: Engine) -> None:  # E: "Coroutine ... incompatible with return type "None"
        engine.request_stop("trained")
