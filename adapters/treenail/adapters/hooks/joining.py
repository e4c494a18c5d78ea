"""Hooks with a state that join a run when it is resumed."""

from __future__ import annotations

from treenail.kernel import Engine, Stateful


def join(engine: Engine, hook: Stateful, checkpoint: dict[str, object]) -> None:
    """Give a hook that its run lacked when a checkpoint was saved a state in it: that with which the hook begins.

    To be called at ``after_load_checkpoint``; a state that is there is left alone.

    Args:
        engine: Has the hook attached.
        hook: The hook.
        checkpoint: The state tree.
    """
    states = checkpoint.get("hooks")
    name = next((name for name, each in engine.hooks.items() if each is hook), None)
    if isinstance(states, dict) and name is not None:
        states.setdefault(name, hook.state_dict())
