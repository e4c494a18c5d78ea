"""The engine is not the god object of other frameworks."""

from typing_extensions import override

from treenail.kernel import Engine, Hook


class Watch(Hook):
    @override
    def after_train(self, engine: Engine) -> None:
        engine.model.eval()  # E: "Engine" has no attribute "model"
