"""What a resumed run's config may change."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from copy import deepcopy

from treenail.kernel import CheckpointError, ConfigError, Engine, StateError, Stateful

_DIVIDES = ":zero_redundancy"
_HARMLESS = (
    *("loop.max_epochs", "loop.max_steps", "loop.max_iters"),
    *("limits.max_seconds", "limits.max_steps", "limits.sanity_batches", "limits.test_batches"),
    *("hooks", "priorities", "vis", "checkpoints", "imports", "test", "predict", "load_from"),
    *("distributed", "files", "device", "threads", "cudnn_benchmark"),
    *("recompute", "detect_anomaly", "detect_anomalous_params"),
    "updates.accumulative_counts",
)
_HARMLESS_FIELDS = ("num_workers",)
_OF_VALIDATION = (*(f"loop.{name}" for name in ("val_begin", "val_interval", "dynamic_intervals")), "val.metrics")

RESTARTABLE = ("optimizer", "schedules")
"""Parts that can begin anew in a run that goes on."""

_IN_STATES = ("optimizer", "parameters", "scale_lr", "schedules")
"""What has become part of a checkpoint's states."""


def refuse_changes(
    before: object, now: object, checkpoint: str, *, restart: Collection[str] = (), unwatched: bool = False
) -> None:
    """Refuse a config that would make the rest of a run another one.

    Longer training, curves, test and prediction, the number of loader processes, the deployment on processes and stores,
    what a batch is split into, what is computed again to save memory, what looks for anomalies, and hooks may change (for
    those that have a state, see `fit_hook_states`).

    Args:
        before: The config of the checkpoint's manifest.
        now: The config of this attempt, as plain data.
        checkpoint: Name of the checkpoint.
        restart: Parts that begin anew, of `RESTARTABLE`: what the config says of them counts.
        unwatched: Nothing in the training looks at what is validated, nor when, so that these may change.

    Raises:
        ConfigError: Something else differs; the message names the first differences.
    """
    # A config without limits has none to compare one by one.
    before, now = ({"limits": {}, **tree} if isinstance(tree, dict) else tree for tree in (before, now))
    harmless = (*_HARMLESS, *(_OF_VALIDATION if unwatched else ()), *(_IN_STATES if restart else ()))
    changes = [
        f"{path}: {old} → {new}"
        for path, old, new in differences(before, now)
        if not _is_below(path, harmless) and path.rpartition(".")[2] not in _HARMLESS_FIELDS
    ]
    if changes:
        raise ConfigError(
            f"the config is not the one that this run was begun with: {_first(changes)}",
            where=checkpoint,
            mend="undo that, begin a new run, or resume with --allow-changes",
        )


def kept_settings(before: object, now: object, checkpoint: str, restart: Collection[str] = ()) -> str | None:
    """Return a warning of what the config says in vain, since the states of the checkpoint hold; None where there is nothing.

    Args:
        before: The config of the checkpoint's manifest.
        now: The config of this attempt, as plain data.
        checkpoint: Name of the checkpoint.
        restart: Parts that begin anew.

    Raises:
        CheckpointError: The states are of another class of optimizer, or of other schedulers.
    """
    changes: list[str] = []
    for path, old, new in differences(_undivided(before), _undivided(now)):
        section = next((each for each in _IN_STATES if _is_below(path, (each,))), None)
        if section is None:
            continue
        change = f"{path}: {old} → {new}"
        is_other = path == section or (path.endswith(".type") and _plain(old) != _plain(new))
        if section in RESTARTABLE and section not in restart and is_other:
            both = " --restart schedules" if section == "optimizer" and "schedules" not in restart else ""
            raise CheckpointError(
                f"the state of the {section} is not one for this config ({change})",
                where=checkpoint,
                mend=f"let it begin anew with --restart {section}{both}",
            )
        if not restart:
            changes.append(change)
    if not changes:
        return None
    return (
        f"the checkpoint's values hold, and not what the config says now ({_first(changes)}): --restart schedules takes the "
        "config's numbers and keeps the optimizer's moments, --restart optimizer takes none of its state"
    )


def _undivided(config: object) -> object:
    """Return a config whose optimizers are those that ZeRO divides over ranks: it saves what they would by themselves."""
    if not isinstance(config, dict) or not isinstance(optimizer := config.get("optimizer"), dict):
        return config
    if str(optimizer.get("type", "")).endswith(_DIVIDES) and "optimizer" in optimizer:
        return {**config, "optimizer": optimizer["optimizer"]}
    if "type" in optimizer:
        return config
    several = {name: _undivided({"optimizer": each}) for name, each in optimizer.items()}
    plain = {name: each["optimizer"] if isinstance(each, dict) else each for name, each in several.items()}
    return {**config, "optimizer": plain}


def check_restart(restart: Collection[str]) -> None:
    """Check the names of parts that shall begin anew.

    Raises:
        ConfigError: There is no such part.
    """
    for name in restart:
        if name not in RESTARTABLE:
            raise ConfigError(
                f"no part '{name}' can begin anew", where="restart", mend=f"there are {', '.join(RESTARTABLE)}"
            )


def built_states(parts: Mapping[str, Stateful]) -> dict[str, dict[str, object]]:
    """Return the states of the parts that can begin anew, as they were built: what is done to the parts leaves them alone."""
    return {name: deepcopy(parts[name].state_dict()) for name in RESTARTABLE}


def begin_anew(built: Mapping[str, dict[str, object]], state: dict[str, object], restart: Collection[str]) -> None:
    """Let parts begin anew in a state tree that a run goes on from.

    A restarted optimizer has the numbers of the config and no moments. Restarted schedules begin at their first step, with the
    numbers of the config for all groups of parameters; the moments stay.

    Args:
        built: What `built_states` returned.
        state: Is changed.
        restart: Which, of `RESTARTABLE`.

    Raises:
        ConfigError: Schedules would go on from numbers that are gone.
    """
    schedules, optimizer = deepcopy(built["schedules"]), deepcopy(built["optimizer"])
    if "optimizer" in restart and "schedules" not in restart and any(map(bool, schedules.values())):
        raise ConfigError(
            "schedules go on from the numbers that they gave the optimizer, which begins anew",
            where="restart",
            mend="restart schedules, too",
        )
    if "schedules" in restart:
        state["schedules"] = schedules
    if "optimizer" in restart:
        state["optimizer"] = optimizer
    elif "schedules" in restart:
        state["optimizer"] = _with_numbers(state.get("optimizer"), optimizer)


def _with_numbers(saved: object, built: object) -> object:
    """Return the state of an optimizer, or of several by name, with the numbers of a built one's groups."""
    if not isinstance(saved, dict) or not isinstance(built, dict):
        return saved
    if "param_groups" not in built:
        return {name: _with_numbers(each, built.get(name)) for name, each in saved.items()}
    groups, ours = saved.get("param_groups"), built["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(ours):
        return saved  # the optimizer refuses it
    merged = [{**old, **new, "params": old["params"]} for old, new in zip(groups, ours, strict=True)]
    return {**saved, "param_groups": merged}


def _is_below(path: str, prefixes: Collection[str]) -> bool:
    return any(path == each or path.startswith((f"{each}.", f"{each}[")) for each in prefixes)


def _plain(name: str) -> str:
    """Return the name of a class without where it lies."""
    return name.rpartition(":")[2].rpartition(".")[2].casefold()


def _first(changes: list[str]) -> str:
    return "; ".join(changes[:3]) + (f" and {len(changes) - 3} more" if len(changes) > 3 else "")


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
