"""While ranks evaluate, each has the buffers of rank 0, whose checkpoint has them."""

import torch
from torch import Tensor, nn

from treenail.adapters.comm import run_threads
from treenail.adapters.data import Batches
from treenail.adapters.loops import EvalLoop
from treenail.kernel import Communicator, Engine


class Shifted(nn.Module):
    """Adds its buffers, of many dtypes and shapes, to its input."""

    def __init__(self, value: int) -> None:
        super().__init__()
        self.register_buffer("grid", torch.full((2, 3), float(value)).t())
        self.register_buffer("count", torch.tensor(value))
        self.register_buffer("flag", torch.tensor([value > 0]))
        self.register_buffer("short", torch.full((3,), value, dtype=torch.bfloat16))
        self.register_buffer("more", torch.full((1, 2), 10.0 * value))
        self.register_buffer("none", torch.zeros(0))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + sum(buffer.sum() for buffer in self.buffers())


def evaluated(communicator: Communicator) -> tuple[float, dict[str, Tensor]]:
    model = Shifted(communicator.rank + 1)
    shares = [[torch.tensor([number + communicator.rank]), torch.tensor([0.0])] for number in (0.0, 10.0)]
    loop = EvalLoop("test", model, lambda outputs, targets: outputs.mean(), Batches(shares), communicator=communicator)
    Engine().run(loop)
    assert loop.metrics is not None
    return loop.metrics["test/loss"], model.state_dict()


def test_every_rank_evaluates_with_those_of_rank_0_and_gets_its_own_back() -> None:
    shift = sum(float(buffer.sum()) for buffer in Shifted(1).buffers())
    for rank, (loss, after) in enumerate(run_threads(2, evaluated)):
        assert loss == 5.5 + shift  # the mean of 0, 1, 10 and 11
        assert all(torch.equal(after[name], before) for name, before in Shifted(rank + 1).state_dict().items())
        assert after["grid"].stride() == (1, 3)
