"""Hints for fields of mmengine's configs: each leads to a field that there is, and none hides one of ours."""

from __future__ import annotations

import re

import msgspec
import pytest

from treenail.adapters.config.mmengine_names import RUN_HINTS, mmengine_hint
from treenail.contracts import Data, Run

ARGUMENTS = {
    *("model", "work_dir", "train_dataloader", "val_dataloader", "test_dataloader", "train_cfg", "val_cfg", "test_cfg"),
    *("auto_scale_lr", "optim_wrapper", "param_scheduler", "val_evaluator", "test_evaluator", "default_hooks"),
    *("custom_hooks", "data_preprocessor", "load_from", "resume", "launcher", "env_cfg", "log_processor", "log_level"),
    *("visualizer", "default_scope", "randomness", "experiment_name"),
}
"""Of the Runner of mmengine 0.10.7, but ``cfg``, which is all of them."""
FIELDS = {field.name for field in msgspec.structs.fields(Run)}


@pytest.mark.parametrize("name", RUN_HINTS)
def test_a_hint_names_fields_that_a_run_has_or_says_where_else_it_goes(name: str) -> None:
    assert name not in FIELDS
    named = set(re.findall(r"'(\w+)'", RUN_HINTS[name]))
    assert named <= FIELDS
    assert named or "treenail train" in RUN_HINTS[name]


def test_each_argument_of_mmengines_runner_is_a_field_of_ours_or_has_a_hint() -> None:
    assert ARGUMENTS - FIELDS - RUN_HINTS.keys() == set()


def test_where_a_name_stands_decides_what_it_means() -> None:
    assert mmengine_hint("Run", "train_cfg", ()) == RUN_HINTS["train_cfg"]
    assert mmengine_hint("Mine", "train_cfg", ("model",)) is None
    assert mmengine_hint("Run", "trian", ()) is None
    of_data = mmengine_hint("Data", "collate_fn", ("train",))
    assert of_data is not None
    assert set(re.findall(r"'(\w+)'", of_data)) <= {field.name for field in msgspec.structs.fields(Data)}
    assert mmengine_hint("Mine", "priority", ("hooks", "mine")) == "write it beside the hooks, in priorities: {mine: …}"
    assert mmengine_hint("Mine", "priority", ("hooks", "mine", "inner")) is None
