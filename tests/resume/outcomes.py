"""What a training leaves behind, for comparing one that was disturbed with one that was not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch

from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.files import LocalFiles
from treenail.kernel import FileBackend


class Outcome(NamedTuple):
    """What two runs are compared by.

    Args:
        state: Of the last checkpoint.
        logged: Scalars.
        best: Step of the checkpoint that the pointer ``best`` leads to; None without one.
    """

    state: dict[str, object]
    logged: list[dict[str, float]]
    best: int | None = None

    def __repr__(self) -> str:
        return "Outcome(…)"  # a failing example is reported with its arguments, of which this one has megabytes


def outcome(work_dir: Path, checkpoints: FileBackend | None = None) -> Outcome:
    """Read the last checkpoint and the logged scalars; clock times and the number of attempts may differ."""
    store = CheckpointStore(checkpoints or LocalFiles(work_dir / "checkpoints"))
    _, state = store.load("latest")
    engine = state.pop("engine")
    assert isinstance(engine, dict)
    state["counters"] = [engine["step"], engine["epoch"]]
    lines = (work_dir / "jsonlines" / "scalars.jsonl").read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    for record in logged:
        for name in ("time", "data_time", "attempt", "commit"):
            record.pop(name, None)
    best = dict(store.manifests()).get(store.pointers().get("best", ""))
    return Outcome(state, logged, None if best is None else best.step)


def difference(ours: object, theirs: object, path: str = "state") -> str | None:
    """Return the path of the first difference of two state trees; tensors must be equal bit for bit."""
    if isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor):
        equal = ours.dtype == theirs.dtype and torch.equal(ours, theirs)
        return None if equal else path
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if ours.keys() != theirs.keys():
            return f"{path}: keys {ours.keys() ^ theirs.keys()}"
        pairs = [(ours[key], theirs[key], f"{path}.{key}") for key in ours]
    elif isinstance(ours, list | tuple) and isinstance(theirs, list | tuple) and len(ours) == len(theirs):
        pairs = [(one, other, f"{path}[{i}]") for i, (one, other) in enumerate(zip(ours, theirs, strict=True))]
    else:
        return None if ours == theirs else f"{path}: {ours!r} != {theirs!r}"
    return next((found for pair in pairs if (found := difference(*pair))), None)
