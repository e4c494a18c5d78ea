"""Weights and training states of files, whoever wrote them: ours, safetensors, torch's, mmengine's, Lightning's."""

from treenail.adapters.weights.inspecting import Part, facts, parts, tensors
from treenail.adapters.weights.loading import LoadReport, Mismatch, load_from, load_weights
from treenail.adapters.weights.names import STRIP_MODULE, rename, suggest_mapping
from treenail.adapters.weights.pickles import Opaque, Unpickled, read_pickled
from treenail.adapters.weights.sources import KIND_NAMES, Source, open_source, parts_with_tensors, weights_of
from treenail.adapters.weights.states import check_order, take_averages, take_optimizer, take_schedules
from treenail.adapters.weights.training import Steps, TrainingState, training_state

__all__ = [
    "KIND_NAMES",
    "STRIP_MODULE",
    "LoadReport",
    "Mismatch",
    "Opaque",
    "Part",
    "Source",
    "Steps",
    "TrainingState",
    "Unpickled",
    "check_order",
    "facts",
    "load_from",
    "load_weights",
    "open_source",
    "parts",
    "parts_with_tensors",
    "read_pickled",
    "rename",
    "suggest_mapping",
    "take_averages",
    "take_optimizer",
    "take_schedules",
    "tensors",
    "training_state",
    "weights_of",
]
