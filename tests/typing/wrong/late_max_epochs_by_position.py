"""A keyword-only argument is given by position."""

from treenail.adapters.loops import EpochLoop
from treenail.kernel import late

loop = late(EpochLoop)(3, max_epochs=3)  # E: gets multiple values for keyword argument "max_epochs"
