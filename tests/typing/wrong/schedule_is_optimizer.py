"""An optimizer in the scheduler's place."""

from torch.optim import SGD

from treenail.contracts import Schedule
from treenail.kernel import late

schedule = Schedule(scheduler=late(SGD)(lr=0.1))  # E: SGD]"; expected "Late[Optimizer, LRScheduler]"
