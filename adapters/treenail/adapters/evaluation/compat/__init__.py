"""mmengine's names of evaluation: metrics that keep results of samples, gather them from all ranks and measure the whole."""

from treenail.adapters.evaluation.compat.evaluator import Evaluator
from treenail.adapters.evaluation.compat.metrics import BaseMetric, DumpResults, SampleMetric
from treenail.adapters.evaluation.compat.values import get_metric_value

__all__ = ["BaseMetric", "DumpResults", "Evaluator", "SampleMetric", "get_metric_value"]
