"""Checkpoints: nothing lost, nothing let in."""

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from treenail.adapters.checkpoint import CheckpointStore, Snapshot, freeze, thaw
from treenail.adapters.files import LocalFiles
from treenail.kernel import CheckpointError, Engine

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.uint8]).map(
        lambda dtype: torch.ones(2, 3).to(dtype)
    ),
)
KEYS = st.one_of(st.text(max_size=4), st.integers(), st.sampled_from(["$tensor", "$map"]))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=12,
)


def same(ours: object, theirs: object) -> bool:
    """Compare by type and value; NaN equals NaN, tensors are equal bit for bit."""
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, float) and isinstance(theirs, float):
        return ours == theirs or (math.isnan(ours) and math.isnan(theirs))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs


def through_json(snapshot: Snapshot) -> Snapshot:
    return Snapshot(json.loads(json.dumps(snapshot.tree, allow_nan=False)), snapshot.tensors)


@given(TREES)
def test_a_state_tree_comes_back_as_it_was(tree: object) -> None:
    assert same(thaw(through_json(freeze(tree))), tree)


def test_a_snapshot_shares_nothing_with_the_training() -> None:
    weight = torch.zeros(3)
    snapshot = freeze({"weight": weight})
    weight += 1
    assert same(thaw(snapshot), {"weight": torch.zeros(3)})


def test_views_and_tied_tensors_are_kept_right() -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    tree = {"whole": whole, "again": whole, "column": whole[:, 1], "turned": whole.T, "empty": torch.empty(0, 3)}
    snapshot = freeze(tree)
    assert len(snapshot.tensors) == 4
    assert same(thaw(snapshot), tree)


def test_what_cannot_be_saved_is_named_by_its_path() -> None:
    with pytest.raises(CheckpointError, match=r"/model/0/hook: a builtins\.function cannot be saved"):
        freeze({"model": [{"hook": test_what_cannot_be_saved_is_named_by_its_path}]})
    with pytest.raises(CheckpointError, match="sparse"):
        freeze({"a": torch.eye(3).to_sparse()})


def state(step: int, size: int = 4) -> dict[str, object]:
    return Engine().state_dict() | {"model": {"weight": torch.full((size,), float(step))}}


def save(store: CheckpointStore, step: int, *pointers: str) -> None:
    store.save(state(step), step=step, epoch=0, reason="test", pointers=["latest", *pointers])


def directories(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir())


def test_retention_keeps_the_newest_and_those_a_pointer_leads_to(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path), keep_last=2)
    save(store, 1, "best")
    for step in (2, 3, 4):
        save(store, step)
    assert directories(tmp_path) == ["step-00000001", "step-00000003", "step-00000004"]
    assert store.pointers() == {"best": "step-00000001", "latest": "step-00000004"}


def test_of_several_states_of_a_step_only_the_newest_counts(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path), keep_last=2)
    for step in (1, 1, 2, 2, 2):
        save(store, step)
    assert directories(tmp_path) == ["step-00000001.2", "step-00000002.3"]


def test_retention_never_removes_what_another_run_wrote(tmp_path: Path) -> None:
    save(CheckpointStore(LocalFiles(tmp_path)), 1)
    (tmp_path / "step-00000002").mkdir()
    (tmp_path / "step-00000002" / "precious.txt").write_text("mine")
    ours = CheckpointStore(LocalFiles(tmp_path), keep_last=1)
    for step in (5, 6):
        save(ours, step)
    assert directories(tmp_path) == ["step-00000001", "step-00000002", "step-00000006"]


def test_saving_a_step_again_writes_nothing_over(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path))
    save(store, 1)
    save(store, 1)
    assert directories(tmp_path) == ["step-00000001", "step-00000001.2"]
    assert store.resolve() == "step-00000001.2"


def test_a_directory_without_a_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path))
    save(store, 1)
    (tmp_path / "step-00000001" / "manifest.json").unlink()
    assert list(store.manifests()) == []
    with pytest.raises(CheckpointError, match="there is no checkpoint 'latest'"):
        store.load()


def test_an_unknown_name_is_refused_with_what_there_is(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path))
    save(store, 1, "best")
    with pytest.raises(CheckpointError, match=r"there is no checkpoint 'bset'; did you mean 'best'\?"):
        store.load("bset")


class Malice:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch pwned",)


def test_a_pickle_in_place_of_a_state_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = CheckpointStore(LocalFiles(tmp_path / "run"))
    save(store, 1)
    for name in ("state.safetensors", "state.json", "manifest.json"):
        path = tmp_path / "run" / "step-00000001" / name
        content = path.read_bytes()
        path.write_bytes(pickle.dumps(Malice()))
        with pytest.raises(CheckpointError):
            store.load()
        path.write_bytes(content)
    assert not (tmp_path / "pwned").exists()


def test_a_failed_save_leaves_the_last_checkpoint_and_the_pointer(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path))
    save(store, 1)
    broken = state(2) | {"extra": object()}
    with pytest.raises(CheckpointError, match="cannot be saved"):
        store.save(broken, step=2, epoch=0, reason="test", pointers=["latest"])
    (tmp_path / "step-00000003").write_text("a file where the directory would be")
    with pytest.raises(CheckpointError, match=r"could not be written.*earlier checkpoints are untouched"):
        save(store, 3)
    manifest, found = store.load()
    assert manifest.step == 1
    assert same(found["model"], {"weight": torch.full((4,), 1.0)})


WRITER = """
import sys, torch
from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.files import LocalFiles
from treenail.kernel import Engine
store = CheckpointStore(LocalFiles(sys.argv[1]), keep_last=2)
print("ready", flush=True)
step = 0
while True:
    step += 1
    tree = Engine().state_dict() | {"model": {"weight": torch.full((300_000,), float(step))}}
    store.save(tree, step=step, epoch=0, reason="test", pointers=["latest"])
"""


@pytest.mark.parametrize("delay", [0.03, 0.11, 0.23, 0.31])
def test_a_process_killed_while_saving_leaves_a_whole_checkpoint(tmp_path: Path, delay: float) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    while not (tmp_path / "latest").exists():
        time.sleep(0.005)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    store = CheckpointStore(LocalFiles(tmp_path))
    manifest, found = store.load()
    assert same(found["model"], {"weight": torch.full((300_000,), float(manifest.step))})
    for directory, each in store.manifests():
        assert store.load(directory)[0] == each
