"""What a resumed run's config may change."""

from __future__ import annotations

from treenail.kernel import ConfigError

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
    what a batch is split into, what is computed again to save memory, what looks for anomalies, and hooks may change (a
    hook that has a state must stay: its state is in the checkpoint).

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
