"""What checkpoints of mmengine and Lightning say of a training besides the weights, in one form."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
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


_AVERAGED = "average_model_state"
"""What a callback of Lightning that averages the weights of epochs calls the averages."""


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
        window: Batches of a step.
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
    window: int
    left: tuple[str, ...]


class Steps(NamedTuple):
    """What the steps of a run are, with which batches of another training are compared.

    Args:
        accumulated: Micro-batches of a step.
        of_epoch: How many an epoch has; None where that is not known.
    """

    accumulated: int = 1
    of_epoch: int | None = None


def training_state(
    source: Source,
    *,
    prefix: str = "",
    revise_keys: Sequence[tuple[str, str]] = STRIP_MODULE,
    steps: Steps = Steps(),  # noqa: B008  # it is immutable
) -> TrainingState:
    """Return what a checkpoint of mmengine or Lightning says of its training.

    Args:
        source: What was read.
        prefix: As for `rename`, of the model's weights: what their LightningModule called the model.
        revise_keys: As for `rename`.
        steps: Those of the run. A step has the batches that were accumulated for one update, also where a checkpoint does not
            say how many these are.

    Raises:
        CheckpointError: It is of neither, or does not hold what such a checkpoint holds; or its updates are no steps.
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
    found = _mmengine(source, steps) if source.kind == "mmengine" else _lightning(source, steps)

    def renamed(weights: Mapping[str, object]) -> Mapping[str, object]:
        return rename(weights, prefix=prefix, revise_keys=revise_keys, where=source.where).weights

    outside = rename(found.weights, prefix=prefix, revise_keys=revise_keys, where=source.where).outside
    if outside:
        left = f"{outside} weights that are not below '{prefix}'"
        found = found._replace(left=(*found.left, left))
    return found._replace(
        weights=renamed(found.weights), averages=None if found.averages is None else renamed(found.averages)
    )


def _mmengine(source: Source, steps: Steps) -> TrainingState:
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
    epochs = _whole(meta.get("epoch"), "meta.epoch", where)
    # Of training by step it says that one epoch is trained.
    epoch = epochs if epochs or lengths[1] not in (None, 1) else None
    batches = _whole(meta.get("iter"), "meta.iter", where)
    length = None if epoch is None else _ratio(*lengths)
    # It counts batches. How many an update was made of, a config tells that it came from; without one the run does.
    config = str(meta.get("cfg"))
    told = set(re.findall(r"accumulative_counts['\"]?\s*[=:]\s*(\d+)", config))
    fits = length is None or (steps.of_epoch is not None and length == steps.accumulated * steps.of_epoch)
    window = steps.accumulated if fits else 1
    if "optim_wrapper" in config and len(told) < 2:
        window = max(1, int(told.pop()) if told else 1)
    if length is not None and length % window:
        raise CheckpointError(
            f"an epoch had {length} batches, and an update was made of every {window}, also of the last of one epoch and the "
            "first of the next; epochs of a run end with an update",
            where=where,
            mend="begin with its weights: load_from={path: …}",
        )
    step, pending = divmod(batches, window)
    if pending and batches == lengths[0]:
        step, pending = step + 1, 0  # the last update was made of what there was
    left = _left(tree, taken, {"message_hub": "its log and best score"})
    if averages is not None and window > 1:
        left = (*left, f"averages: they were updated with each batch, and are with each update of {window} from now on")
    return TrainingState(
        weights=weights,
        averages=averages,
        average_updates=updates,
        optimizers=optimizers,
        schedules=[_state(each) for each in schedules] if isinstance(schedules, list) else [],
        loss_scaler=_state(scalers[0]) if scalers else None,
        step=step,
        epoch=epoch,
        epoch_length=None if length is None else length // window,
        window=window,
        left=(*left, *_lost(pending)),
    )


def _lightning(source: Source, steps: Steps) -> TrainingState:
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
    processed = _whole(total.get("processed"), "batch_progress.total", where)
    inside = 0 if over else _whole(current.get("processed"), "batch_progress.current", where)
    updates = _whole(tree.get("global_step"), "global_step", where)
    window, step = 1, processed
    if isinstance(states, list) and len(states) == 1 and updates < processed:
        # It accumulated gradients (accumulate_grad_batches), and counts the batches of one of our steps one by one.
        sizes = (steps.accumulated, *range(2, processed + 2))
        window, step = _window(sizes, processed - inside, epoch, inside, updates, where), updates
    inside, pending = divmod(inside, window)
    counted = {"callbacks": "what its callbacks counted"}
    callbacks = tree.get("callbacks")
    for name, of in callbacks.items() if isinstance(callbacks, dict) else ():
        if isinstance(of, dict) and of.get(_AVERAGED):
            counted = {"callbacks": f"averages of {name}, for load_from: {{part: callbacks.{name}.{_AVERAGED}}}"}
    left = (*_left(tree, _OF_LIGHTNING, counted), *_lost(pending))
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
        window=window,
        left=left,
    )


def _window(sizes: Iterable[int], before: int, epochs: int, inside: int, updates: int, where: str) -> int:
    """Return of how many batches the updates were made; the last one of an epoch has what is left of it.

    Args:
        sizes: What it may be; the first that fits is taken.
        before: Batches of all epochs completed.
        epochs: How many these are.
        inside: Batches of the epoch at hand.
        updates: How many were made.
        where: Place of the checkpoint, for messages.
    """
    for size in sizes:
        if size > 1 and epochs * -(-before // (epochs * size) if epochs else 0) + inside // size == updates:
            return size
    raise CheckpointError(
        f"it made {updates} updates of {before + inside} batches, which were not of as many each",
        where=where,
        mend="begin with its weights: load_from={path: …}",
    )


def _lost(pending: int) -> tuple[str, ...]:
    """Return what is to say of batches whose gradients were in no update yet; no checkpoint holds these."""
    if not pending:
        return ()
    which = "the last batch" if pending == 1 else f"the last {pending} batches"
    return (f"gradients of {which}: no update had been made of them, so that the run trains with them again",)


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
