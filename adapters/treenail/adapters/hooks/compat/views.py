"""What a `Runner` shows of a run's parts: the training loop, what a step told, and where curves go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from treenail.adapters.logging.compat import LoggedRun
from treenail.contracts import StepOutput
from treenail.kernel import Engine, Stateful, VisBackend

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_OF_RUN: Final = ("epoch", "iter", "max_epochs", "max_iters")
"""What mmengine's training loops tell of the run."""


class TrainLoop:
    """A training loop as hooks of mmengine's know it: what it has, the training data, and a switch that stops it.

    Args:
        engine: Runs it.
        loop: The loop, whose other attributes can be read.
        run: Tells ``epoch``, ``iter``, ``max_epochs`` and ``max_iters``.
    """

    _engine: Engine
    _loop: Stateful
    _run: LoggedRun

    def __init__(self, engine: Engine, loop: Stateful, run: LoggedRun) -> None:
        vars(self).update(_engine=engine, _loop=loop, _run=run)

    @property
    def stop_training(self) -> bool:
        """Whether the training stops at the next commit; to be set to true by a hook."""
        return self._engine.stop_reason is not None

    @stop_training.setter
    def stop_training(self, value: bool) -> None:
        if value:
            self._engine.request_stop("a hook set stop_training")
        elif self.stop_training:
            raise AttributeError("a stop cannot be taken back", name="stop_training", obj=self)

    @property
    def dataloader(self) -> Stateful | None:
        """The training data, by batches."""
        return self._engine.parts.get("batches")

    def __getattr__(self, name: str) -> Any:  # Any: whatever the loop has
        return getattr(vars(self)["_run" if name in _OF_RUN else "_loop"], name)

    def __setattr__(self, name: str, value: object) -> None:
        """Set `stop_training`.

        Raises:
            AttributeError: It is another attribute, which would not change how the loop runs.
        """
        if name != "stop_training":
            raise AttributeError(
                f"a hook of mmengine's can set stop_training of the training loop, not {name} to {value!r}",
                name=name,
                obj=self,
            )
        super().__setattr__(name, value)


class Metrics(NamedTuple):
    """The metrics of an evaluation, as mmengine's Evaluator shows them.

    Args:
        metrics: The metrics.
    """

    metrics: Sequence[object]

    @property
    def dataset_meta(self) -> Any:  # Any: each dataset has its own
        """What the dataset tells of itself, where a metric was told it."""
        told = (getattr(each, "dataset_meta", None) for each in self.metrics)
        return next((each for each in told if each is not None), None)


class OneAfterTheOther:
    """Several sets of data as a sequence of batches.

    Args:
        loaders: One for each set.
    """

    def __init__(self, loaders: Sequence[Sized]) -> None:
        self.loaders = loaders

    def __len__(self) -> int:
        """Return how many batches they have together."""
        return sum(map(len, self.loaders))


class EvaluationView:
    """A validation or test as hooks of mmengine's know it: what its loop has, its data and its metrics.

    Args:
        loop: The loop, whose other attributes can be read.
    """

    def __init__(self, loop: object) -> None:
        self._loop = loop

    @property
    def dataloader(self) -> Sized:
        """The data, by batches; of several sets, one after the other.

        Raises:
            AttributeError: They have no length.
        """
        found = [getattr(each, "batches", None) for each in self._loops]
        batches = [each for each in found if isinstance(each, Sized)]
        if not batches or len(batches) < len(found):
            raise AttributeError  # `__getattr__` says what of
        return batches[0] if len(batches) == 1 else OneAfterTheOther(batches)

    @property
    def evaluator(self) -> Metrics:
        """The metrics; of several sets, all of theirs."""
        return Metrics([each for loop in self._loops for each in getattr(loop, "measures", ())])

    @property
    def _loops(self) -> Sequence[object]:
        found: Sequence[object] = getattr(self._loop, "loops", (self._loop,))
        return found

    def __getattr__(self, name: str) -> Any:  # Any: whatever the loop has
        if name == "dataloader":
            raise AttributeError("the data of this evaluation have no length", name=name, obj=self)
        return getattr(vars(self)["_loop"], name)


class Outputs(Mapping[str, Tensor]):
    """What a training step tells, as 0-dim tensors by name, ``loss`` among them.

    Args:
        step_output: The same as the step gave it.
    """

    def __init__(self, step_output: StepOutput) -> None:
        self.step_output = step_output

    def __getitem__(self, name: str) -> Tensor:
        """Return a number.

        Raises:
            KeyError: The step told none of this name.
        """
        return torch.as_tensor(self.step_output.loss if name == "loss" else self.step_output.logs[name])

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(("loss", *self.step_output.logs))

    def __len__(self) -> int:
        """Return how many numbers there are."""
        return 1 + len(self.step_output.logs)


class Visualizer:
    """The part of mmengine's Visualizer that records: scalars, images, configs and graphs of a run.

    Args:
        engine: Publishes scalars when it commits the step under way.
        backends: Where the others go; None where the run cannot tell.
    """

    def __init__(self, engine: Engine, backends: Sequence[VisBackend] | None) -> None:
        self._engine = engine
        self._backends = backends

    def add_scalar(self, name: str, value: float | Tensor, step: int = 0) -> None:
        """Add a point to a curve, at the step that is committed next: `step` is for mmengine's own alone."""
        self._engine.publish({name: float(value)})

    def add_scalars(
        self, scalar_dict: Mapping[str, float | Tensor], step: int = 0, file_path: str | None = None
    ) -> None:
        """Add a point to each of several curves, as `add_scalar` does; `file_path` is for mmengine's own alone."""
        self._engine.publish({name: float(value) for name, value in scalar_dict.items()})

    def add_image(self, name: str, image: NDArray[np.uint8], step: int = 0) -> None:
        """Add a picture.

        Args:
            name: Its name.
            image: uint8[height, width, 3], RGB.
            step: Where it stands.

        Raises:
            AttributeError: The run cannot tell where images go.
            ValueError: It is another kind of array.
        """
        if image.ndim != 3 or image.shape[2] != 3 or str(image.dtype) != "uint8":
            raise ValueError(f"an image is uint8[height, width, 3], got {image.dtype}{list(image.shape)}")
        backends = self._places("images")
        picture = torch.from_numpy(image.copy()).permute(2, 0, 1) / 255
        for backend in backends:
            backend.image(name, picture, step=step)

    def add_config(self, config: Mapping[str, object]) -> None:
        """Add a config, as JSON; that of the run is there without it.

        Raises:
            AttributeError: The run cannot tell where it goes.
        """
        text = msgspec.json.format(msgspec.json.encode(dict(config))).decode()
        for backend in self._places("configs"):
            backend.config(text)

    def add_graph(self, model: nn.Module, data_batch: Sequence[Tensor] | Tensor) -> None:
        """Add a model's graph.

        Args:
            model: Takes one tensor.
            data_batch: Its inputs [batch, …], or a batch of which they are the first part.

        Raises:
            AttributeError: The run cannot tell where it goes.
        """
        inputs = data_batch if isinstance(data_batch, Tensor) else data_batch[0]
        for backend in self._places("graphs"):
            backend.graph(model, inputs)

    def _places(self, what: str) -> Sequence[VisBackend]:
        if self._backends is None:
            raise AttributeError(f"this run cannot tell where {what} go", obj=self)
        return self._backends
