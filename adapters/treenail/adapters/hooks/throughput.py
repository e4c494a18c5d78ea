"""Measures how fast a training is, and how much of the hardware's speed it uses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from time import perf_counter
from typing import Annotated, Final, Literal, NamedTuple

import torch
from msgspec import Meta
from structlog.typing import FilteringBoundLogger
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from treenail.adapters.logging import terminal_logger
from treenail.contracts import StepOutput
from treenail.kernel import Communicator, Engine, Hook

PEAK_FLOPS: Final[tuple[tuple[str, float], ...]] = (
    ("B200", 2.25e15),
    ("GH200", 989.4e12),
    ("H200", 989.4e12),
    ("H100 NVL", 835.5e12),
    ("H100 PCIe", 756e12),
    ("H100", 989.4e12),
    ("A100", 312e12),
    ("A40", 149.7e12),
    ("L40S", 362.05e12),
    ("L40", 181.05e12),
    ("L4", 121e12),
    ("V100", 125e12),
    ("T4", 65e12),
    ("RTX 4090", 165.2e12),
    ("MI300X", 1307.4e12),
)
"""Dense floating-point operations a second of 16-bit tensor cores, by a word (or two) of what torch calls the device; the
first that fits counts. From the makers' data sheets, without sparsity."""


class ThroughputHook(Hook):
    """Publishes, every `interval` steps, how fast the training was since the last time, and on the average of this attempt.

    ``throughput/samples_per_second``, ``…/steps_per_second``, with `tokens` ``…/tokens_per_second``, each also with
    ``_mean`` at its end for the average; ``…/data_share``, the part of the time spent waiting for batches; and, where the
    operations of a sample are known, ``…/tflops``, 10¹² operations a second on each device, and ``…/mfu``, these in parts
    of the device's peak (model FLOPs utilisation: Chowdhery et al., 2022, https://arxiv.org/abs/2204.02311, appendix B).
    What happens between epochs does not count, nor do validation and saving between steps, and the wait for the batch after
    them. On many ranks samples and tokens are those of all of them.

    Args:
        interval: Steps between two records, counted over the whole run.
        tokens: What of a batch are tokens: inputs, the elements of its first integer tensor (or of its entry
            ``input_ids``), padding included; weight, what the loss was averaged over, as of token_cross_entropy.
        flops_per_sample: Floating-point operations of a sample's step; measure counts them in the second step of an attempt,
            which is slower. That knows torch's own operators; a compiled model, or kernels of your own, want a number. Where
            activations are computed again, that is counted, too.
        peak_flops: What a device can do, in operations a second. None: as `PEAK_FLOPS` has it for GPUs, in 16 bit; of other
            devices it is not known, and there is no ``mfu``.
        communicator: The ranks of the run.
        terminal: A structlog logger for people; one that writes to standard error when None.

    Raises:
        ValueError: An argument is out of its range.
    """

    priority = 12

    def __init__(
        self,
        interval: Annotated[int, Meta(ge=1)] = 50,
        tokens: Literal["inputs", "weight"] | None = None,
        flops_per_sample: Annotated[float, Meta(gt=0)] | Literal["measure"] | None = None,
        peak_flops: Annotated[float, Meta(gt=0)] | None = None,
        communicator: Communicator | None = None,
        terminal: FilteringBoundLogger | None = None,
    ) -> None:
        if interval < 1 or tokens not in (None, "inputs", "weight"):
            raise ValueError(f"{interval=} must be at least 1, and {tokens=} 'inputs', 'weight' or None")
        if isinstance(flops_per_sample, str) and flops_per_sample != "measure":
            raise ValueError(f"{flops_per_sample=} must be a number, 'measure' or None")
        numbers = (None if isinstance(flops_per_sample, str) else flops_per_sample, peak_flops)
        if not all(each is None or each > 0 for each in numbers):
            raise ValueError(f"{flops_per_sample=} and {peak_flops=} must be above 0")
        self.interval = interval
        self.tokens = tokens
        self.peak_flops = peak_flops
        self._flops = numbers[0]
        self._measures = flops_per_sample == "measure"
        self._ranks = communicator if communicator is not None and communicator.world_size > 1 else None
        self._terminal = terminal or terminal_logger()
        self._batches: object = None
        self._counter: FlopCounterMode | None = None
        self._begin()

    def _begin(self) -> None:
        """Forget everything measured."""
        self._mark = perf_counter()
        self._paused = False
        self._seconds = self._waited = 0.0
        self._steps = self._samples = self._whole = 0
        self._waiting: list[Tensor | float] = []  # tokens; reading them from a GPU would wait for it
        self._total = _Amounts()

    def before_train(self, engine: Engine) -> None:
        """Begin to measure."""
        self._batches = engine.parts.get("batches")
        self._begin()
        model = engine.parts.get("model")
        if self.peak_flops is None and isinstance(model, nn.Module):
            self.peak_flops = _peak(next(model.parameters(), torch.empty(0)).device)

    def before_train_epoch(self, engine: Engine) -> None:
        """Start the clock; what happened between epochs does not count."""
        self._mark, self._paused = perf_counter(), False

    def before_val(self, engine: Engine) -> None:
        """Stop the clock until the next step."""
        self._paused = True

    def before_save_checkpoint(self, engine: Engine, checkpoint: dict[str, object]) -> None:
        """Stop the clock until the next step."""
        self._paused = True

    def before_train_iter(self, engine: Engine, batch_index: int, batch: object) -> None:
        """The batch is here."""
        now = perf_counter()
        if not self._paused:
            self._waited += now - self._mark
            self._seconds += now - self._mark
        self._mark, self._paused = now, False
        if self._measures and (self._steps or self._total.steps):
            self._counter = FlopCounterMode(display=False)
            self._counter.__enter__()  # type: ignore[no-untyped-call]  # torch's; until the step's end, or its failure

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Count the step, and publish if it is time."""
        now = perf_counter()
        self._seconds += now - self._mark
        self._mark = now
        self._steps += 1
        share: tuple[int, int] | None = getattr(self._batches, "share", None)
        if share is None:
            self._samples += samples_of(batch)
        else:
            self._samples += share[0]
            self._whole += share[1]
        if self.tokens is not None:
            self._waiting.append(_tokens(batch, outputs, self.tokens))
        if self._counter is not None:
            self._counted(self._counter, samples_of(batch))
        if (engine.step + 1) % self.interval == 0:
            engine.publish(self._drain())

    def _counted(self, counter: FlopCounterMode, samples: int) -> None:
        self._measures = False
        self._stop_counting()
        if counter.get_total_flops():
            self._flops = counter.get_total_flops() / max(samples, 1)
            return
        self._terminal.warning("no floating-point operations were counted: give flops_per_sample a number")

    def _drain(self) -> dict[str, float]:
        window = _Amounts(
            self._steps, self._seconds, self._waited, self._samples, sum(float(each) for each in self._waiting)
        )
        if self._ranks is not None:
            window = self._common(window, self._ranks)
        if self.tokens is not None and not window.tokens and not self._total.steps:
            hint = "a batch has no integer tensor" if self.tokens == "inputs" else "the steps have no weight"
            self._terminal.warning("no tokens were counted", tokens=self.tokens, because=hint)
        self._total = self._total.plus(window)
        self._steps = self._samples = self._whole = 0
        self._seconds = self._waited = 0.0
        self._waiting.clear()
        self._mark = perf_counter()
        found = {"data_share": window.waited / window.seconds if window.seconds else 0.0}
        for amounts, end in ((window, ""), (self._total, "_mean")):
            seconds = max(amounts.seconds, 1e-9)
            found[f"samples_per_second{end}"] = amounts.samples / seconds
            found[f"steps_per_second{end}"] = amounts.steps / seconds
            if self.tokens is not None:
                found[f"tokens_per_second{end}"] = amounts.tokens / seconds
        if self._flops is not None:
            world_size = 1 if self._ranks is None else self._ranks.world_size
            flops = found["samples_per_second"] * self._flops / world_size
            found["tflops"] = flops / 1e12
            if self.peak_flops is not None:
                found["mfu"] = flops / self.peak_flops
        return {f"throughput/{name}": value for name, value in found.items()}

    def _common(self, own: _Amounts, ranks: Communicator) -> _Amounts:
        """Return what all ranks did, in the time of the slowest."""
        sums = ranks.all_reduce(torch.tensor([own.samples, own.tokens, own.waited], dtype=torch.float64)).tolist()
        seconds = float(ranks.all_reduce(torch.tensor([own.seconds], dtype=torch.float64), "max").item())
        samples, tokens, waited = sums
        # Ranks that split a layer have the same samples; the batches know how many there really were.
        once = self._whole / samples if self._whole and samples else 1.0
        return _Amounts(own.steps, seconds, waited / ranks.world_size, samples * once, tokens * once)

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        """Count no further."""
        self._stop_counting()

    def _stop_counting(self) -> None:
        if self._counter is not None:
            self._counter.__exit__(None, None, None)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            self._counter = None


class _Amounts(NamedTuple):
    """What was done, and in which time."""

    steps: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    samples: float = 0.0
    tokens: float = 0.0

    def plus(self, other: _Amounts) -> _Amounts:
        """Return the sum of both."""
        return _Amounts(
            self.steps + other.steps,
            self.seconds + other.seconds,
            self.waited + other.waited,
            self.samples + other.samples,
            self.tokens + other.tokens,
        )


def samples_of(batch: object) -> int:
    """Return how many samples a batch has: the first dimension of its first tensor, or the length of a list of samples."""
    if isinstance(batch, list | tuple) and batch:
        first = batch[0]
        if isinstance(first, Tensor):
            return first.shape[0] if first.ndim else 1
        return len(batch) if isinstance(batch, list) and isinstance(first, Mapping | tuple) else _length(first)
    return _length(next(iter(batch.values()), None) if isinstance(batch, Mapping) else batch)


def _length(field: object) -> int:
    if isinstance(field, Tensor):
        return field.shape[0] if field.ndim else 1
    return len(field) if isinstance(field, list | tuple | Mapping) else 1


def _tokens(batch: object, outputs: object, kind: Literal["inputs", "weight"]) -> Tensor | float:
    if kind == "weight":
        return outputs.weight if isinstance(outputs, StepOutput) else 0.0
    values = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else (batch,)
    named = batch.get("input_ids") if isinstance(batch, Mapping) else None
    tensors = [named] if isinstance(named, Tensor) else [each for each in values if isinstance(each, Tensor)]
    return float(next((each.numel() for each in tensors if not each.is_floating_point()), 0))


def _peak(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    return peak_of(torch.cuda.get_device_name(device))


def peak_of(name: str) -> float | None:
    """Return the operations a second of a device by what torch calls it; None where `PEAK_FLOPS` does not have it."""
    return next((peak for part, peak in PEAK_FLOPS if re.search(rf"\b{part}\b", name)), None)
