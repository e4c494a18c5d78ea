"""The hooks of a run: the defaults, those of its config, and what hooks of ours are given."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import msgspec

from treenail.adapters.comm import SingleProcess
from treenail.adapters.hooks import (
    AveragingHook,
    CheckpointHook,
    EarlyStoppingHook,
    HistogramHook,
    LoggerHook,
    MemoryHook,
    NonFiniteHook,
    NotifyHook,
    ProbeHook,
    ProfilerHook,
    ProgressHook,
    RequeueHook,
    ScheduleHook,
    StragglerHook,
    ThroughputHook,
    TimerHook,
    VisHook,
)
from treenail.adapters.hooks.compat import EarlyStoppingHook as MmengineEarlyStoppingHook
from treenail.adapters.hooks.compat import LoggerHook as MmengineLoggerHook
from treenail.adapters.hooks.compat import bind_runner, get_priority
from treenail.adapters.loops import StepLoop
from treenail.adapters.runtime.assemble import Assembly, load
from treenail.adapters.runtime.events import log_file_of
from treenail.adapters.runtime.limits import StepLimit
from treenail.contracts import Data, Run
from treenail.kernel import Communicator, ConfigError, Hook, Spec, did_you_mean


def default_hooks(
    run: Run, assembly: Assembly, work_dir: Path, communicator: Communicator | None = None
) -> dict[str, Hook]:
    """Return the hooks of a run by name: the defaults, those of the config in their place or besides, none for null.

    Ranks other than 0 have no progress bar, and say nothing but what their own log files hold, if they shall have some.

    Raises:
        BuildError: A hook's constructor raised.
        ConfigError: A step that fails shall be rolled back, and nothing saves a checkpoint to go back to.
    """
    communicator = communicator or SingleProcess()
    rank, settings = communicator.rank, run.distributed
    many = communicator.world_size > 1
    specs: dict[str, Spec[Hook] | None] = {
        "timer": Spec(TimerHook),
        "logger": Spec(LoggerHook),
        "progress": Spec(ProgressHook),
        "schedule": Spec(ScheduleHook),
        "checkpoint": _checkpoint(assembly),
        "averaging": Spec(AveragingHook) if run.averaging is not None else None,
        "stragglers": Spec(StragglerHook, (settings.stragglers,)) if many and settings.stragglers is not None else None,
        **run.hooks,
    }
    given = _given(run, assembly, work_dir, communicator)
    hooks = {
        name: each.filled(**given.get(each.target, {})).build()
        for name, each in specs.items()
        if each is not None and not (rank > 0 and each.target is ProgressHook)
    }
    _refuse_without(run, hooks)
    if "vis" not in specs and assembly.vis:
        config = msgspec.json.format(msgspec.json.encode(assembly.config)).decode()
        hooks["vis"] = VisHook(list(assembly.vis.values()), run=work_dir.name, config=config)
    if run.limits.max_steps is not None:
        saves = any(isinstance(hook, CheckpointHook) for hook in hooks.values())
        hooks["step limit"] = StepLimit(run.limits.max_steps, save=not saves)
    _prioritise(hooks, run.priorities, rank)
    bind_runner(
        hooks.values(),
        work_dir=work_dir,
        config=assembly.config if isinstance(assembly.config, Mapping) else None,
        seed=run.seed,
        communicator=communicator,
        backends=tuple(assembly.vis.values()),
        test_loop=assembly.test,
    )
    return hooks


def _checkpoint(assembly: Assembly) -> Spec[Hook]:
    """Return what saves by default: after each epoch, or as often as a run by steps validates."""
    loop = assembly.loop
    return Spec(CheckpointHook, (loop.val_interval, "step") if isinstance(loop, StepLoop) else ())


def _given(run: Run, assembly: Assembly, work_dir: Path, communicator: Communicator) -> dict[object, dict[str, object]]:
    """Return by class what a run gives to our own hooks; one of somebody's may mean something else by these names."""
    rank, many = communicator.rank, communicator.world_size > 1
    log = log_file_of(run, work_dir, rank)
    about = {
        "world_size": communicator.world_size,
        "seed": run.seed,
        "config_sha256": sha256(msgspec.json.encode(assembly.config)).hexdigest(),
    }
    logs: dict[str, object] = {
        **({"log_file": log} if log else {}),
        **({"communicator": communicator} if many else {}),
        **({"environment": about} if rank == 0 else {}),
    }
    return {
        LoggerHook: logs,
        MmengineLoggerHook: logs,
        StragglerHook: {"communicator": communicator},
        AveragingHook: {
            "batches": lambda: load(_in_order(run.train), run.seed, "bn", assembly.device),
            "device": assembly.device if assembly.device.type != "cpu" else None,
        },
        EarlyStoppingHook: {"communicator": communicator},
        MmengineEarlyStoppingHook: {"communicator": communicator},
        NonFiniteHook: {"communicator": communicator},
        ThroughputHook: {"communicator": communicator},
        MemoryHook: {"communicator": communicator},
        HistogramHook: {"backends": list(assembly.vis.values())},
        ProfilerHook: {"directory": work_dir / "profile", "communicator": communicator},
        NotifyHook: {"run": str(work_dir), "communicator": communicator},
        RequeueHook: {"communicator": communicator},
        ProbeHook: {"directory": str(work_dir), "communicator": communicator},
        **({CheckpointHook: {"communicator": communicator}} if many else {}),
    }


def _refuse_without(run: Run, hooks: Mapping[str, Hook]) -> None:
    goes_back = any(isinstance(hook, NonFiniteHook) and hook.action == "rollback" for hook in hooks.values())
    if goes_back and "checkpoint" not in hooks:  # one of somebody's may save under this name
        raise ConfigError(
            "a rollback goes back to a checkpoint, and there is no hook 'checkpoint' that saves one",
            where="hooks.checkpoint",
            mend="do not set it to null, or choose another action",
        )
    if run.averaging is not None and "averaging" not in hooks:
        raise ConfigError(
            "the hook 'averaging' averages the weights, and there is none",
            where="hooks.averaging",
            mend="do not set it to null, or leave out averaging",
        )


def _prioritise(hooks: Mapping[str, Hook], priorities: Mapping[str, int | str], rank: int) -> None:
    for name, priority in priorities.items():
        if name in hooks:
            hooks[name].priority = get_priority(priority) if isinstance(priority, str) else priority
        elif rank == 0:  # which has all hooks
            mend = did_you_mean(name, hooks) or f"there are {', '.join(hooks)}"
            raise ConfigError(f"there is no hook '{name}'", where=f"priorities.{name}", mend=mend)


def _in_order(data: Data) -> Data:
    return msgspec.structs.replace(data, sampler=None, batch_sampler=None)
