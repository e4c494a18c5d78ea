"""A component with all its arguments takes none when it is built."""

from treenail.adapters.sampling import RandomSampler
from treenail.kernel import spec

sampler = spec(RandomSampler)(10).build(3)  # E: Too many arguments for "build" of "Spec"
