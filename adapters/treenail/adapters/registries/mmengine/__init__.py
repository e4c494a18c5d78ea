"""Registries as mmengine speaks of them: a tree of scopes, and building from ``{"type": …}``."""

from treenail.adapters.registries.mmengine.build import (
    build_model_from_cfg,
    build_runner_from_cfg,
    build_scheduler_from_cfg,
)
from treenail.adapters.registries.mmengine.registry import Registry, build_from_cfg
from treenail.adapters.registries.mmengine.roots import RootRegistries
from treenail.adapters.registries.mmengine.scope import DefaultScope
from treenail.adapters.registries.mmengine.survey import count_registered_modules, traverse_registry_tree

__all__ = [
    "DefaultScope",
    "Registry",
    "RootRegistries",
    "build_from_cfg",
    "build_model_from_cfg",
    "build_runner_from_cfg",
    "build_scheduler_from_cfg",
    "count_registered_modules",
    "traverse_registry_tree",
]
