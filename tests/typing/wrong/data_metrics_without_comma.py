"""A tuple of one without its comma."""

from treenail.adapters.data import Digits
from treenail.adapters.evaluation import Accuracy
from treenail.contracts import Evaluation
from treenail.kernel import spec

accuracy = spec(Accuracy)(top_k=5)
evaluation = Evaluation(
    dataset=spec(Digits)("val"),
    batch_size=32,
    metrics=(accuracy),  # E: "Spec[Accuracy]"; expected "tuple[Spec[Metric] |
)
