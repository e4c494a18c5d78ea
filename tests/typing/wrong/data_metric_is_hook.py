"""A hook among the metrics."""

from treenail.adapters.data import Digits
from treenail.adapters.hooks import BestHook
from treenail.contracts import Evaluation
from treenail.kernel import spec

evaluation = Evaluation(
    dataset=spec(Digits)("val"),
    batch_size=32,
    metrics=(spec(BestHook)("val/loss"),),  # E: "tuple[Spec[BestHook]]"; expected "tuple[Spec[Metric] |
)
