# raises: HookError: the declared order of hooks is a cycle: First → Second → First
"""Two hooks that each want to be the first."""

from typing_extensions import override

from treenail.kernel import Engine, Hook


class First(Hook):
    before = ("Second",)

    @override
    def after_run(self, engine: Engine) -> None:
        engine.publish({"first": 1})


class Second(Hook):
    before = ("First",)

    @override
    def after_run(self, engine: Engine) -> None:
        engine.publish({"second": 2})


engine = Engine()
engine.attach(First())
engine.attach(Second())
