# raises: SpecError: 'shuffel'
"""A registry's name gives a callable of any arguments to mypy."""

from treenail.kernel import Adapter, Registry, Sampler, late

samplers = Registry[Sampler]("sampler")
samplers.declare(Adapter("sampler", "random", "treenail.adapters.sampling:RandomSampler"))
sampler = late(samplers.resolve("random"))(shuffel=True)
