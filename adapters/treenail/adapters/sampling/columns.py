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
        values: The numbers; or the name of an attribute of the dataset that holds them.
        name: What they are, for messages: ``"weights"``.
        dtype: What they are converted to.

    Returns:
        dtype[n]

    Raises:
        ValueError: The dataset has no such attribute, there is not one finite number for each sample, or a number is not
            whole where whole ones are needed.
    """
    size = length_of(dataset)
    found = numbers(_attribute(dataset, values, name) if isinstance(values, str) else values, name, dtype)
    if len(found) != size:
        raise ValueError(f"{name} has {len(found)} numbers, must have {size}: one for each sample")
    return found


def numbers(values: object, name: str, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a list, an array or a tensor of numbers as a vector of its own; dtype[n].

    Args:
        values: The numbers.
        name: What they are, for messages.
        dtype: What they are converted to.

    Raises:
        ValueError: They are no finite numbers in a row, or not whole where whole ones are needed.
    """
    needed = "whole" if dtype == torch.int64 else "finite"
    if not isinstance(values, Tensor) and hasattr(values, "__array__"):
        values = values.__array__()  # numpy's and pandas' columns
    try:
        found = torch.as_tensor(values, device="cpu").detach()
        if found.is_floating_point() and not hasattr(values, "dtype"):
            found = torch.as_tensor(
                values, dtype=torch.float64, device="cpu"
            )  # torch takes Python's floats for float32
        exact = found.to(dtype)
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        raise ValueError(f"{name} must be a list of {needed} numbers: {error}") from None
    if found.dtype == torch.bool or found.is_complex():
        kind = "true or false; for a mask, write its indices" if found.dtype == torch.bool else "complex"
        raise ValueError(f"{name} must be a list of {needed} numbers, they are {kind}")
    if exact.ndim != 1:
        raise ValueError(f"{name} has the shape {list(exact.shape)}, must be a list of {needed} numbers")
    wrong = ~torch.isfinite(found.double()) | (exact.double() != found.double())
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(f"{name}[{first}] is {found[first].item()}, which is not a {needed} number")
    return exact.clone()


def _attribute(dataset: int | Sized, attribute: str, name: str) -> object:
    if not attribute.startswith("_") and hasattr(dataset, attribute):
        found: object = getattr(dataset, attribute)
        if not callable(found):
            return found
        raise ValueError(f"{name} is {attribute!r}, which is a method of {type(dataset).__name__}; make it a property")
    public = [each for each in dir(dataset) if not each.startswith("_") and each != attribute]
    mend = did_you_mean(attribute, public) or f"give it one with a number for each sample, or write {name} itself"
    raise ValueError(f"{name} is {attribute!r}, but {type(dataset).__name__} has no such attribute; {mend}")
