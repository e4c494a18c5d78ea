"""An instance of a function's result where the function is described."""

from treenail.adapters.evaluation import Accuracy
from treenail.kernel import spec

metric = spec(Accuracy(top_k=5))()  # E: Argument 1 to "spec" has incompatible type "Accuracy"
