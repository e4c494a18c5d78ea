"""Repositories of model hubs, read only, through the hubs' own libraries."""

from treenail.adapters.files.hubs.huggingface import HuggingFaceFiles
from treenail.adapters.files.hubs.modelscope import ModelScopeFiles

__all__ = ["HuggingFaceFiles", "ModelScopeFiles"]
