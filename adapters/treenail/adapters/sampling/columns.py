"""What samplers know of each sample: weights, labels, lengths."""

from __future__ import annotations

from collections.abc import Sequence, Sized

import torch
from torch import Tensor

from treenail.adapters.sampling.epochs import length_of
from treenail.kernel import did_you_mean


def column(
    dataset: int | Sized, values: Sequence[float] | Tensor | str, name: str, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Return a number for each sample of a dataset.

    Args:
        dataset: The dataset, or how many samples it has.
        values: The numbers; or the name of an attribute or method of the dataset that gives them.
        name: What they are, for messages: ``"weights"``.
        dtype: What they are converted to.

    Returns:
        dtype[n]

    Raises:
        ValueError: The dataset has no such attribute, there is not one finite number for each sample, or a number is not
            whole where whole ones are needed.
    """
    size = length_of(dataset)
    given: object = values
    if isinstance(values, str):
        if not hasattr(dataset, values):
            public = [attribute for attribute in dir(dataset) if not attribute.startswith("_")]
            mend = did_you_mean(values, public) or f"give it one with a number for each sample, or write {name} itself"
            raise ValueError(f"{name} is {values!r}, but {type(dataset).__name__} has no such attribute; {mend}")
        given = getattr(dataset, values)
        given = given() if callable(given) else given
    try:
        numbers = torch.as_tensor(given, device="cpu").detach().cpu()
        if numbers.is_floating_point() and not hasattr(given, "dtype"):
            numbers = torch.as_tensor(
                given, dtype=torch.float64, device="cpu"
            )  # torch takes Python's floats for float32
        exact = numbers.to(dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must hold a number for each sample: {error}") from None
    if exact.shape != (size,):
        raise ValueError(f"{name} has the shape {list(exact.shape)}, must be [{size}]: a number for each sample")
    wrong = ~torch.isfinite(numbers.double()) | (exact.double() != numbers.double())
    if wrong.any():
        first, needed = int(wrong.nonzero()[0]), "whole" if dtype == torch.int64 else "finite"
        raise ValueError(f"{name}[{first}] is {numbers[first].item()}, which is not a {needed} number")
    return exact.clone()
