"""A loss that gives a number instead of a tensor."""

from torch import Tensor, nn, optim

from treenail.adapters.data import Digits
from treenail.adapters.loops import EpochLoop
from treenail.contracts import Data, Run
from treenail.kernel import late, partial, spec


def distance(outputs: Tensor, targets: Tensor, power: float = 2.0) -> float:
    return float((outputs - targets).abs().pow(power).mean())


run = Run(
    model=spec(nn.Linear)(64, 10),
    loss=partial(distance)(power=1.0),  # E: "Spec[Callable[[Tensor, Tensor], float]]"
    optimizer=late(optim.AdamW)(lr=1e-3),
    train=Data(dataset=spec(Digits)("train"), batch_size=32),
    loop=late(EpochLoop)(max_epochs=3),
)
