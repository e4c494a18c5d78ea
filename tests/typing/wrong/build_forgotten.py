"""A described component is used as if it were built."""

from treenail.adapters.sampling import RandomSampler
from treenail.kernel import spec

sampler = spec(RandomSampler)(10)
sampler.set_epoch(1)  # E: "Spec[RandomSampler]" has no attribute "set_epoch"
