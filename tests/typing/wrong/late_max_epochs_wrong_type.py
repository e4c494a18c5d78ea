"""The number of epochs is a string."""

from treenail.adapters.loops import EpochLoop
from treenail.kernel import late

loop = late(EpochLoop)(max_epochs="3")  # E: Argument "max_epochs" ... incompatible type "str"; expected "int"
