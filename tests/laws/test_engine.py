"""The engine obeys the laws of hook dispatch."""

from treenail.contracts.laws import HookDispatchLaws
from treenail.kernel import Engine


class TestEngine(HookDispatchLaws):
    def make(self) -> Engine:
        return Engine()
