"""Code written for mmengine finds its names, with their arguments."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from treenail.adapters.logging import compat

NAMES = {"logging": ("HistoryBuffer", "MessageHub", "MMLogger", "print_log"), "runner": ("LogProcessor",)}
# A path to a class of logging's handlers and its arguments; ours rotate by max_bytes and keep.
LEFT_OUT = {"file_handler_cfg"}


def parameters(function: Any) -> dict[str, object]:
    """Return the defaults of parameters by name; an empty list of the original is no default that can be shared."""
    found = inspect.signature(function).parameters
    return {name: () if each.default == [] else each.default for name, each in found.items() if name not in LEFT_OUT}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in NAMES.items() for name in names])
def test_arguments_and_defaults_are_those_of_mmengine(module: str, name: str) -> None:
    pytest.importorskip("mmengine")
    theirs, ours = getattr(pytest.importorskip(f"mmengine.{module}"), name), getattr(compat, name)
    expected = parameters(theirs)
    found = parameters(ours)
    assert list(found)[: len(expected)] == list(expected)
    assert {each: found[each] for each in expected} == expected
    if inspect.isclass(theirs):
        public = {each: member for each, member in vars(theirs).items() if not each.startswith("_")}
        assert public
        for each, member in public.items():
            assert hasattr(ours, each), each
            if isinstance(member, property):
                continue
            assert list(parameters(getattr(ours, each))) == list(parameters(getattr(theirs, each))), each
