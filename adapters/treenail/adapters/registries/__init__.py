"""Registries as existing code speaks of them: four dialects, each over the kernel's `Registry`.

``from treenail.adapters.registries import mmengine`` and then ``mmengine.Registry("models")``; likewise `scepter`, `helios`
and `easycore`.
"""

from treenail.adapters.registries import easycore, helios, mmengine, scepter
from treenail.adapters.registries.errors import KindError, RegisteredTwiceError, UnregisteredError
from treenail.adapters.registries.listing import registry_table

__all__ = [
    "KindError",
    "RegisteredTwiceError",
    "UnregisteredError",
    "easycore",
    "helios",
    "mmengine",
    "registry_table",
    "scepter",
]
