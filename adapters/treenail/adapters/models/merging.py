"""Merging of dicts in models that are traced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import fx


def merge_dict(*args: Mapping[str, Any]) -> dict[str, Any]:  # Any: losses, features …
    """Merge mappings into one dict; what comes later counts.

    `torch.fx.symbolic_trace` follows it where it could not follow ``dict.update``: a mapping that is only known when the
    traced model runs makes one call of it in the graph.

    Args:
        *args: The mappings.

    Raises:
        TypeError: One of them is none.
    """
    merged: dict[str, Any] = {}
    arguments: tuple[object, ...] = args
    for index, each in enumerate(arguments):
        if isinstance(each, fx.Proxy):
            call = each.tracer.create_proxy("call_function", merge_dict, arguments, {})
            return cast("dict[str, Any]", call)  # it stands for one
        if not isinstance(each, Mapping):
            raise TypeError(f"argument {index} is a {type(each).__name__}, must be a mapping")
        merged.update(each)
    return merged
