# raises: HookError: after names 'LogerHook', which is not attached; did you mean 'LoggerHook'?
"""An order that names a hook which nobody attaches."""

from typing_extensions import override

from treenail.adapters.hooks import LoggerHook
from treenail.kernel import Engine, Hook


class Watch(Hook):
    after = ("LogerHook",)

    @override
    def after_run(self, engine: Engine) -> None:
        engine.request_checkpoint("done")


engine = Engine()
engine.attach(LoggerHook())
engine.attach(Watch())
engine.run()
