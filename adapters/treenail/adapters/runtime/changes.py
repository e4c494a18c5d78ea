"""What a resumed run's config may change."""

from __future__ import annotations

from collections.abc import Callable

from treenail.kernel import ConfigError, Engine, StateError, Stateful

_HARMLESS = (
    *("loop.max_epochs", "loop.max_steps", "loop.max_iters"),
    *("limits.max_seconds", "limits.max_steps", "limits.sanity_batches", "limits.test_batches"),
    *("hooks", "priorities", "vis", "checkpoints", "imports", "test", "predict", "load_from"),
    *("distributed", "files", "device", "threads", "recompute", "detect_anomaly", "detect_anomalous_params"),
    "updates.accumulative_counts",
)
_HARMLESS_FIELDS = ("num_workers",)


def refuse_changes(before: object, now: object, checkpoint: str) -> None:
    """Refuse a config that would make the rest of a run another one.

    Longer training, curves, test and prediction, the number of loader processes, the deployment on processes and stores,
    what a batch is split into, what is computed again to save memory, what looks for anomalies, and hooks may change (for
    those that have a state, see `fit_hook_states`).

    Args:
        before: The config of the checkpoint's manifest.
        now: The config of this attempt, as plain data.
        checkpoint: Name of the checkpoint.

    Raises:
        ConfigError: Something else differs; the message names the first differences.
    """
    # A config without limits has none to compare one by one.
    before, now = ({"limits": {}, **tree} if isinstance(tree, dict) else tree for tree in (before, now))
    changes = [
        f"{path}: {old} → {new}"
        for path, old, new in differences(before, now)
        if not any(path == prefix or path.startswith(f"{prefix}.") for prefix in _HARMLESS)
        and path.rpartition(".")[2] not in _HARMLESS_FIELDS
    ]
    if changes:
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        raise ConfigError(
            f"the config is not the one that this run was begun with: {'; '.join(changes[:3])}{more}",
            where=checkpoint,
            mend="undo that, begin a new run, or resume with --allow-changes",
        )


def fit_hook_states(
    engine: Engine, checkpoint: dict[str, object], *, allow_changes: bool, warn: Callable[[str], object]
) -> None:
    """Let a checkpoint have the states of just those hooks that a resumed run has: a new one begins anew.

    Args:
        engine: Has the hooks.
        checkpoint: The state tree, which is changed.
        allow_changes: Drop the states of hooks that the run lacks.
        warn: Is told, in a sentence each, of the hooks that are new and of those whose states are dropped.

    Raises:
        StateError: There is such a hook, and allow_changes is False.
    """
    states = checkpoint.get("hooks")
    if not isinstance(states, dict):
        return  # the engine refuses it
    hooks = {name: hook for name, hook in engine.hooks.items() if isinstance(hook, Stateful)}
    if gone := [name for name in states if name not in hooks]:
        what = f"{'states of the hooks' if len(gone) > 1 else 'a state of the hook'} {_quoted(gone)}"
        if not allow_changes:
            raise StateError(
                f"the checkpoint has {what}, which this run lacks",
                mend="put that back into the config, or drop what it remembers with --allow-changes",
            )
        warn(f"the checkpoint has {what}, which this run lacks: dropped")
        for name in gone:
            del states[name]
    if new := [name for name in hooks if name not in states]:
        warn(f"the checkpoint has no state of {_quoted(new)}, new in this run: begun anew")
        states.update({name: hooks[name].state_dict() for name in new})


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def differences(before: object, now: object, path: str = "") -> list[tuple[str, str, str]]:
    """Return (path, before, now) of each leaf that differs between two trees of plain data."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        lead = f"{path}." if path else ""
        pairs = [(f"{lead}{key}", before.get(key), now.get(key)) for key in keys]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = [(f"{path}[{index}]", *pair) for index, pair in enumerate(zip(before, now, strict=True))]
    else:
        return [] if before == now else [(path, _short(before), _short(now))]
    return [found for name, old, new in pairs for found in differences(old, new, name)]


def _short(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
