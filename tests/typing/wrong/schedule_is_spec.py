"""A scheduler of an optimizer that the run does not know."""

from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LinearLR

from treenail.contracts import Schedule
from treenail.kernel import spec

optimizer = SGD(nn.Linear(2, 1).parameters(), lr=0.1)
schedule = Schedule(scheduler=spec(LinearLR)(optimizer))  # E: "Spec[LinearLR]"
