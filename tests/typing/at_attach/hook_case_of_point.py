# raises: HookError: 'afterTrainIter' is not a hook point, it would never be called
"""The spelling of another framework's habit."""

from treenail.kernel import Engine


class Watch:
    def after_run(self, engine: Engine) -> None:
        self.done = True

    def afterTrainIter(self, engine: Engine) -> None:  # noqa: N802  # the mistake
        engine.request_stop("trained")


Engine().attach(Watch())
