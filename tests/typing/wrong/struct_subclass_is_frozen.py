"""An inherited field is changed, too."""

from treenail.adapters.data import Digits
from treenail.contracts import Evaluation
from treenail.kernel import spec

evaluation = Evaluation(dataset=spec(Digits)("val"), batch_size=32)
evaluation.batch_size = 64  # E: Property "batch_size" defined in "Evaluation" is read-only
