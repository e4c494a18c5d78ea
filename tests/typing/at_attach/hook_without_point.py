# raises: HookError: it has none of the hook points; override at least one method of Hook
"""A hook that would never be called at all."""

from treenail.kernel import Engine, Hook


class Watch(Hook):
    priority = 10


Engine().attach(Watch())
