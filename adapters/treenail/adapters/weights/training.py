"""What checkpoints of mmengine and Lightning say of a training besides the weights, in one form."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, cast

from torch import Tensor

from treenail.adapters.weights.names import STRIP_MODULE, rename
from treenail.adapters.weights.sources import KIND_NAMES, Source
from treenail.kernel import CheckpointError

State = dict[str, object]

_OF_LIGHTNING = frozenset(
    {
        *("state_dict", "averaging_state", "current_model_state", "optimizer_states", "lr_schedulers", "loops"),
        *("MixedPrecision", "native_amp_scaling_state", "epoch", "global_step", "pytorch-lightning_version"),
        *("hparams_name", "hparams_type", "hyper_parameters"),  # what the model was built with, which the config says
    }
)
"""Entries of Lightning's checkpoints that are taken, or need not be."""


class TrainingState(NamedTuple):
    """A training of another system, as its checkpoint has it.

    Args:
        weights: Of the model as it was trained, by the model's names.
        averages: Averages of them, if there were some.
        average_updates: How often those were updated.
        optimizers: States of torch's optimizers.
        schedules: States of schedulers in order.
        loss_scaler: State of torch's GradScaler.
        step: Training steps made: batches, those that were accumulated for one update together.
        epoch: Epochs completed; None where it counted steps only.
        epoch_length: Steps of an epoch, where the checkpoint tells.
        left: What else the checkpoint holds, and why it is not taken.
    """

    weights: Mapping[str, object]
    averages: Mapping[str, object] | None
    average_updates: int
    optimizers: Sequence[State]
    schedules: Sequence[State]
    loss_scaler: State | None
    step: int
    epoch: int | None
    epoch_length: int | None
    left: tuple[str, ...]


def training_state(
    source: Source, *, prefix: str = "", revise_keys: Sequence[tuple[str, str]] = STRIP_MODULE
) -> TrainingState:
    """Return what a checkpoint of mmengine or Lightning says of its training.

    Args:
        source: What was read.
        prefix: As for `rename`, of the model's weights: what their LightningModule called the model.
        revise_keys: As for `rename`.

    Raises:
        CheckpointError: It is of neither, or does not hold what such a checkpoint holds.
        ConfigError: A pattern is no regular expression.
    """
    if source.kind not in ("mmengine", "lightning"):
        raise CheckpointError(
            f"this is {KIND_NAMES[source.kind]}, not one of mmengine or Lightning",
            where=source.where,
            mend="resume it with --resume"
            if source.kind == "treenail"
            else "begin with its weights: load_from={path: …}",
        )
    found = _mmengine(source) if source.kind == "mmengine" else _lightning(source)

    def renamed(weights: Mapping[str, object]) -> Mapping[str, object]:
        return rename(weights, prefix=prefix, revise_keys=revise_keys, where=source.where).weights

    outside = rename(found.weights, prefix=prefix, revise_keys=revise_keys, where=source.where).outside
    if outside:
        left = f"{outside} weights that are not below '{prefix}'"
        found = found._replace(left=(*found.left, left))
    return found._replace(
        weights=renamed(found.weights), averages=None if found.averages is None else renamed(found.averages)
    )


def _mmengine(source: Source) -> TrainingState:
    tree, where = source.tree, source.where
    weights, meta = _mapping(tree, "state_dict", where), _mapping(tree, "meta", where)
    averages: Mapping[str, object] | None = None
    updates = 0
    if "ema_state_dict" in tree:
        ema = _mapping(tree, "ema_state_dict", where)
        # mmengine saves the averages as the model's weights, and those that were trained in the place of the averages.
        trained = {name.removeprefix("module."): each for name, each in ema.items() if name.startswith("module.")}
        averages, weights = weights, {**weights, **trained}
        updates = _whole(ema.get("steps"), "ema_state_dict.steps", where)
    optimizer = tree.get("optimizer")
    optimizers: list[State] = []
    if isinstance(optimizer, dict):  # of several, by name
        optimizers = [optimizer] if "param_groups" in optimizer else [_state(each) for each in optimizer.values()]
    scalers = [each["loss_scaler"] for each in optimizers if "loss_scaler" in each]
    schedules = tree.get("param_schedulers")
    if isinstance(schedules, dict):  # of several optimizers, by name
        schedules = [each for its in schedules.values() for each in its]
    taken = {"state_dict", "meta", "ema_state_dict", "optimizer", "param_schedulers"}
    hub = tree.get("message_hub")
    info = hub.get("runtime_info") if isinstance(hub, dict) else None
    lengths = (info.get("max_iters"), info.get("max_epochs")) if isinstance(info, dict) else (None, None)
    epoch = _whole(meta.get("epoch"), "meta.epoch", where) or None
    return TrainingState(
        weights=weights,
        averages=averages,
        average_updates=updates,
        optimizers=optimizers,
        schedules=[_state(each) for each in schedules] if isinstance(schedules, list) else [],
        loss_scaler=_state(scalers[0]) if scalers else None,
        step=_whole(meta.get("iter"), "meta.iter", where),
        epoch=epoch,
        epoch_length=_ratio(*lengths) if epoch else None,  # of training by step it says one epoch
        left=_left(tree, taken, {"message_hub": "its log and best score"}),
    )


def _lightning(source: Source) -> TrainingState:
    tree, where = source.tree, source.where
    weights = _mapping(tree, "state_dict", where)
    averages: Mapping[str, object] | None = None
    updates = 0
    if "averaging_state" in tree:  # of the callback WeightAveraging, which saves the averages as the weights
        averages, weights = weights, _mapping(tree, "current_model_state", where)
        updates = _whole(_mapping(tree, "averaging_state", where).get("n_averaged"), "averaging_state", where)
    states = tree.get("optimizer_states")
    schedules = tree.get("lr_schedulers")
    loops = _mapping(_mapping(tree, "loops", where), "fit_loop", where)
    batches = _mapping(loops, "epoch_loop.batch_progress", where)
    total, current = _mapping(batches, "total", where), _mapping(batches, "current", where)
    begun = _whole(
        _mapping(_mapping(loops, "epoch_progress", where), "current", where).get("ready"), "epoch_progress", where
    )
    over = bool(batches.get("is_last_batch")) and current.get("processed") == current.get("ready")
    epoch = begun if over else max(0, begun - 1)
    step = _whole(total.get("processed"), "batch_progress.total", where)
    inside = 0 if over else _whole(current.get("processed"), "batch_progress.current", where)
    left = _left(tree, _OF_LIGHTNING, {"callbacks": "what its callbacks counted"})
    updates_made = tree.get("global_step")
    if isinstance(states, list) and len(states) == 1 and isinstance(updates_made, int) and 0 < updates_made < step:
        # It accumulated gradients (accumulate_grad_batches), and counts the batches of one of our steps one by one.
        window = -(-step // updates_made)
        if rest := inside % window:
            left = (*left, f"gradients of {rest} batches: they were accumulated, and no update had been made of them")
        step, inside = updates_made, inside // window
    scaler = next((tree[name] for name in ("MixedPrecision", "native_amp_scaling_state") if name in tree), None)
    return TrainingState(
        weights=weights,
        averages=averages,
        average_updates=updates,
        optimizers=[_state(each) for each in states] if isinstance(states, list) else [],
        schedules=[_state(each) for each in schedules] if isinstance(schedules, list) else [],
        loss_scaler=_state(scaler) if isinstance(scaler, dict) else None,
        step=step,
        epoch=epoch,
        epoch_length=_ratio(step - inside, epoch),
        left=left,
    )


def _left(tree: Mapping[str, object], taken: Collection[str], known: Mapping[str, str]) -> tuple[str, ...]:
    """Return what is not taken; what is empty needs no word."""
    return tuple(
        f"{name}: {known.get(name, 'nothing here takes it')}"
        for name, value in tree.items()
        if name not in taken and value not in ({}, [], None)
    )


def _mapping(tree: Mapping[str, object], name: str, where: str) -> State:
    found = tree.get(name)
    if not isinstance(found, dict):
        raise CheckpointError(f"it has no mapping '{name}'", where=where, mend="is it whole, and of a training?")
    return found


def _ratio(steps: object, epochs: object) -> int | None:
    if not isinstance(steps, int) or not isinstance(epochs, int) or epochs < 1 or steps % epochs:
        return None
    return steps // epochs


def _state(value: object) -> State:
    return cast("State", value) if isinstance(value, dict) else {}  # an empty one is refused by who takes it


def _whole(value: object, name: str, where: str) -> int:
    number = int(value) if isinstance(value, Tensor) and value.numel() == 1 else value
    if not isinstance(number, int) or number < 0:
        raise CheckpointError(f"'{name}' is {value!r}, not a whole number", where=where)
    return number
