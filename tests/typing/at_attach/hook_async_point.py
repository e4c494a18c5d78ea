# raises: HookError: 'after_run' is async or a generator, it would never run
"""A point that is a coroutine: the engine calls it, and nobody awaits it."""

from treenail.kernel import Engine


class Waits:
    async def after_run(self, engine: Engine) -> None:
        engine.request_stop("waited")


Engine().attach(Waits())
