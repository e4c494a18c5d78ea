"""Shows how gradients and weights are distributed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from math import sqrt
from typing import Annotated, Final, NamedTuple

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from treenail.adapters.hooks.nonfinite import updaters_of
from treenail.contracts.vis import Histogram, TakesHistograms
from treenail.kernel import Engine, Hook, Record, TrainingError, VisBackend, require

_KINDS: Final = ("gradients", "weights")


class HistogramHook(Hook):
    """Gives the vis backends, every `interval` steps, statistics and a histogram of each parameter and its gradient.

    ``weights/NAME/norm``, ``…/mean``, ``…/std``, ``…/min``, ``…/max``, ``…/nonfinite`` (how many values are NaN or infinite; the
    others leave them out), and so ``gradients/NAME/…``; backends that take histograms get one by the name of the parameter.
    The log gets their norms over all parameters, and how many values are not finite. Gradients are those that the optimizer
    is about to use: averaged over ranks, clipped, without loss scale; where an update is skipped, those that are left. Of a
    sparse gradient its entries are looked at. A parameter without a gradient has none of ``gradients/…``. Of parameters that
    are spread over ranks it is rank 0's part. Looking waits for a GPU.

    Args:
        backends: Where they go; those of the run, when it is one. Without one, as on ranks other than 0, nothing is done.
        interval: Steps between two looks, counted over the whole run.
        bins: Intervals of a histogram, of equal width between the least and the greatest value.
        parameters: Which parameters: names, in which ``*`` stands for anything.
        gradients: Look at gradients.
        weights: Look at weights.
        images: Draw the histograms as images, too, for backends that take none.

    Raises:
        ValueError: An argument is out of its range, or there is nothing to look at.
        MissingDependencyError: Images shall be drawn, and matplotlib is not installed.
        TrainingError: (before training) No parameter has such a name.
    """

    priority = 55

    def __init__(
        self,
        backends: Sequence[VisBackend] = (),
        interval: Annotated[int, Meta(ge=1)] = 100,
        bins: Annotated[int, Meta(ge=1, le=4096)] = 64,
        parameters: Sequence[str] = ("*",),
        *,
        gradients: bool = True,
        weights: bool = True,
        images: bool = False,
    ) -> None:
        if interval < 1 or not 1 <= bins <= 4096:
            raise ValueError(f"{interval=} must be at least 1, and {bins=} from 1 to 4096")
        if not parameters or not (gradients or weights):
            raise ValueError("there is nothing to look at: name parameters, and let gradients or weights be true")
        if images:
            require("matplotlib", extra="plot", purpose="drawing histograms")
        self.interval = interval
        self.bins = bins
        self.parameters = tuple(parameters)
        self.gradients = gradients
        self.weights = weights
        self.images = images
        self._backends = tuple(backends)
        self._chosen: dict[nn.Parameter, str] = {}
        self._optimizers: list[Optimizer] = []
        self._handles: list[RemovableHandle] = []
        self._found: dict[str, Looked] = {}
        self._subscribed = False

    def before_train(self, engine: Engine) -> None:
        """Look the parameters up."""
        if not self._backends:
            return
        self._chosen = {
            parameter: name
            for name, parameter in _named_parameters(engine)
            if any(fnmatchcase(name, each) for each in self.parameters)
        }
        if not self._chosen:
            raise TrainingError(
                f"no parameter is called {' or '.join(self.parameters)}",
                where="hooks.histograms.parameters",
                mend=f"there are {', '.join(name for name, _ in _named_parameters(engine))[:400] or 'none'}",
            )
        optimizer = engine.parts.get("optimizer")
        self._optimizers = [each.optimizer for each in updaters_of(engine)]
        if not self._optimizers and isinstance(optimizer, Optimizer):
            self._optimizers = [optimizer]
        if not self._subscribed:
            engine.subscribe(self._write)
            self._subscribed = True

    def before_train_iter(self, engine: Engine, batch_index: int, batch: object) -> None:
        """Wait for the gradients, if it is time: what updates may forget them when it has used them."""
        if (engine.step + 1) % self.interval == 0 and self._chosen:
            self._found.clear()
            if self.gradients:
                self._handles = [each.register_step_pre_hook(self._before_update) for each in self._optimizers]

    def _before_update(self, optimizer: Optimizer, args: object, kwargs: object) -> None:
        scale = getattr(optimizer, "grad_scale", None)  # a fused optimizer divides by the loss scale itself
        for group in optimizer.param_groups:
            self._look_at_gradients(group["params"], scale)

    def _look_at_gradients(self, parameters: Sequence[nn.Parameter], scale: Tensor | None = None) -> None:
        for parameter in parameters:
            name, gradient = self._chosen.get(parameter), parameter.grad
            if name is not None and gradient is not None:
                self._found[f"gradients/{name}"] = look_at(
                    gradient if scale is None else gradient / scale.to(gradient.device), self.bins
                )

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Look at the weights, if it is time, and publish what is in common."""
        if (engine.step + 1) % self.interval or not self._chosen:
            return
        self._release()
        if self.gradients and not any(name.startswith("gradients/") for name in self._found):
            self._look_at_gradients(list(self._chosen))  # of an update that was skipped
        if self.weights:
            for parameter, name in self._chosen.items():
                self._found[f"weights/{name}"] = look_at(parameter.detach(), self.bins)
        common: dict[str, float] = {}
        for kind in _KINDS:
            looked = [each for name, each in self._found.items() if name.startswith(f"{kind}/")]
            if looked:
                common[f"{kind}/norm"] = sqrt(sum(each.histogram.squares for each in looked))
                common[f"{kind}/nonfinite"] = float(sum(each.nonfinite for each in looked))
        if common:
            engine.publish(common)

    def _write(self, record: Record) -> None:
        """Give the backends what belongs to a record that is committed."""
        if not self._found or not any(f"{kind}/norm" in record.values for kind in _KINDS):
            return
        values = {f"{name}/{each}": value for name, found in self._found.items() for each, value in found.statistics()}
        for backend in self._backends:
            backend.scalars(record._replace(values=values))
            for name, found in self._found.items():
                if not found.histogram.counts:
                    continue
                if isinstance(backend, TakesHistograms):
                    backend.histogram(name, found.histogram, step=record.step)
                elif self.images:
                    backend.image(name, draw(name, found.histogram), step=record.step)
        self._found.clear()

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        """Wait no longer."""
        self._release()
        self._found.clear()

    def _release(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


class Looked(NamedTuple):
    """What a look at a tensor found.

    Args:
        histogram: Of its finite values; without an interval where there is none.
        nonfinite: How many are not finite.
        std: Standard deviation of the finite ones, as of a whole population.
    """

    histogram: Histogram
    nonfinite: int
    mean: float
    std: float
    least: float
    greatest: float

    def statistics(self) -> Iterator[tuple[str, float]]:
        """Yield numbers by name; of no finite value only how many others there are."""
        if self.histogram.counts:
            yield "norm", sqrt(self.histogram.squares)
            yield "mean", self.mean
            yield "std", self.std
            yield "min", self.least
            yield "max", self.greatest
        yield "nonfinite", float(self.nonfinite)


def look_at(tensor: Tensor, bins: int) -> Looked:
    """Return the statistics and the histogram of a tensor's values: of a sparse one its entries, of a spread one this rank's.

    Args:
        tensor: Any shape; complex numbers count as two.
        bins: Intervals of the histogram.
    """
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    if local.layout is torch.sparse_coo:
        local = local.coalesce()
    if local.layout is not torch.strided:
        local = local.values()
    values = (torch.view_as_real(local.resolve_conj()) if local.is_complex() else local).reshape(-1)
    values = values.to(torch.float32 if values.device.type == "mps" else torch.float64)  # MPS has no float64
    finite = values if values.sum().isfinite() else values[values.isfinite()]  # one that is not would be in the sum
    nonfinite = values.numel() - finite.numel()
    if not finite.numel():
        return Looked(Histogram((), (), 0.0, 0.0), nonfinite, 0.0, 0.0, 0.0, 0.0)
    total, squares, std, least, greatest = torch.stack(
        [finite.sum(), finite.dot(finite), finite.std(correction=0), *finite.aminmax()]
    ).tolist()
    room = 0.0 if greatest > least else abs(least) / 2 or 0.5
    low, high = least - room, greatest + room
    counts = torch.histc(finite, bins, low, high).long().tolist()
    edges = torch.linspace(low, high, bins + 1, dtype=torch.float64).tolist()
    histogram = Histogram(tuple(edges), tuple(counts), total, squares)
    return Looked(histogram, nonfinite, total / finite.numel(), std, least, greatest)


def draw(title: str, histogram: Histogram) -> Tensor:
    """Draw a histogram as float[3, height, width] in [0, 1], RGB.

    Args:
        title: Above it.
        histogram: With one interval at least.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    purpose = "drawing histograms"
    figures = require("matplotlib.figure", extra="plot", purpose=purpose)
    canvases = require("matplotlib.backends.backend_agg", extra="plot", purpose=purpose)
    figure = figures.Figure(figsize=(5, 3.2), dpi=100, layout="constrained")
    canvas = canvases.FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.stairs(histogram.counts, histogram.edges, fill=True)
    axes.set(title=title, xlabel="value", ylabel="count")
    canvas.draw()
    width, height = canvas.get_width_height()
    pixels = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8).reshape(height, width, 4)
    return pixels[..., :3].permute(2, 0, 1).float() / 255


def _named_parameters(engine: Engine) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of an engine's modules that are trained, those of the model by their names in it."""
    for part_name, part in engine.parts.items():
        if isinstance(part, nn.Module):
            for name, parameter in part.named_parameters():
                if parameter.requires_grad:
                    yield name if part_name == "model" else f"{part_name}.{name}", parameter
