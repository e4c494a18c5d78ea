"""A config is changed after it was written."""

from treenail.adapters.data import Digits
from treenail.contracts import Data
from treenail.kernel import spec

data = Data(dataset=spec(Digits)("train"), batch_size=32)
data.batch_size = 64  # E: Property "batch_size" defined in "Data" is read-only
