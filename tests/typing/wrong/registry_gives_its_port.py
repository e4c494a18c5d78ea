"""A registry's callables give its port's type."""

from treenail.kernel import Metric, Registry, Sampler

samplers = Registry[Sampler]("sampler")
metric: Metric = samplers.resolve("random")(10)  # E: expression has type "Sampler", variable has type "Metric"
