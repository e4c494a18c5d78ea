# raises: HookError: it is a class, not a hook
"""The class is attached instead of the hook: anything can be attached, so mypy sees nothing."""

from treenail.adapters.hooks import TimerHook
from treenail.kernel import Engine

Engine().attach(TimerHook)
