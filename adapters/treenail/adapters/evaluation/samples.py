"""What models predict sample by sample: mappings, data elements, or pairs of scores and target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from treenail.kernel import TrainingError


@runtime_checkable
class DataElement(Protocol):
    """What a sample is in mmengine's libraries, as far as metrics look at it."""

    def to_dict(self) -> dict[str, Any]:  # Any: each element has fields of its own
        """Return what it holds, by name."""
        ...

    def to(self, device: str, /) -> object:
        """Return it with its tensors on a device."""
        ...


def as_plain(samples: Any) -> Any:  # Any: the model says what it predicts
    """Return data elements in a list or tuple as dicts, by their `to_dict`; anything else as it is."""
    if isinstance(samples, list | tuple) and any(isinstance(each, DataElement) for each in samples):
        return [each.to_dict() if isinstance(each, DataElement) else each for each in samples]
    return samples


def to_cpu(data: Any) -> Any:  # Any: what goes in comes out
    """Return data with its tensors on the CPU: tensors, data elements, and those in lists, tuples and mappings."""
    if isinstance(data, Tensor):
        return data.detach().cpu()
    if isinstance(data, Mapping):
        return {key: to_cpu(value) for key, value in data.items()}
    if isinstance(data, list):
        return [to_cpu(value) for value in data]
    if isinstance(data, tuple):
        return getattr(data, "_make", tuple)(to_cpu(value) for value in data)
    return data.to("cpu") if isinstance(data, DataElement) else data


def score_and_target(sample: object, outputs: str = "pred_score", targets: str = "gt_label") -> tuple[Tensor, Tensor]:
    """Return the scores and the target of a sample, on the CPU.

    Args:
        sample: A mapping, or a pair (scores, target).
        outputs: Key of the scores in a mapping.
        targets: Key of the target in a mapping.

    Raises:
        TrainingError: It has none, or they are no tensors.
    """
    if isinstance(sample, Mapping):
        missing = [key for key in (outputs, targets) if key not in sample]
        if missing:
            raise TrainingError(
                f"a data sample has no '{missing[0]}', but {', '.join(map(str, sample)) or 'nothing'}",
                mend="say SampleMetric(metric, outputs=…, targets=…)",
            )
        pair = [sample[outputs], sample[targets]]
    elif isinstance(sample, tuple | list) and len(sample) == 2:
        pair = list(sample)
    else:
        raise TrainingError(
            f"a data sample is a {type(sample).__name__}", mend="give mappings, or pairs (scores, target)"
        )
    try:
        scores, target = (torch.as_tensor(value) for value in pair)
    except (TypeError, ValueError, RuntimeError) as error:
        kinds = " and ".join(type(value).__name__ for value in pair)
        raise TrainingError(
            f"a data sample has {kinds} for its scores and its target",
            mend="give tensors, or numbers and lists of such",
        ) from error
    scores, target = scores.detach().cpu(), target.detach().cpu()
    if target.shape == (1,) != scores.shape:  # mmpretrain's labels are tensors of one number
        target = target.reshape(())
    return scores, target


def stacked(values: Sequence[Tensor], what: str) -> Tensor:
    """Return the values of samples as one tensor [samples, …].

    Raises:
        TrainingError: They have different shapes.
    """
    try:
        return torch.stack(tuple(values))
    except RuntimeError as error:
        raise TrainingError(f"the samples' '{what}' cannot be put together: {error}") from error
