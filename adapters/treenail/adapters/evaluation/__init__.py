"""Metrics, each in constant memory: what they say does not depend on how data are split into batches; and predictions."""

from treenail.adapters.evaluation.accuracy import Accuracy
from treenail.adapters.evaluation.classification import ConfusionMatrix, PrecisionRecallF1
from treenail.adapters.evaluation.names import NamesResults, result_names
from treenail.adapters.evaluation.perplexity import Perplexity
from treenail.adapters.evaluation.predictions import DumpPredictions
from treenail.adapters.evaluation.regression import RegressionErrors
from treenail.adapters.evaluation.samples import as_plain, score_and_target, stacked, to_cpu
from treenail.adapters.evaluation.torchmetrics import TorchMetric, as_metric

__all__ = [
    "Accuracy",
    "ConfusionMatrix",
    "DumpPredictions",
    "NamesResults",
    "Perplexity",
    "PrecisionRecallF1",
    "RegressionErrors",
    "TorchMetric",
    "as_metric",
    "as_plain",
    "result_names",
    "score_and_target",
    "stacked",
    "to_cpu",
]
