"""A sampler whose size is given although the run knows it."""

from treenail.adapters.data import Digits
from treenail.adapters.sampling import RandomSampler
from treenail.contracts import Data
from treenail.kernel import spec

data = Data(
    dataset=spec(Digits)("train"),
    batch_size=32,
    sampler=spec(RandomSampler)(1257),  # E: "Spec[RandomSampler]"; expected "Late[Dataset, Sampler] | None"
)
