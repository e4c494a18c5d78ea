"""ZeRO, stage 1: each rank keeps the optimizer's states of some parameters, updates those and gives them to the others."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import Optimizer

from treenail.adapters.comm import TorchCommunicator, current_communicator
from treenail.kernel import Late


def zero_redundancy(params: Iterable[nn.Parameter], *, optimizer: Late[Iterable[nn.Parameter], Optimizer]) -> Optimizer:
    """Divide the states of an optimizer over the ranks by torch's ZeroRedundancyOptimizer.

    For models that every rank has whole (`data_parallel`): parameters and gradients stay so, and a rank keeps the states
    of its share of the parameters (Rajbhandari et al. 2020, "ZeRO", stage 1). Results are those of the optimizer by
    itself, and so are its checkpoints: a run may go on with any number of ranks, and with or without ZeRO. In one
    process the optimizer comes back as it is.

    Args:
        params: Parameters, or groups of them, equal on all ranks and of one dtype.
        optimizer: What each rank updates its share with.

    Raises:
        ValueError: Parameters are spread over ranks already, or of several dtypes; the optimizer evaluates the loss
            several times a step (LBFGS); or the ranks are not processes of torch.distributed.
    """
    ranks = current_communicator()
    if ranks.world_size == 1:
        return optimizer.build(params)
    if not isinstance(ranks, TorchCommunicator):
        raise ValueError(f"the ranks are those of a {type(ranks).__name__}; ZeRO needs processes of torch.distributed")
    from treenail.adapters.parallel.zero_optimizer import ZeroOptimizer  # torch takes a second to import its base

    return ZeroOptimizer(list(params), optimizer.build, ranks)
