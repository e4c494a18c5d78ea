"""A gather whose result is used as if every rank received it."""

import torch

from treenail.adapters.comm import SingleProcess
from treenail.kernel import Communicator


def first(communicator: Communicator) -> float:
    parts = communicator.gather(torch.ones(1))
    return parts[0].item()  # E: Value of type "list[Tensor] | None" is not indexable


print(first(SingleProcess()))
