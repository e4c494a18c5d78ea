# raises: RegistryError: unknown sampler 'randm'; did you mean 'random'?
"""A name is a string to mypy."""

from treenail.kernel import Adapter, Registry, Sampler

samplers = Registry[Sampler]("sampler")
samplers.declare(Adapter("sampler", "random", "treenail.adapters.sampling:RandomSampler"))
sampler = samplers.resolve("randm")(10)
