"""What is built is not what it is taken for."""

from treenail.adapters.evaluation import Accuracy
from treenail.kernel import Sampler, spec

sampler: Sampler = spec(Accuracy)(top_k=5).build()  # E: expression has type "Accuracy", variable has type "Sampler"
