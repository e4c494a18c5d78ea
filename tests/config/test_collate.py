"""A batch is made of samples by whatever the config names: torch's way, lists, or a function or class of the user's own."""

import functools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from treenail.adapters import runtime
from treenail.adapters.config import Catalog, InvalidConfigError, Source, load_run
from treenail.adapters.config.freezing import freeze
from treenail.adapters.data import DataError
from treenail.contracts import Data, Run
from treenail.kernel import Spec, spec

MODULE = '''
import torch
from torch import nn


class Ragged:
    """Sequences of unlike lengths."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": torch.full((index % 3 + 1,), float(index)), "y": torch.tensor(0.0)}


def padded(samples: list[dict[str, torch.Tensor]], value: float = 0.0):
    x = nn.utils.rnn.pad_sequence([each["x"] for each in samples], batch_first=True, padding_value=value)
    return x, torch.stack([each["y"] for each in samples])


class Padded:
    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def __call__(self, samples: list[dict[str, torch.Tensor]]):
        return padded(samples, self.value)


class Useless:
    pass


class Total(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x.sum(1)
'''
CONFIG = """
imports: [collate_parts]
model: {type: collate_parts:Total}
loss: {type: mse_loss}
optimizer: {type: SGD, lr: 0.0}
train: {dataset: {type: collate_parts:Ragged}, batch_size: 3, collate: COLLATE}
test: {dataset: {type: collate_parts:Ragged}, batch_size: 3, num_workers: WORKERS, collate: COLLATE}
loop: {type: epochs, max_epochs: 1}
hooks: {progress: null, logger: null}
device: cpu
threads: 1
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "collate_parts.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "collate_parts", raising=False)
    return tmp_path / "config.yaml"


def run_of(path: Path, collate: str, workers: int = 0) -> Run:
    path.write_text(CONFIG.replace("COLLATE", collate).replace("WORKERS", str(workers)))
    return load_run(path)


def loss_of(padding: float) -> float:
    """Return the mean squared sum of the six padded sequences."""
    sums = [0 + 2 * padding, 2 * 1 + padding, 3 * 2, 3 + 2 * padding, 2 * 4 + padding, 3 * 5]
    return sum(each**2 for each in sums) / 6


@pytest.mark.parametrize(
    ("collate", "padding", "workers"),
    [
        ("{type: collate_parts:padded}", 0.0, 0),
        ("{type: collate_parts:padded, value: 2.0}", 2.0, 1),
        ("{type: collate_parts:Padded, value: 2.0}", 2.0, 0),
    ],
    ids=["function", "completed function", "class"],
)
def test_a_batch_is_made_by_what_the_config_names(config: Path, collate: str, padding: float, workers: int) -> None:
    run = run_of(config, collate, workers)
    metrics = runtime.train(run, config.parent / "work").metrics
    assert metrics["test/loss"] == pytest.approx(loss_of(padding))
    assert runtime.test(run, str(config.parent / "work/checkpoints/latest"))["test/loss"] == metrics["test/loss"]


def test_samples_that_are_unlike_are_still_refused_by_stack(config: Path) -> None:
    with pytest.raises(DataError, match=r"of Ragged make no batch: .*give collate: list"):
        runtime.train(run_of(config, "stack"), config.parent / "work")


@pytest.mark.parametrize(
    ("collate", "message"),
    [
        ("stak", "train.collate: expected one of 'stack', 'list', got 'stak'; did you mean 'stack'?"),
        (
            "{type: collate_parts:paded}",
            "train.collate.type: 'collate_parts:paded': 'paded' is not in the module; did you",
        ),
        (
            "{type: collate_parts:padded, valu: 1.0}",
            "train.collate.valu: padded takes no 'valu'; did you mean 'value'?",
        ),
        ("{type: collate_parts:Useless}", "train.collate.type: 'collate_parts:Useless' is a class, not a function"),
    ],
)
def test_what_makes_no_batch_is_refused(config: Path, collate: str, message: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        run_of(config, collate)
    assert message in str(caught.value)


def test_its_python_names_it_too(config: Path) -> None:
    run_of(config, "{type: collate_parts:padded, value: 2.0}")
    text = freeze(Source(config), Catalog())
    config.with_name("frozen.py").write_text(text)
    found = load_run(config.with_name("frozen.py")).train.collate
    assert isinstance(found, Spec)
    samples: list[Any] = [{"x": torch.ones(1), "y": torch.zeros(())}, {"x": torch.ones(2), "y": torch.zeros(())}]
    assert found.build()(samples)[0].tolist() == [[1.0, 2.0], [1.0, 1.0]]  # type: ignore[index]  # a tuple, see padded


def test_python_gives_a_function_by_partial() -> None:
    def doubled(samples: list[int]) -> list[int]:
        return [2 * each for each in samples]

    data = Data(dataset=spec(list[int])([1, 2]), batch_size=2, collate=spec(functools.partial[list[int]])(doubled))
    assert isinstance(data.collate, Spec)
    assert data.collate.build()([1, 2]) == [2, 4]
