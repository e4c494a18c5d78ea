"""What `treenail predict` does: inference over data, or over files, with the weights of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from treenail.adapters.comm import broadcast_object, current_communicator
from treenail.adapters.data import Indexed
from treenail.adapters.evaluation import DumpPredictions
from treenail.adapters.files import mounts_of, use_mounts
from treenail.adapters.loops import PredictLoop
from treenail.adapters.runtime.assemble import collation, load, prepare_process
from treenail.adapters.runtime.choosing import choose_data, probe_output
from treenail.adapters.runtime.ranks import failures_told, on_rank_0
from treenail.adapters.runtime.trained import load_trained
from treenail.adapters.seeding import cudnn_benchmark, deterministic_algorithms
from treenail.contracts import Dataset, Evaluation, PredictHook, Prediction, Run
from treenail.kernel import Communicator, ConfigError, Engine, Hook, Spec, SpecError, TrainingError


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
        checkpoint: A checkpoint, or a file of weights, see `load_trained`.
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
    with (
        failures_told(ranks),
        use_mounts(mounts_of(run.files)),
        deterministic_algorithms(run.deterministic),
        cudnn_benchmark(enabled=run.cudnn_benchmark),
    ):
        on_rank_0(ranks, lambda: probe_output(output))
        device = prepare_process(run)
        model, _ = load_trained(run, checkpoint, with_loss=False)
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


def _chosen(run: Run, data: str) -> Evaluation | Prediction:
    """Return the one set of data that a name stands for."""
    kind, found = choose_data(run, data, ("predict", "test", "val"))
    if not isinstance(found, Mapping):
        return found
    if "/" not in data.rstrip("/"):
        known = " or ".join(f"{kind}/{each}" for each in found)
        raise ConfigError(f"'{data}' is no set of data", mend=f"choose {known}")
    return next(iter(found.values()))


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
