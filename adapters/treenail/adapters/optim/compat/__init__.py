"""mmengine's names of what updates parameters, with its arguments and states."""

from treenail.adapters.optim.compat.constructor import DefaultOptimWrapperConstructor, build_optim_wrapper
from treenail.adapters.optim.compat.wrappers import AmpOptimWrapper, OptimWrapper, amp_optim_wrapper, optim_wrapper
from treenail.adapters.optim.several import OptimWrapperDict

__all__ = [
    "AmpOptimWrapper",
    "DefaultOptimWrapperConstructor",
    "OptimWrapper",
    "OptimWrapperDict",
    "amp_optim_wrapper",
    "build_optim_wrapper",
    "optim_wrapper",
]
