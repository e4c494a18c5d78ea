"""A field's name is misspelt."""

from torch.optim.lr_scheduler import ReduceLROnPlateau

from treenail.contracts import Schedule
from treenail.kernel import late

plateau = late(ReduceLROnPlateau)(factor=0.5)
schedule = Schedule(scheduler=plateau, metrics="val/loss")  # E: for "Schedule"; did you mean "metric"?
