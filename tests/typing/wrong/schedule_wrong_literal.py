"""A moment that does not exist."""

from torch.optim.lr_scheduler import LinearLR

from treenail.contracts import Schedule
from treenail.kernel import late

schedule = Schedule(scheduler=late(LinearLR)(), every="iter")  # E: "Literal['iter']"; expected
