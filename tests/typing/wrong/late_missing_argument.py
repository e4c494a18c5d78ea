"""A scheduler lacks a required argument."""

from torch.optim.lr_scheduler import StepLR

from treenail.kernel import late

scheduler = late(StepLR)(gamma=0.5)  # E: Too few arguments
