"""A sampler in the dataset's place."""

from treenail.adapters.sampling import RandomSampler
from treenail.contracts import Data
from treenail.kernel import spec

data = Data(
    dataset=spec(RandomSampler)(1257),  # E: "Spec[RandomSampler]"; expected "Spec[Dataset]"
    batch_size=32,
)
