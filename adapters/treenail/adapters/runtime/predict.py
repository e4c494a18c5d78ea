"""What `treenail predict` does: inference over data, or over files, with the weights of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from treenail.adapters.comm import broadcast_object, current_communicator
from treenail.adapters.data import Indexed
from treenail.adapters.evaluation import DumpPredictions
from treenail.adapters.files import current_mounts, is_directory, mounts_of, redacted, use_mounts
from treenail.adapters.loops import PredictLoop
from treenail.adapters.runtime.assemble import collation, load, prepare_process
from treenail.adapters.runtime.ranks import failures_told, on_rank_0
from treenail.adapters.runtime.trained import load_trained
from treenail.adapters.seeding import deterministic_algorithms
from treenail.contracts import Dataset, Evaluation, PredictHook, Prediction, Run
from treenail.kernel import Communicator, ConfigError, Engine, Hook, Spec, SpecError, TrainingError, did_you_mean


class Predicted(NamedTuple):
    """What was predicted.

    Args:
        output: The file that holds it.
        samples: For how many.
    """

    output: str
    samples: int


def predict(
    run: Run,
    checkpoint: str | Path,
    output: str = "predictions.jsonl",
    *,
    data: str = "predict",
    files: Sequence[str] = (),
    hooks: Mapping[str, Hook] | None = None,
    communicator: Communicator | None = None,
) -> Predicted:
    """Write what the model of a checkpoint predicts to a file, in the order of the data, on one rank or many.

    Args:
        run: The config.
        checkpoint: A checkpoint's directory, or a pointer: ``…/checkpoints/best``.
        output: Path or URI of the file; its suffix says the format, see `DumpPredictions`.
        data: ``predict``, ``test`` or ``val``: which data of the config; ``test/NAME`` where there are several.
        files: Predict for these files, with a dataset that takes `files`.
        hooks: By name, besides those of the config's ``predict``.
        communicator: The ranks, each of which has the whole model; the `current_communicator` when None.

    Raises:
        ConfigError: The config has no such data, its dataset takes no files, or the output has another suffix.
        CheckpointError: The checkpoint cannot be used.
        TrainingError: There is no data, or predictions are not of the file's form.
        FileError: The file cannot be written.
    """
    ranks = communicator or current_communicator()
    chosen = _chosen(run, data)
    try:
        taker = DumpPredictions(output)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    dataset = chosen.dataset if not files else _of_files(chosen.dataset, files)
    with failures_told(ranks), use_mounts(mounts_of(run.files)), deterministic_algorithms(run.deterministic):
        on_rank_0(ranks, lambda: _probe(output))
        device = prepare_process(run)
        model, _ = load_trained(run, checkpoint)
        batches = load(chosen, run.seed, data, device, ranks, Indexed(dataset.build(), collation(chosen)))
        if len(batches) == 0 and ranks.world_size == 1:
            raise ConfigError(f"there is nothing to predict for ({data})", where=dataset.where, mend="is it empty?")
        try:
            loop = PredictLoop(model.to(device), batches, taker, device, run.seed, ranks, chosen.precision)
        except ValueError as error:
            raise ConfigError(str(error), where=data) from None
        engine = Engine(points=PredictHook)
        specs = chosen.hooks if isinstance(chosen, Prediction) else {}
        for name, hook in {**{name: each.build() for name, each in specs.items()}, **(hooks or {})}.items():
            engine.attach(hook, name)
        engine.run(loop)
        if not loop.done:
            raise TrainingError(f"the prediction was stopped ({engine.stop_reason}), nothing was written")
        return Predicted(output, broadcast_object(ranks, taker.count))


def _probe(output: str) -> None:
    """Write and delete a small file beside the output, so that the predictions of hours can be written."""
    place = current_mounts().resolve(output)
    if is_directory(place.backend, place.file()):
        raise ConfigError("the output is a directory", where=redacted(output), mend="name a file")
    probe = f"{place.path}.{uuid4().hex}"
    place.backend.write(probe, b"")
    place.backend.delete(probe)


def _chosen(run: Run, data: str) -> Evaluation | Prediction:
    """Return the data that a name stands for."""
    kind, _, name = data.partition("/")
    if kind not in ("predict", "test", "val"):
        raise ConfigError(f"there are no data '{data}'", mend="choose predict, test or val, or NAME of test/NAME")
    found: Evaluation | Prediction | Mapping[str, Evaluation] | None = getattr(run, kind)
    if found is None:
        others = [each for each in ("test", "val") if each != kind and getattr(run, each) is not None]
        instead = f", or choose the data of {' or '.join(others)}" if others else ""
        raise ConfigError(f"the config has no '{kind}'", mend=f"add {kind}: {{dataset: …, batch_size: …}}{instead}")
    if not isinstance(found, Mapping):
        if name:
            raise ConfigError(f"there is no '{data}', '{kind}' is one set of data", mend=f"choose {kind}")
        return found
    if name not in found:
        known = [f"{kind}/{each}" for each in found]
        hint = did_you_mean(data, known) if name else None
        raise ConfigError(f"'{data}' is no set of data", mend=hint or f"choose {' or '.join(known)}")
    return found[name]


def _of_files(dataset: Spec[Dataset], files: Sequence[str]) -> Spec[Dataset]:
    """Return the dataset with other files."""
    try:
        return Spec(dataset.target, dataset.args, {**dataset.kwargs, "files": tuple(files)}, where=dataset.where)
    except SpecError as error:
        raise ConfigError(
            f"the dataset does not take files: {error.message}",
            where=dataset.where,
            mend="name a dataset that has an argument 'files'",
        ) from None
