"""A split that the dataset does not have."""

from treenail.adapters.data import Digits
from treenail.contracts import Data
from treenail.kernel import spec

data = Data(dataset=spec(Digits)("valid"), batch_size=32)  # E: "Literal['valid']"; expected "Literal[
