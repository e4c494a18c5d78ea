# raises: HookError: 'after_run' is not a method; define after_run(engine)
"""A point's name that holds a value."""

from treenail.kernel import Engine


class Watch:
    after_run = "print"


Engine().attach(Watch())
