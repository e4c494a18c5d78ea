"""Predictions in files, in every format, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from treenail.adapters.evaluation import DumpPredictions
from treenail.kernel import FileError, TrainingError


def written(path: Path, *taken: tuple[Tensor | None, object]) -> Path:
    dump = DumpPredictions(str(path))
    for indices, predictions in taken:
        dump.take(indices, predictions)
    assert dump.compute() == {}
    return path


SCORES = torch.tensor([[0.5, 1.0], [2.0, 3.0], [-1.0, 0.25]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int32, torch.bool])
def test_tensors_come_back_with_their_dtype_and_the_samples_indices(dtype: torch.dtype, tmp_path: Path) -> None:
    scores, order = SCORES.to(dtype), torch.tensor([4, 0, 2])
    taken = ((order[:2], scores[:2]), (order[2:], scores[2:]))
    tensors = load_file(written(tmp_path / "a.safetensors", *taken))
    assert tensors.keys() == {"index", "prediction"}
    assert torch.equal(tensors["index"], order)
    assert tensors["prediction"].dtype == dtype
    assert torch.equal(tensors["prediction"], scores)
    records = np.load(written(tmp_path / "a.npy", *taken))
    assert records["index"].tolist() == order.tolist()
    assert torch.equal(torch.from_numpy(records["prediction"].copy()).to(dtype), scores)
    lines = [json.loads(line) for line in written(tmp_path / "a.jsonl", *taken).read_text().splitlines()]
    assert lines == [{"index": i, "prediction": row} for i, row in zip([4, 0, 2], scores.tolist(), strict=True)]


def test_mappings_have_a_column_for_each_name(tmp_path: Path) -> None:
    both = {"scores": SCORES, "label": torch.arange(3)}
    listed = [{"scores": SCORES[row], "label": row} for row in range(3)]
    for number, predictions in enumerate((both, listed)):
        tensors = load_file(written(tmp_path / f"{number}.safetensors", (None, predictions)))
        assert torch.equal(tensors["prediction/scores"], SCORES)
        assert tensors["prediction/label"].tolist() == tensors["index"].tolist() == [0, 1, 2]
        records = np.load(written(tmp_path / f"{number}.npy", (None, predictions)))
        assert records.dtype.names == ("index", "prediction/scores", "prediction/label")
        lines = written(tmp_path / f"{number}.jsonl", (None, predictions)).read_text().splitlines()
        assert json.loads(lines[1]) == {"index": 1, "prediction": {"scores": [2.0, 3.0], "label": 1}}


def test_lines_take_what_is_not_alike(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", (None, [{"boxes": []}, {"boxes": [[1, 2]], "name": "cat"}]), (None, ["x"]))
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [each["index"] for each in found] == [0, 1, 2]
    assert [each["prediction"] for each in found] == [{"boxes": []}, {"boxes": [[1, 2]], "name": "cat"}, "x"]


@pytest.mark.parametrize(
    ("suffix", "predictions", "message"),
    [
        ("npy", [torch.zeros(2), torch.zeros(3)], "no tensors of one shape"),
        ("safetensors", ["a", "b"], "no tensors of one shape"),
        ("npy", SCORES[:2].long(), r"'prediction' is int64\[2\] for sample 3, and was float32\[2\]; write a .jsonl"),
        ("safetensors", {"scores": SCORES[:2]}, "'prediction/scores' is float32.2., and was missing|and was"),
        ("jsonl", [object(), 1], "the prediction for sample 3 cannot be written as JSON"),
        ("jsonl", SCORES[:1], "there are 1 predictions for 2 samples"),
        ("jsonl", "ab", "predictions are a str, not one a sample"),
        ("jsonl", {"a": SCORES[:2], "b": SCORES}, r"predictions are of \[2, 3\] samples, not one a sample"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_the_file(
    suffix: str, predictions: object, message: str, tmp_path: Path
) -> None:
    path = written(tmp_path / f"a.{suffix}", (None, SCORES))
    before = path.read_bytes()
    dump = DumpPredictions(str(path))
    dump.take(torch.tensor([0, 1]), SCORES[:2])
    with pytest.raises(TrainingError, match=message):
        dump.take(torch.tensor([3, 4]), predictions)
    assert path.read_bytes() == before


def test_files_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.jsonl, \.npy, \.safetensors"):
        DumpPredictions("predictions.pkl")
    with pytest.raises(TrainingError, match="there are no predictions to write"):
        written(tmp_path / "a.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError):
        written(tmp_path / "file" / "a.jsonl", (None, SCORES))


def test_a_reset_forgets_what_was_taken(tmp_path: Path) -> None:
    dump = DumpPredictions(str(tmp_path / "a.jsonl"))
    dump.take(None, SCORES)
    dump.reset()
    dump.take(None, SCORES[2:].long())
    for _ in range(2):  # writing twice gives the same
        dump.compute()
        assert (tmp_path / "a.jsonl").read_text() == '{"index": 0, "prediction": [-1, 0]}\n'


@pytest.mark.parametrize(
    ("suffix", "predictions", "message"),
    [
        ("npy", {"a": {"b": SCORES}, "a/b": SCORES}, "two predictions are called 'prediction/a/b'"),
        ("safetensors", {0: SCORES, "0": SCORES}, "two predictions are called 'prediction/0'"),
        ("jsonl", {0: SCORES, "0": SCORES}, "two predictions share a name, among 0, '0'"),
        ("npy", {"名": SCORES}, "'prediction/名' is no name that a .npy can have; write a .safetensors"),
        ("npy", SCORES.to(torch.float8_e4m3fn), "numpy has no torch.float8_e4m3fn"),
        ("safetensors", SCORES.to(torch.complex64), "safetensors have no torch.complex64"),
        ("safetensors", SCORES.to_sparse(), "'prediction' is a sparse tensor"),
        ("jsonl", SCORES.to_sparse(), "the prediction for sample 0 cannot be written as JSON"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_with_the_first_batch(
    suffix: str, predictions: object, message: str, tmp_path: Path
) -> None:
    dump = DumpPredictions(str(tmp_path / f"a.{suffix}"))
    with pytest.raises(TrainingError, match=message):
        dump.take(None, predictions)
