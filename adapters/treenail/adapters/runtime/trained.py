"""What is done with a trained model: test and export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from treenail.adapters.averaging import load_averages
from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.comm import current_communicator
from treenail.adapters.files import (
    backend_at,
    current_mounts,
    file_exists,
    is_directory,
    mounts_of,
    redacted,
    use_mounts,
)
from treenail.adapters.models import BaseModel, PlainModel
from treenail.adapters.runtime.assemble import choose_device, evaluation, load, prepare_process
from treenail.adapters.runtime.ranks import failures_told
from treenail.adapters.seeding import deterministic_algorithms
from treenail.contracts import Evaluation, Loss, Run
from treenail.kernel import (
    CheckpointError,
    Communicator,
    ConfigError,
    Engine,
    Exporter,
    ParityReport,
    StateError,
)


def test(
    run: Run,
    checkpoint: str | Path,
    communicator: Communicator | None = None,  # noqa: PT028  # not a test of pytest
) -> dict[str, float]:
    """Test the model of a checkpoint, on one rank or on many that all call this; return the results by name.

    Args:
        run: The config; it must have a test.
        checkpoint: A checkpoint's directory, or a pointer: ``…/checkpoints/best``.
        communicator: The ranks, each of which has the whole model; the `current_communicator` when None.

    Raises:
        TreenailError: The config has no test, or the checkpoint cannot be used.
    """
    if run.test is None:
        raise ConfigError("the config has no 'test'", mend="add test: {dataset: …, batch_size: …, metrics: […]}")
    ranks = communicator or current_communicator()
    with failures_told(ranks), use_mounts(mounts_of(run.files)), deterministic_algorithms(run.deterministic):
        device = prepare_process(run)
        model, loss = load_trained(run, checkpoint)
        if isinstance(loss, nn.Module):
            loss.to(device)
        loop = evaluation(run, run.test, "test", model.to(device), loss, device, ranks)
        Engine().run(loop)
    if loop.metrics is None:
        raise AssertionError("an uninterrupted evaluation has metrics")
    return loop.metrics


def export(run: Run, checkpoint: str | Path, exporter: Exporter, destination: Path) -> ParityReport:
    """Export the model of a checkpoint, with a batch of the config's data as example input.

    Raises:
        TreenailError: The checkpoint cannot be used, or the artefact does not agree with the model.
    """
    with use_mounts(mounts_of(run.files)):
        prepare_process(run)
        model, _ = load_trained(run, checkpoint)
        data = next(each for each in (*_sets(run.test), *_sets(run.val), run.train))
        batch = next(iter(load(data, run.seed, "test", choose_device("cpu"))), None)
        inputs = _inputs(batch, data.dataset.where)
        if isinstance(model, BaseModel) and isinstance(batch, Mapping | tuple | list):
            model = PlainModel(model, batch)
        return exporter.export(model, inputs[:4], destination)


def _inputs(batch: object, where: str | None) -> Tensor:
    """Return the inputs of a batch, which an artefact takes, as one tensor [batch, …].

    Raises:
        ConfigError: There is no batch, or it has no such inputs.
    """
    if batch is None:
        raise ConfigError("the data gives no batch as an example", where=where, mend="is the dataset empty?")
    if isinstance(batch, Mapping):
        found, has = batch.get("inputs"), f"a mapping with {', '.join(map(str, batch)) or 'nothing'}"
    else:
        found = batch[0] if isinstance(batch, tuple | list) and batch else None
        has = f"a {type(batch).__name__}"
    if isinstance(found, list | tuple) and found and all(isinstance(each, Tensor) for each in found):
        if len(shapes := {tuple(each.shape) for each in found}) > 1:
            listed = " and ".join(str(list(shape)) for shape in sorted(shapes)[:2])
            raise ConfigError(
                f"the inputs of a batch are a list of unlike shapes, such as {listed}; an artefact takes one tensor",
                where=where,
                mend="let the test data, or a transform of them, have inputs of one size",
            )
        found = torch.stack(list(found))
    if isinstance(found, Tensor):
        return found
    raise ConfigError(
        f"a batch is {has}: an artefact takes its inputs as one tensor, and there is none",
        where=where,
        mend="let the dataset give {'inputs': tensor, …} or (inputs, …)",
    )


def _sets(data: Evaluation | Mapping[str, Evaluation] | None) -> list[Evaluation]:
    """Return the sets of evaluation data, in their order."""
    return [] if data is None else [data] if isinstance(data, Evaluation) else list(data.values())


def open_checkpoint(checkpoint: str | Path) -> tuple[CheckpointStore, str]:
    """Return the store that a checkpoint lies in, and its name there.

    Args:
        checkpoint: Its path or URI, or that of a pointer to it.

    Raises:
        CheckpointError: There is no such checkpoint.
        FileError: Nothing serves the URI.
    """
    place, where = current_mounts().resolve(checkpoint), redacted(str(checkpoint))
    parent, _, name = place.path.rpartition("/")
    if not name or not (file_exists(place.backend, place.path) or is_directory(place.backend, place.path)):
        raise CheckpointError("there is no such checkpoint", where=where, mend="name …/checkpoints/latest")
    return CheckpointStore(backend_at(place._replace(path=parent))), name


def load_trained(run: Run, checkpoint: str | Path) -> tuple[nn.Module, Loss | None]:
    """Build the model and the loss of a config and give them a checkpoint's weights.

    Raises:
        CheckpointError: There is no such checkpoint, it is damaged, or it is of another model.
    """
    store, name = open_checkpoint(checkpoint)
    where = redacted(str(checkpoint))
    _, state = store.load(name)
    model, loss = run.model.build(), run.loss.build() if run.loss is not None else None
    for name, part in (("model", model), ("loss", loss)):
        weights = state.get(name)
        if not isinstance(part, nn.Module):
            continue
        if not isinstance(weights, dict):
            raise CheckpointError(f"the checkpoint holds no {name}", where=where)
        try:
            part.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"the checkpoint is of another {name}: {_first_mismatch(error)}",
                where=where,
                mend="use the config that it was trained with",
            ) from error
    if isinstance(averages := state.get("averages"), dict):
        try:
            load_averages(model, averages)
        except StateError as error:
            raise CheckpointError(error.message, where=where, mend=error.mend) from error
    return model, loss


def _first_mismatch(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()] or [str(error)]
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return lines[0].rstrip(".") + more
