"""A field's name is misspelt."""

from treenail.adapters.data import Digits
from treenail.contracts import Data
from treenail.kernel import spec

data = Data(dataset=spec(Digits)("train"), batch_size=8, workers=4)  # E: for "Data"; did you mean "num_workers"?
