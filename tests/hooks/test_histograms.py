"""Distributions of gradients and weights, where people look at curves."""

from __future__ import annotations

import json
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.hooks.small_runs import Training, training
from treenail.adapters.hooks.histograms import HistogramHook, draw, look_at
from treenail.adapters.hooks.vis import VisHook
from treenail.adapters.optim import OptimWrapper, OwnStep
from treenail.adapters.vis import JsonLines, TensorBoard
from treenail.contracts.vis import Histogram, TakesHistograms
from treenail.kernel import Record, TrainingError, VisBackend


def lines(path: Path) -> list[dict[str, Any]]:  # Any: of JSON
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def watched(backend: VisBackend, hook: HistogramHook, **options: object) -> Training:
    """Return a training whose curves and histograms go to a backend."""
    return training(VisHook([backend], run="run"), hook, **options)  # type: ignore[arg-type]  # those of `training`


def scalars(directory: Path, step: int) -> dict[str, Any]:
    """Return the statistics of a step, those in common included."""
    return {k: v for line in lines(directory / "scalars.jsonl") if line["step"] == step for k, v in line.items()}


def test_gradients_are_those_that_the_optimizer_used_and_weights_those_it_made(tmp_path: Path) -> None:
    backend = JsonLines(tmp_path)
    done = watched(backend, HistogramHook([backend], interval=2))
    before: list[dict[str, Tensor]] = []
    done.optimizer.register_step_pre_hook(
        lambda *_: before.append({name: each.detach().clone() for name, each in done.model.named_parameters()})
    )
    done.run()
    before.append({name: each.detach() for name, each in done.model.named_parameters()})
    for step in (2, 4):
        found = scalars(tmp_path, step)
        for name, was in before[step - 1].items():
            now = before[step][name]
            gradient = (was - now) / 0.1
            assert found[f"weights/{name}/norm"] == pytest.approx(float(now.norm()), rel=1e-5)
            assert found[f"gradients/{name}/norm"] == pytest.approx(float(gradient.norm()), rel=1e-4)
            assert found[f"gradients/{name}/mean"] == pytest.approx(float(gradient.mean()), rel=1e-3, abs=1e-6)
            assert found[f"weights/{name}/max"] == pytest.approx(float(now.max()))
        assert found["gradients/nonfinite"] == 0
    drawn = lines(tmp_path / "histograms.jsonl")
    assert [(each["step"], each["name"]) for each in drawn[:4]] == [
        *((2, f"gradients/{name}") for name in ("weight", "bias")),
        *((2, f"weights/{name}") for name in ("weight", "bias")),
    ]
    assert sum(drawn[0]["counts"]) == 4


def test_gradients_that_the_model_forgets_itself_are_seen(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def train_step(self, data: list[Tensor], optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
            loss = (self.layer(data[0]) - data[1]).square().mean()
            optim_wrapper.update_params(loss)
            return {"loss": loss}

    backend, model = JsonLines(tmp_path), Own()
    done = watched(backend, HistogramHook([backend], interval=1), model=model)
    updates = done.engine.part("updates", OptimWrapper)
    done.loop._work = done.loop._work._replace(step=OwnStep(model, updates))
    done.run()
    assert model.layer.weight.grad is None, "the gradients were not forgotten, and nothing is tested"
    assert scalars(tmp_path, 4)["gradients/norm"] != 0


def test_gradients_of_a_skipped_update_are_counted_where_they_are_not_finite(tmp_path: Path) -> None:
    backend = JsonLines(tmp_path)
    inputs = torch.ones(2, 4)
    inputs[0, 1] = inf
    done = watched(
        backend,
        HistogramHook([backend], interval=1, weights=False),
        batches=[[inputs, torch.ones(2, 1)]],
        make=lambda optimizer: OptimWrapper(optimizer, skip_nonfinite=True),
    )
    done.run()
    found = scalars(tmp_path, 1)
    assert found["gradients/weight/nonfinite"] == 4
    assert found["gradients/nonfinite"] == 5
    assert "gradients/weight/mean" not in found, "there was no finite value to average"
    assert not any(str(name).startswith("weights/") for name in found)


def test_sparse_gradients_and_parameters_without_one(tmp_path: Path) -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(50, 3, sparse=True)
            self.unused = nn.Linear(3, 3)

        def forward(self, words: Tensor) -> Tensor:
            outputs: Tensor = self.embedding(words).sum(1)
            return outputs

    backend = JsonLines(tmp_path)
    batches = [[torch.tensor([[1, 1, 7]]), torch.zeros(1, 3)]]
    done = watched(backend, HistogramHook([backend], interval=1), model=Words(), batches=batches)
    done.run()
    found = scalars(tmp_path, 1)
    drawn = {str(each["name"]): each["counts"] for each in lines(tmp_path / "histograms.jsonl")}
    assert sum(drawn["gradients/embedding.weight"]) == 2 * 3  # the rows of two words
    assert "gradients/unused.weight/norm" not in found
    assert "weights/unused.weight/norm" in found


def test_parameters_are_chosen_by_name_and_an_unknown_one_is_an_error(tmp_path: Path) -> None:
    backend = JsonLines(tmp_path)
    done = watched(backend, HistogramHook([backend], interval=1, parameters=["*ias"]))
    done.run()
    assert {str(each["name"]) for each in lines(tmp_path / "histograms.jsonl")} == {"gradients/bias", "weights/bias"}
    other = watched(JsonLines(tmp_path / "other"), HistogramHook([backend], parameters=["head.*"]))
    with pytest.raises(TrainingError, match=r"no parameter is called head\.\*; there are weight, bias"):
        other.run()


def test_a_resumed_run_has_no_doubled_histograms(tmp_path: Path) -> None:
    backend = JsonLines(tmp_path)
    backend.start(run="run", attempt=1, step=0, commit=0)
    one = look_at(torch.arange(4.0), 2).histogram
    for step in (1, 2, 3):
        backend.histogram("weights/w", one, step=step)
    backend.close()
    backend.start(run="run", attempt=2, step=2, commit=2)
    backend.histogram("weights/w", one, step=3)
    backend.close()
    assert [each["step"] for each in lines(tmp_path / "histograms.jsonl")] == [1, 2, 3]


def test_tensorboard_shows_the_counts(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    backend = TensorBoard(tmp_path)
    done = watched(backend, HistogramHook([backend], interval=4, bins=8, gradients=False))
    done.run()
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0, "histograms": 0})
    events.Reload()
    (event,) = events.Histograms("weights/weight")
    weights = next(done.model.parameters()).detach().double()
    shown = event.histogram_value
    assert (event.step, shown.num, sum(shown.bucket)) == (4, 4, 4)
    assert shown.sum == pytest.approx(float(weights.sum()))
    assert shown.sum_squares == pytest.approx(float(weights.square().sum()))


class Pictures:
    """A backend that keeps pictures only, as somebody's own may."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, tuple[int, ...], int]] = []

    def start(self, *, run: str, attempt: int, step: int, commit: int) -> None: ...
    def scalars(self, record: Record) -> None: ...
    def graph(self, model: nn.Module, inputs: Tensor) -> None: ...
    def config(self, config: str) -> None: ...
    def text(self, name: str, text: str, *, step: int) -> None: ...
    def close(self) -> None: ...

    def image(self, name: str, image: Tensor, *, step: int) -> None:
        assert 0 <= float(image.min()) < float(image.max()) <= 1
        self.shown.append((name, tuple(image.shape), step))


def test_a_backend_without_histograms_gets_images_where_asked() -> None:
    for images, count in ((True, 4), (False, 0)):
        backend = Pictures()
        assert not isinstance(backend, TakesHistograms)
        watched(backend, HistogramHook([backend], interval=4, images=images)).run()
        assert len(backend.shown) == count
        assert all(shape[0] == 3 and step == 4 for _, shape, step in backend.shown)


def test_the_drawing_of_a_histogram_shows_its_counts() -> None:
    flat, peaked = (draw("w", Histogram((0.0, 1.0, 2.0), counts, 0.0, 0.0)) for counts in ((5, 5), (9, 1)))
    assert flat.shape == peaked.shape
    assert not torch.equal(flat, peaked)


def test_looking_changes_no_bit_of_the_training(tmp_path: Path) -> None:
    backend = JsonLines(tmp_path)
    looked, plain = watched(backend, HistogramHook([backend], interval=1), epochs=2), training(epochs=2)
    looked.run()
    plain.run()
    for ours, theirs in zip(looked.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_without_a_backend_as_on_other_ranks_nothing_is_done() -> None:
    done = training(HistogramHook(interval=1))
    done.run()
    assert not any("weights/norm" in record.values for record in done.records)


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=1, max_size=30),
    bins=st.integers(1, 7),
)
def test_every_finite_value_is_counted_once_and_every_other_one_too(values: list[float], bins: int) -> None:
    tensor = torch.tensor(values)
    found = look_at(tensor, bins)
    finite = tensor[tensor.isfinite()].double()
    assert found.nonfinite == len(values) - len(finite)
    assert sum(found.histogram.counts) == len(finite)
    if len(finite):
        assert len(found.histogram.edges) == bins + 1 == len(found.histogram.counts) + 1
        assert found.histogram.edges == tuple(sorted(found.histogram.edges))
        assert (found.least, found.greatest) == (float(finite.min()), float(finite.max()))
        assert found.histogram.squares == pytest.approx(float(finite.square().sum()))


def test_complex_numbers_count_as_two_and_constants_have_an_interval() -> None:
    assert sum(look_at(torch.tensor([1 + 2j, complex(nan, 1)]), 3).histogram.counts) == 3
    assert (
        look_at(torch.full((5,), 2.0), 4).histogram.edges[0] < 2 < look_at(torch.full((5,), 2.0), 4).histogram.edges[-1]
    )
    assert look_at(torch.empty(0), 4).histogram.counts == ()


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.filterwarnings("ignore:Sparse")
def test_of_a_sparse_tensor_its_entries_are_looked_at(layout: torch.layout) -> None:
    sparse = torch.tensor([[0.0, 2.0], [0.0, -1.0]]).to_sparse(layout=layout)
    found = look_at(sparse, 3)
    assert (found.least, found.greatest, sum(found.histogram.counts)) == (-1, 2, 2)


@pytest.mark.parametrize(
    "arguments", [{"interval": 0}, {"bins": 0}, {"parameters": []}, {"gradients": False, "weights": False}]
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any]) -> None:  # Any: each its own
    with pytest.raises(ValueError):
        HistogramHook(**arguments)
