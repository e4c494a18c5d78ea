"""Metrics, each in constant memory: what they say does not depend on how the data were split into batches."""

from treenail.adapters.evaluation.accuracy import Accuracy
from treenail.adapters.evaluation.classification import ConfusionMatrix, PrecisionRecallF1
from treenail.adapters.evaluation.perplexity import Perplexity
from treenail.adapters.evaluation.regression import RegressionErrors
from treenail.adapters.evaluation.torchmetrics import TorchMetric, as_metric

__all__ = [
    "Accuracy",
    "ConfusionMatrix",
    "Perplexity",
    "PrecisionRecallF1",
    "RegressionErrors",
    "TorchMetric",
    "as_metric",
]
