"""What a `Runner` shows of a run's parts: the training loop, what a step told, and where curves go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from treenail.contracts import StepOutput
from treenail.kernel import Engine, Stateful, VisBackend

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TrainLoop:
    """A training loop as hooks of mmengine's know it: what it has, the training data, and a switch that stops it.

    Args:
        engine: Runs it.
        loop: The loop, whose other attributes can be read.
    """

    _engine: Engine
    _loop: Stateful

    def __init__(self, engine: Engine, loop: Stateful) -> None:
        vars(self).update(_engine=engine, _loop=loop)

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
        return getattr(vars(self)["_loop"], name)

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
    """The part of mmengine's Visualizer that records: scalars and images of a run.

    Args:
        engine: Publishes scalars when it commits the step under way.
        backends: Where images go; None where the run cannot tell.
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
        if self._backends is None:
            raise AttributeError("this run cannot tell where images go", name="add_image", obj=self)
        picture = torch.from_numpy(image.copy()).permute(2, 0, 1) / 255
        for backend in self._backends:
            backend.image(name, picture, step=step)
