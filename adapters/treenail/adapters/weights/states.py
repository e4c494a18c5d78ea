"""States of optimizers, schedulers and averages of another system, checked against those of a run before they are taken."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import isclose
from typing import NoReturn, cast

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from treenail.adapters.averaging import WeightAverages
from treenail.adapters.hooks import BoundSchedule
from treenail.adapters.schedule import Schedule
from treenail.adapters.weights.training import State, TrainingState
from treenail.kernel import CheckpointError

_HOW = frozenset({"capturable", "differentiable", "foreach", "fused", "params"})
"""Entries of a parameter group that say how an optimizer computes, not what."""

_KINDS = {
    "patience": "ReduceOnPlateau",
    "step_size": "Step",
    "milestones": "MultiStep",
    "T_max": "Cosine",
    "start_factor": "Linear",
    "power": "Polynomial",
    "periods": "CosineRestarts",
    "total_steps": "OneCycle",
    "factor": "Constant",
    "gamma": "Exponential",
}
"""Curves by the entry that only the state of mmengine's scheduler of that kind has, the first that is there."""

_PROGRESS = frozenset(
    {"base_lrs", "base_values", "best", "cooldown_counter", "last_epoch", "last_step", "num_bad_epochs", "T_cur", "T_i"}
)
"""Entries of a scheduler's state that say where it stands."""

_NO_END = 1_000_000_000
"""mmengine's word for a schedule without end."""

_OTHERS = frozenset({"lr_lambdas", "verbose", "mode_worse", "begin", "end", "by_epoch", "param_name"})


def take_optimizer(optimizer: Optimizer, state: State, scheduled: Collection[str]) -> None:
    """Give an optimizer the state of one of another system.

    Args:
        optimizer: That of the run.
        state: torch's state of the other one.
        scheduled: What schedules change in the groups: ``lr``, ``momentum``.

    Raises:
        CheckpointError: It is of another optimizer, has other settings, or is of other parameters.
    """
    groups, values = state.get("param_groups"), state.get("state")
    if not isinstance(groups, list) or not isinstance(values, dict):
        _refuse("there is no state of torch's optimizer in it")
    ours = optimizer.param_groups
    theirs, sizes = [len(each["params"]) for each in groups], [len(each["params"]) for each in ours]
    if theirs != sizes:
        _refuse(f"it has {_numbers(theirs)}, the run {_numbers(sizes)}")
    defaults = optimizer.defaults.keys() - _HOW
    for number, (group, own) in enumerate(zip(groups, ours, strict=True)):
        lacking = sorted(defaults - group.keys() - {"decoupled_weight_decay", "maximize"})
        foreign = sorted(name for name in ("betas", "momentum", "alpha", "rho") if name in group.keys() - defaults)
        if lacking or foreign:
            kind = type(optimizer).__name__
            _refuse(f"it is not of {kind}: its groups have {_list(foreign)}, and lack {_list(lacking)}")
        for name in sorted(defaults & group.keys()):
            there, here = group.get(f"initial_{name}", group[name]), own.get(f"initial_{name}", own[name])
            if not _equal(there, here) and not (name in scheduled and f"initial_{name}" not in group):
                _refuse(f"its {name} of group {number} is {there}, the run's {here}")
    parameters = [parameter for group in ours for parameter in group["params"]]
    for index, entry in values.items():
        shape = list(parameters[index].shape) if isinstance(index, int) and index < len(parameters) else None
        if shape is None or not isinstance(entry, dict):
            _refuse(f"it has a state for a parameter {index!r}, which there is not")
        for name, value in entry.items():
            if isinstance(value, Tensor) and value.dim() == len(shape) and value.dim() and list(value.shape) != shape:
                _refuse(f"its {name} of parameter {index} is {list(value.shape)}, the parameter {shape}")
    merged = [
        {**own, **{name: group[name] for name in group if name in own and name not in _HOW}, "params": group["params"]}
        for group, own in zip(groups, ours, strict=True)
    ]
    optimizer.load_state_dict({"state": values, "param_groups": merged})


def check_order(theirs: Iterable[str], ours: Sequence[str]) -> None:
    """Check that two models have registered their parameters in one order, since optimizers know them by number only.

    Raises:
        CheckpointError: They have not.
    """
    known = set(ours)
    found = [name for name in theirs if name in known]
    for number, (there, here) in enumerate(zip(found, ours, strict=False)):
        if there != here:
            _refuse(f"its parameter {number} is '{there}', the run's '{here}'")
    if len(found) != len(ours):
        _refuse(f"it has {len(found)} of the model's {len(ours)} parameters")


def take_schedules(schedules: Sequence[BoundSchedule], state: TrainingState, epoch: int) -> None:
    """Let schedules go on where those of another system stood; the optimizers have their states already.

    Args:
        schedules: Those of the run, in order.
        state: What the other system says.
        epoch: Epochs completed.

    Raises:
        CheckpointError: They are other schedules, stand elsewhere, or lead to other values than the other system had.
    """
    if len(schedules) != len(state.schedules):
        _refuse(f"there are {len(state.schedules)} schedules in it, the run has {len(schedules)}")
    pairs = list(zip(schedules, state.schedules, strict=True))
    wanted = [dict(group) for each in schedules for group in each.scheduler.optimizer.param_groups]
    for number, (bound, theirs) in enumerate(pairs):
        try:
            _take_schedule(bound, theirs, state, epoch)
        except CheckpointError as error:
            error.message = f"schedule {number}: {error.message}"
            raise
    # In the order in which they began, which for those with a floor matters.
    for bound, theirs in sorted(pairs, key=lambda each: cast("float", each[1].get("begin", 0))):
        if isinstance(bound.scheduler, Schedule):
            bound.scheduler.last_epoch = cast("int", theirs["_global_step"])
    for bound, _ in pairs:
        if isinstance(bound.scheduler, Schedule):
            bound.scheduler.load_state_dict(bound.scheduler.state_dict())
    given = [group for each in schedules for group in each.scheduler.optimizer.param_groups]
    for before, group in zip(wanted, given, strict=True):
        if not isclose(float(before["lr"]), float(group["lr"]), rel_tol=1e-6, abs_tol=1e-12):
            _refuse(f"the learning rate was {before['lr']:g} there, and the run's schedules make it {group['lr']:g}")


def _take_schedule(bound: BoundSchedule, theirs: State, state: TrainingState, epoch: int) -> None:
    scheduler = bound.scheduler
    stands = theirs.get("_global_step", theirs.get("last_epoch"))
    expected = epoch if bound.by_epoch else state.step
    skips = state.loss_scaler is not None and not bound.by_epoch  # updates that overflowed did not step it
    if bound.metric is None and (
        not isinstance(stands, int) or not (stands == expected or (skips and stands < expected))
    ):
        unit = "epochs" if bound.by_epoch else "steps"
        counted = isinstance(stands, int) and state.window > 1 and stands // state.window == expected
        why = f", of {state.window} batches each, which it counted one by one" if counted and not bound.by_epoch else ""
        _refuse(f"it stands at {stands}, and would at {expected} after {expected} {unit}{why}")
    if isinstance(scheduler, Schedule):
        _check_mmengine(scheduler, theirs)
    else:
        _check_torch(scheduler, theirs)
        scheduler.load_state_dict(theirs)


def _check_mmengine(scheduler: Schedule, theirs: State) -> None:
    kind = next((kind for key, kind in _KINDS.items() if key in theirs), "unknown")
    own = type(scheduler.curve).__name__
    if "_global_step" not in theirs:
        _refuse(f"its state is of one of torch's: use torch's in place of {type(scheduler).__name__}")
    if kind != own or theirs.get("param_name") != scheduler.param:
        _refuse(
            f"it is of the kind {kind} for '{theirs.get('param_name')}', the run's of {own} for '{scheduler.param}'"
        )
    for name, there in theirs.items():
        here = getattr(scheduler, name, None)
        if name.startswith("_") or name in _PROGRESS or name == "verbose" or here is None:
            continue
        if name == "end" and here >= _NO_END:  # mmengine's runner puts the end of the training in the place of none
            continue
        if not _equal(there, here):
            _refuse(f"its {name} is {there}, the run's {here}")


def _check_torch(scheduler: LRScheduler, theirs: State) -> None:
    name = type(scheduler).__name__
    if "_global_step" in theirs:
        _refuse(f"its state is of one of mmengine's: use type: mmengine.{name} or the like in place of torch's")
    own = {key: value for key, value in scheduler.state_dict().items() if not key.startswith("_")}
    given = {key: value for key, value in theirs.items() if not key.startswith("_")}
    if own.keys() - {"verbose"} != given.keys() - {"verbose"}:
        _refuse(f"it is not of {name}: it has {_list(sorted(given.keys() - own.keys()))}")
    for key in own.keys() - _PROGRESS - _OTHERS:
        if not _equal(given[key], own[key]):
            _refuse(f"its {key} is {given[key]}, the run's {own[key]}")


def take_averages(averages: WeightAverages, state: TrainingState) -> None:
    """Give averages those of another system.

    Raises:
        CheckpointError: There are none, or not of the same weights.
    """
    if state.averages is None:
        _refuse("there are no averages in it")
    own = averages.state_dict()
    tensors: dict[str, dict[str, object]] = {}
    for kind in ("weights", "buffers"):
        names = list(cast("Mapping[str, Tensor]", own[kind]))
        if missing := [name for name in names if name not in state.averages]:
            _refuse(f"there is no average of '{missing[0]}'")
        tensors[kind] = {name: state.averages[name] for name in names}
    updates = state.average_updates
    averages.load_state_dict({**own, **tensors, "updates": updates, "averaged": -(-updates // averages.interval)})


def _equal(there: object, here: object) -> bool:
    if isinstance(there, Mapping):  # mmengine keeps milestones as a Counter
        there = sorted(there.elements()) if hasattr(there, "elements") else dict(there)
    if isinstance(there, list | tuple) and isinstance(here, Iterable):
        return list(there) == list(here)
    if isinstance(there, Tensor | int | float) and isinstance(here, Tensor | int | float):
        return isclose(float(there), float(here), rel_tol=1e-9)
    return there == here


def _refuse(message: str) -> NoReturn:
    raise CheckpointError(message)


def _numbers(sizes: Sequence[int]) -> str:
    groups = "1 group" if len(sizes) == 1 else f"{len(sizes)} groups"
    return f"{groups} of {' and '.join(map(str, sizes)) if len(sizes) < 5 else f'in all {sum(sizes)}'} parameters"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing else"
