"""What is registered is not of the port."""

from treenail.adapters.evaluation import Accuracy
from treenail.kernel import Registry, Sampler

samplers = Registry[Sampler]("sampler")
samplers.register("accuracy")(Accuracy)  # E: "type[Accuracy]"; expected "Callable[
