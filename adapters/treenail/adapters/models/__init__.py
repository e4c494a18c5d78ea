"""Models that train themselves, preprocessors of their data, and initialisers of weights; as OpenMMLab has them."""

from treenail.adapters.models.fills import (
    bias_init_with_prob,
    caffe2_xavier_init,
    constant_init,
    kaiming_init,
    normal_init,
    trunc_normal_init,
    uniform_init,
    xavier_init,
)
from treenail.adapters.models.images import stack_batch
from treenail.adapters.models.initializers import (
    INITIALIZERS,
    BaseInit,
    Caffe2XavierInit,
    ConstantInit,
    KaimingInit,
    NormalInit,
    PretrainedInit,
    TruncNormalInit,
    UniformInit,
    XavierInit,
    initialize,
)
from treenail.adapters.models.losses import parse_losses
from treenail.adapters.models.merging import merge_dict
from treenail.adapters.models.model import BaseModel, PlainModel
from treenail.adapters.models.module import BaseModule, ModuleDict, ModuleList, Sequential
from treenail.adapters.models.notes import update_init_info
from treenail.adapters.models.parallel import trained_through
from treenail.adapters.models.preprocessing import BaseDataPreprocessor, ImgDataPreprocessor, Preprocessed
from treenail.adapters.models.tta import BaseTTAModel

__all__ = [
    "INITIALIZERS",
    "BaseDataPreprocessor",
    "BaseInit",
    "BaseModel",
    "BaseModule",
    "BaseTTAModel",
    "Caffe2XavierInit",
    "ConstantInit",
    "ImgDataPreprocessor",
    "KaimingInit",
    "ModuleDict",
    "ModuleList",
    "NormalInit",
    "PlainModel",
    "Preprocessed",
    "PretrainedInit",
    "Sequential",
    "TruncNormalInit",
    "UniformInit",
    "XavierInit",
    "bias_init_with_prob",
    "caffe2_xavier_init",
    "constant_init",
    "initialize",
    "kaiming_init",
    "merge_dict",
    "normal_init",
    "parse_losses",
    "stack_batch",
    "trained_through",
    "trunc_normal_init",
    "uniform_init",
    "update_init_info",
    "xavier_init",
]
