"""A hook point that wants more than the engine passes."""

from typing_extensions import override

from treenail.kernel import Engine, Hook


class Watch(Hook):
    @override
    def before_train(self, engine: Engine, config: str) -> None:  # E: Signature ... incompatible with supertype
        engine.request_stop(config)
