"""What is done with a trained model: test and export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
import torch
from torch import Tensor, nn

from treenail.adapters.averaging import load_averages
from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.comm import current_communicator
from treenail.adapters.documents import Document
from treenail.adapters.files import (
    backend_at,
    current_mounts,
    file_exists,
    is_directory,
    mounts_of,
    put,
    redacted,
    use_mounts,
)
from treenail.adapters.logging import terminal_logger
from treenail.adapters.models import BaseModel, BaseTTAModel, PlainModel
from treenail.adapters.runtime.assemble import choose_device, evaluation, load, prepare_process
from treenail.adapters.runtime.choosing import choose_data, probe_output
from treenail.adapters.runtime.ranks import failures_told, on_rank_0
from treenail.adapters.runtime.testing import SoleValidation, Tested, engine_of, taking_part
from treenail.adapters.seeding import cudnn_benchmark, deterministic_algorithms
from treenail.adapters.weights import Source, load_weights, open_source, weights_of
from treenail.contracts import Evaluation, LoadFrom, Loss, Prediction, Run
from treenail.kernel import (
    CheckpointError,
    Communicator,
    ConfigError,
    Exporter,
    ParityReport,
    StateError,
    TrainingError,
)


def test(
    run: Run,
    checkpoint: str | Path,
    communicator: Communicator | None = None,  # noqa: PT028  # not a test of pytest
    *,
    data: str = "test",  # noqa: PT028
    work_dir: Path | str | None = None,  # noqa: PT028
    output: str | None = None,  # noqa: PT028
    document: Document | None = None,  # noqa: PT028
) -> dict[str, float]:
    """Test the model of a checkpoint, on one rank or on many that all call this; return the results by name.

    Args:
        run: The config.
        checkpoint: A checkpoint, or a file of weights, see `load_trained`.
        communicator: The ranks, each of which has the whole model; the `current_communicator` when None.
        data: ``test`` or ``val``: which data of the config; ``test/NAME`` for one set of several.
        work_dir: A directory, new or empty, that gets pictures, curves and logs: those hooks of the config that have a point
            of a test (of a validation, for ``val``) take part, but for ours that only serve a training. None: nothing is
            written, and the hooks that would take part are named in a warning.
        output: Path or URI of a JSON file that gets the results.
        document: The config that the run comes from.

    Raises:
        TreenailError: The config has no such data, the checkpoint cannot be used, or the directory is not empty.
    """
    kind, sets = choose_data(run, data, ("test", "val"))
    mode: Literal["val", "test"] = "val" if kind == "val" else "test"
    ranks = communicator or current_communicator()
    with (
        failures_told(ranks),
        use_mounts(mounts_of(run.files)),
        deterministic_algorithms(run.deterministic),
        cudnn_benchmark(enabled=run.cudnn_benchmark),
    ):
        if output is not None:
            on_rank_0(ranks, lambda: probe_output(output))
        device = prepare_process(run)
        source = open_source(checkpoint)
        model, loss = _with_weights(run, source, checkpoint, with_loss=True)
        step, epoch = (source.manifest.step, source.manifest.epoch) if source.manifest is not None else (0, 0)
        del source  # the states of optimizers may be larger than the model
        if isinstance(loss, nn.Module):
            loss.to(device)
        if isinstance(sets, Prediction):
            raise AssertionError("a prediction is not tested")
        loop = evaluation(run, sets, mode, model.to(device), loss, device, ranks)
        whole = SoleValidation(loop, epoch) if mode == "val" else loop
        tested = Tested(model, loss, whole, device, step, epoch)
        engine = engine_of(run, tested, ranks, None if work_dir is None else Path(work_dir), document)
        if work_dir is None and ranks.rank == 0 and (names := taking_part(run, mode)):
            listed = ", ".join(names)
            terminal_logger().warning(f"without a work directory these hooks do not run: {listed}")
        engine.run(whole)
        if loop.metrics is None:
            raise TrainingError(f"the {mode} was stopped ({engine.stop_reason}), there are no results")
        results = loop.metrics
        if output is not None:
            content = msgspec.json.format(msgspec.json.encode(results)) + b"\n"
            on_rank_0(ranks, lambda: put(content, output))
    return results


def export(run: Run, checkpoint: str | Path, exporter: Exporter, destination: Path) -> ParityReport:
    """Export the model of a checkpoint, with a batch of the config's data as example input.

    Raises:
        TreenailError: The checkpoint cannot be used, or the artefact does not agree with the model.
    """
    with use_mounts(mounts_of(run.files)):
        prepare_process(run)
        model, _ = load_trained(run, checkpoint, with_loss=False)
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


def load_trained(run: Run, checkpoint: str | Path, *, with_loss: bool = True) -> tuple[nn.Module, Loss | None]:
    """Build the model and the loss of a config and give them the weights of a checkpoint or a file.

    A `BaseTTAModel` gets those of the model that it holds. The weights must be all that the model has, and no others.

    Args:
        run: The config. Where its ``load_from`` names the same file, the file is read as that says: ``part``, ``prefix`` and
            ``revise_keys``.
        checkpoint: Path or URI: a checkpoint's directory or a pointer (``…/checkpoints/best``), whose averages are taken where
            it has some; a .safetensors file, a .pt, .pth or .ckpt file (mmengine's and Lightning's too), a model's directory
            on a hub.
        with_loss: Whether the loss is needed; None is returned in its place else.

    Raises:
        CheckpointError: There is no such checkpoint, it is damaged, or it is of another model.
        FileError: Nothing serves the URI.
    """
    return _with_weights(run, open_source(checkpoint), checkpoint, with_loss=with_loss)


def _with_weights(
    run: Run, source: Source, checkpoint: str | Path, *, with_loss: bool
) -> tuple[nn.Module, Loss | None]:
    model = run.model.build()
    loss = run.loss.build() if with_loss and run.loss is not None else None
    inner: nn.Module = model.module if isinstance(model, BaseTTAModel) else model
    if source.kind == "treenail":
        _take_checkpoint(source, inner, loss)
    else:
        settings = run.load_from
        if settings is None or Path(settings.path) != Path(checkpoint):  # which makes ./a of a
            settings = LoadFrom(path=str(checkpoint))
        _take_file(source, inner, loss, settings)
    return model, loss


def _take_checkpoint(source: Source, model: nn.Module, loss: Loss | None) -> None:
    for name, part in (("model", model), ("loss", loss)):
        weights = source.tree.get(name)
        if not isinstance(part, nn.Module):
            continue
        if not isinstance(weights, dict):
            raise CheckpointError(f"the checkpoint holds no {name}", where=source.where)
        try:
            part.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"the checkpoint is of another {name}: {_first_mismatch(error)}",
                where=source.where,
                mend="use the config that it was trained with",
            ) from error
    if isinstance(averages := source.tree.get("averages"), dict):
        try:
            load_averages(model, averages)
        except StateError as error:
            raise CheckpointError(error.message, where=source.where, mend=error.mend) from error


def _take_file(source: Source, model: nn.Module, loss: Loss | None, settings: LoadFrom) -> None:
    if isinstance(loss, nn.Module) and any(True for _ in loss.parameters()):
        raise CheckpointError(
            f"a {type(loss).__name__} has weights of its own, and a file of a model's weights has none for it",
            where=source.where,
            mend="name a checkpoint, or leave out the loss: loss=null, and add metrics",
        )
    how = f"say so by load_from={{path: {source.where}, …}}, which is how this file is read then"
    try:
        report = load_weights(
            model,
            weights_of(source, settings.part),
            prefix=settings.prefix,
            revise_keys=settings.revise_keys,
            strict=False,  # so that what is wrong is told for a test, which has other mends
            allow_shape_mismatch=True,
            where=source.where,
        )
    except ConfigError as error:
        error.where = f"load_from.{error.where}"
        raise
    except CheckpointError as error:
        error.mend = f"{error.mend}; {how}" if error.mend else how
        raise
    if not report.complete:
        hint = report.hint()
        raise CheckpointError(
            "; ".join(["these are not just the weights of the model", *report.differences()]),
            where=source.where,
            mend=f"{hint}; {how}" if hint else "use the config that they were trained with",
        )


def _first_mismatch(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()] or [str(error)]
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return lines[0].rstrip(".") + more
