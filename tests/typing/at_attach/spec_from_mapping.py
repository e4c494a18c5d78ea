# raises: SpecError: did you mean 'seed'?
"""Arguments that come as a mapping are checked when the component is described, not when it is built."""

from treenail.adapters.sampling import RandomSampler
from treenail.kernel import Spec

arguments = {"dataset": 10, "sed": 3}
sampler = Spec(RandomSampler, kwargs=arguments)
