"""What an exception of a run does not say by itself."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Final

from torch import Tensor, nn

from treenail.contracts import Run
from treenail.kernel import Engine, TreenailError

_TOO_FEW = "more than 1 value per channel"  # torch's batch normalisation, in training
_LOOPS: Final = "treenail.adapters.loops."
_SHOWN: Final = 8
"""Most fields of a batch that are described."""


def note_batch_size(error: Exception, world_size: int, accumulative_counts: int = 1) -> None:
    """Say what to do where a batch normalisation of torch's got one sample only.

    Args:
        error: What torch raised.
        world_size: Number of ranks.
        accumulative_counts: Micro-batches of a batch.
    """
    if _TOO_FEW not in str(error):
        return
    if accumulative_counts > 1:
        error.add_note(
            f"a batch is split into {accumulative_counts} micro-batches, and one of them has one sample: lower "
            "accumulative_counts, or choose a larger batch_size, of the last batch too unless drop_last is true"
        )
        return
    if world_size == 1:
        error.add_note("a batch has one sample: choose another batch_size, or drop_last: true")
        return
    error.add_note(
        f"of a batch, this one of {world_size} ranks has one sample or none: choose a batch_size that leaves two or more "
        "to each, of the last batch too unless drop_last is true; or let the ranks normalise together, "
        "distributed.parallel: {type: data_parallel, sync_batchnorm: true}"
    )


def note_torch_checks(error: Exception, run: Run) -> None:
    """Say which setting of a run made torch refuse what a model does.

    Args:
        error: What torch raised.
        run: The config.
    """
    text = str(error)
    if run.deterministic is True and "deterministic" in text.lower():
        error.add_note("by deterministic: true; deterministic: warn goes on, and warns of it")
    elif run.detect_anomaly and "returned nan values" in text:
        error.add_note("by detect_anomaly: true; the warning before shows the operation")


def note_circumstances(error: Exception, engine: Engine) -> None:
    """Say after how many steps somebody's code failed, in which module of the model, and with which batch.

    The traceback's frames still have all that, so that nothing has to be remembered at each step.

    Args:
        error: What was raised; an error of ours says by itself what is to be known.
        engine: What it ended.
    """
    if isinstance(error, TreenailError):
        return
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    found = [f"after {engine.step} step{'' if engine.step == 1 else 's'}"]
    if (module := next(_modules(reversed(frames)), None)) is not None:
        model = engine.parts.get("model")
        names = ((name, each) for name, each in model.named_modules()) if isinstance(model, nn.Module) else ()
        name = next((name for name, each in names if each is module and name), None)
        found.append(f"in {type(module).__name__}{'' if name is None else f' {name!r}'}")
    of_loops = (each for each in frames if str(each.f_globals.get("__name__")).startswith(_LOOPS))
    batches = [each.f_locals["batch"] for each in of_loops if each.f_locals.get("batch") is not None]
    if batches:
        found.append(f"with a batch of {_described(batches[0])}")
    error.add_note(", ".join(found))


def _modules(frames: Iterator[FrameType]) -> Iterator[nn.Module]:
    """Yield the modules that were being called."""
    for frame in frames:
        module = frame.f_locals.get("self") if frame.f_code is nn.Module._call_impl.__code__ else None
        if isinstance(module, nn.Module):
            yield module


def _described(value: object) -> str:
    """Return the types and shapes of what a batch consists of: ``(float32[4, 3], int64[4])``."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, dict):
        parts = [f"{key}: {_described(each)}" for key, each in list(value.items())[:_SHOWN]]
        return f"{{{', '.join([*parts, '…'] if len(value) > _SHOWN else parts)}}}"
    if isinstance(value, list | tuple):
        parts = [_described(each) for each in value[:_SHOWN]]
        return f"({', '.join([*parts, '…'] if len(value) > _SHOWN else parts)})"
    return type(value).__name__
