"""Fields are keyword-only."""

from treenail.adapters.data import Digits
from treenail.contracts import Data
from treenail.kernel import spec

data = Data(spec(Digits)("train"), batch_size=32)  # E: Too many positional arguments for "Data"
