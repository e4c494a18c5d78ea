"""Throughput, memory, learning rates and profiles of a training."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.hooks.small_runs import Saves, listening, small_run, training
from treenail.adapters.comm import run_threads
from treenail.adapters.hooks.lr_watch import LearningRateWatchHook
from treenail.adapters.hooks.memory import MemoryHook, memory_in_use
from treenail.adapters.hooks.profiler import ProfilerHook
from treenail.adapters.hooks.throughput import ThroughputHook, peak_of, samples_of
from treenail.adapters.optim import TokenCrossEntropy
from treenail.adapters.runtime import train
from treenail.contracts import StepOutput
from treenail.kernel import Communicator, Engine, Hook, TrainingError, spec


def per_second(found: list[float], steps: list[float]) -> list[float]:
    """Return so much for each step; how long a step took is not known."""
    return [round(value / each, 6) for value, each in zip(found, steps, strict=True)]


def test_samples_a_second_are_those_of_the_batches_in_the_window_and_in_the_attempt() -> None:
    sizes = [4, 4, 2, 2, 1, 5]
    batches = [[torch.randn(size, 4), torch.randn(size, 1)] for size in sizes]
    done = training(ThroughputHook(interval=2), batches=batches)
    done.run()
    steps = done.published("throughput/steps_per_second")
    assert per_second(done.published("throughput/samples_per_second"), steps) == [4, 2, 3]
    means = done.published("throughput/steps_per_second_mean")
    assert per_second(done.published("throughput/samples_per_second_mean"), means) == [4, 3, 3]
    assert all(0 <= share <= 1 for share in done.published("throughput/data_share"))
    assert not done.published("throughput/mfu"), "nothing was said about operations"
    assert [record.step for record in done.records if "throughput/data_share" in record.values] == [2, 4, 6]


class SavesSlowly(Saves):
    """Takes its time."""

    def save(self, checkpoint: object, *, step: int, epoch: int, reason: str, pointers: object) -> str:
        sleep(0.3)
        return super().save(checkpoint, step=step, epoch=epoch, reason=reason, pointers=pointers)


class ValidatesAndSaves(Hook):
    """Validates, and has a checkpoint saved, after the second step."""

    priority = 99

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        if engine.step == 1:
            engine.request_checkpoint("now")
            assert engine.points.before_val is not None
            engine.points.before_val(engine)
            sleep(0.3)


def test_saving_and_validation_between_steps_are_no_time_of_the_training() -> None:
    done = training(ThroughputHook(interval=4), ValidatesAndSaves())
    done.engine.checkpointer = SavesSlowly()
    done.run()
    (rate,), (share,) = (done.published(f"throughput/{name}") for name in ("steps_per_second", "data_share"))
    assert rate > 4 / 0.3, "the pauses count"
    assert share < 0.9, "the pauses are taken for a wait for data"


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA L40", 181.05e12),
        ("NVIDIA L40S", 362.05e12),
        ("NVIDIA GH200 480GB", 989.4e12),
        ("NVIDIA RTX A4000", None),
        ("NVIDIA T400", None),
    ],
)
def test_a_device_is_known_by_whole_words_of_its_name(name: str, peak: float | None) -> None:
    assert peak_of(name) == peak


def test_batches_without_tokens_are_told() -> None:
    said = listening()
    training(ThroughputHook(2, tokens="inputs", terminal=said.terminal)).run()
    assert said.text.count("no tokens were counted") == 1


def test_operations_of_a_sample_are_counted_once_and_give_a_utilisation() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))
    hook = ThroughputHook(interval=2, flops_per_sample="measure", peak_flops=1e9)
    done = training(hook, model=model)
    done.run()
    # Two operations a weight in the forward pass; as many for its gradient, and for that of its input but the data.
    by_hand = 2 * 4 * 8 * 2 + 2 * 8 * 1 * 3
    rates = done.published("throughput/samples_per_second")
    assert done.published("throughput/mfu") == pytest.approx([by_hand * rate / 1e9 for rate in rates])
    assert done.published("throughput/tflops") == pytest.approx([by_hand * rate / 1e12 for rate in rates])


def test_counting_operations_changes_no_bit_of_the_training() -> None:
    counted = training(ThroughputHook(interval=2, flops_per_sample="measure"), epochs=2)
    plain = training(epochs=2)
    counted.run()
    plain.run()
    for ours, theirs in zip(counted.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_step_that_fails_while_its_operations_are_counted_ends_the_counting() -> None:
    batches = [[torch.randn(2, 4), torch.randn(2, 1)], [torch.randn(2, 3), torch.randn(2, 1)]]
    done = training(ThroughputHook(flops_per_sample="measure"), batches=batches)
    with pytest.raises(RuntimeError):
        done.run()
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None


def test_a_model_without_known_operations_is_told() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(1))

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs[:, :1] * self.factor

    said = listening()
    done = training(ThroughputHook(interval=2, flops_per_sample="measure", terminal=said.terminal), model=Scale())
    done.run()
    assert "no floating-point operations were counted" in said.text
    assert not done.published("throughput/tflops")


def test_tokens_are_those_of_the_inputs_or_those_that_count() -> None:
    words = torch.randint(1, 9, (2, 5), generator=torch.Generator().manual_seed(1))
    targets = words.clone()
    targets[:, 3:] = -100
    model = nn.Sequential(nn.Embedding(9, 9))
    batches = [[words, targets]] * 2
    inputs = training(ThroughputHook(1, tokens="inputs"), model=model, batches=batches, loss=TokenCrossEntropy())
    weight = training(ThroughputHook(1, tokens="weight"), model=model, batches=batches, loss=TokenCrossEntropy())
    for done, tokens in ((inputs, 10), (weight, 6)):
        done.run()
        steps = done.published("throughput/steps_per_second")
        assert per_second(done.published("throughput/tokens_per_second"), steps) == [tokens, tokens]


@pytest.mark.parametrize(
    ("batch", "samples"),
    [
        ([torch.zeros(3, 2), torch.zeros(3)], 3),
        ((torch.zeros(3, 2), torch.zeros(3), torch.zeros(3)), 3),
        ({"inputs": torch.zeros(5, 2), "targets": torch.zeros(5)}, 5),
        ({"inputs": [torch.zeros(3, 8, 8), torch.zeros(3, 9, 9)]}, 2),
        ([{"image": torch.zeros(3, 8, 8)}] * 4, 4),
        ([(torch.zeros(3), 1)] * 6, 6),
        (torch.zeros(7, 2), 7),
        (torch.zeros(()), 1),
        ({}, 1),
    ],
)
def test_batches_of_any_form_have_samples(batch: object, samples: int) -> None:
    assert samples_of(batch) == samples


def test_on_many_ranks_samples_are_those_of_all_and_memory_is_the_largest() -> None:
    def work(ranks: Communicator) -> list[float]:
        throughput, memory = ThroughputHook(2, communicator=ranks), MemoryHook(2, communicator=ranks)
        engine = Engine()
        found: dict[str, float] = {}
        engine.subscribe(lambda record: found.update(record.values))
        throughput.before_train(engine)
        for _ in range(2):
            batch = [torch.zeros(ranks.rank + 1, 2), torch.zeros(ranks.rank + 1)]
            throughput.before_train_iter(engine, 0, batch)
            for hook in (throughput, memory):
                hook.after_train_iter(engine, 0, batch, StepOutput(0.0, 1))
            engine.commit(steps=1)
        rate = found["throughput/samples_per_second"] / found["throughput/steps_per_second"]
        return [round(rate, 6), found["throughput/samples_per_second"], found["memory/rss"]]

    first, second, third = run_threads(3, work)
    assert first[0] == 1 + 2 + 3
    assert first == second == third, "ranks tell different things"


def test_memory_is_in_mib_and_grows_with_what_is_held() -> None:
    before = memory_in_use()
    held = torch.ones(16 * 2**20)  # 64 MiB, written to
    after = memory_in_use()
    assert after["rss"] - before["rss"] > 48
    assert after["peak_rss"] >= after["rss"] * 0.9
    assert held.sum() > 0


def test_too_much_memory_stops_the_run_with_a_checkpoint() -> None:
    done = training(MemoryHook(interval=2, limit=1.0))
    with pytest.raises(TrainingError, match=r"hooks.memory.limit: the process takes \d+ MiB after step 2, more than 1"):
        done.run()
    assert [step for step, _ in done.saves.saved] == [2]


def test_momentum_and_weight_decay_of_each_group_are_in_the_log() -> None:
    model = nn.Linear(4, 1)
    groups: list[dict[str, Any]] = [  # Any: as torch types them
        {"params": [model.weight], "name": "w"},
        {"params": [model.bias], "name": "b", "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.1, betas=(0.8, 0.99), weight_decay=0.5)
    done = training(LearningRateWatchHook(), model=model, optimizer=optimizer)
    done.run()
    gauges = {name: read() for name, read in done.engine.meters.gauges.items()}
    assert gauges == {
        "lr/w": 0.1,
        "lr/b": 0.1,
        "momentum/w": 0.8,
        "momentum/b": 0.8,
        "weight_decay/w": 0.5,
        "weight_decay/b": 0.0,
    }


@pytest.mark.parametrize(
    ("rates", "told"),
    [
        ([0.1, 0.1, 0.01, 0.1], None),
        ([0.0, 0.1, 0.0, 0.1], None),
        ([0.1, 0.0, 0.0, 0.0], "is 0: nothing is learnt"),
        ([0.1, 0.1, 20.0, 20.0], "jumped from 0.1 to 20"),
        ([0.1, float("nan"), 0.1, 0.1], "is nan"),
        ([0.1, 0.1, 0.1, -0.1], "is -0.1"),
    ],
)
def test_a_learning_rate_that_goes_wrong_gives_one_alarm(rates: list[float], told: str | None) -> None:
    said = listening()
    hook = LearningRateWatchHook(interval=1, terminal=said.terminal)
    done = training(hook)
    hook.before_train(done.engine)
    for rate in rates:
        done.optimizer.param_groups[0]["lr"] = rate
        hook.after_train_iter(done.engine, 0, None, None)
    lines = said.text.splitlines()
    assert len(lines) == (told is not None), said.text
    assert told is None or told in lines[0]


def test_a_setting_that_no_group_has_is_named() -> None:
    done = training(LearningRateWatchHook(params=["momentum", "weight_decai"]))
    with pytest.raises(TrainingError, match=r"no group .* has 'weight_decai'; did you mean 'weight_decay'"):
        done.run()


def test_an_alarm_may_stop_the_run_with_a_checkpoint() -> None:
    done = training(LearningRateWatchHook(interval=1, action="stop"))
    done.optimizer.param_groups[0]["lr"] = 0.0
    with pytest.raises(TrainingError, match="the learning rate 'lr' is 0: nothing is learnt after step 2"):
        done.run()
    assert [step for step, _ in done.saves.saved] == [2]


def recordings(directory: Path) -> dict[str, int]:
    """Return how many backward passes each trace holds, by name; each has a table beside it."""
    found = {}
    for path in sorted(directory.glob("*.json.gz")):
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        found[path.name] = sum(event.get("name") == "Optimizer.step#SGD.step" for event in events)
        assert "Self CPU" in (directory / f"{path.name.removesuffix('.json.gz')}.txt").read_text()
    return found


def test_steps_are_profiled_as_scheduled_and_a_run_that_ends_before_keeps_what_there_is(tmp_path: Path) -> None:
    done = training(ProfilerHook(tmp_path / "a", skip_first=1, warmup=1, active=2), epochs=2)
    done.run()
    assert recordings(tmp_path / "a") == {"step-3-4.rank0.json.gz": 2}
    short = training(ProfilerHook(tmp_path / "b", skip_first=1, warmup=1, active=9))
    short.run()
    assert recordings(tmp_path / "b") == {"step-3-4.rank0.json.gz": 2}
    none = training(ProfilerHook(tmp_path / "c", skip_first=3, warmup=1))
    none.run()
    assert not (tmp_path / "c").exists(), "there was no step to record"


def test_a_resumed_run_is_profiled_under_its_own_steps_and_a_failed_one_leaves_the_profiler_free(
    tmp_path: Path,
) -> None:
    def run() -> object:
        hook = spec(ProfilerHook)(tmp_path / "profile", skip_first=0, warmup=1, active=2)
        return small_run(2, profiler=hook)

    train(small_run(1), tmp_path)
    train(run(), tmp_path, resume="latest", allow_changes=True)  # type: ignore[arg-type]  # a Run
    assert list(recordings(tmp_path / "profile")) == ["step-6-7.rank0.json.gz"]

    failing = [[torch.randn(2, 4), torch.randn(2, 1)]] * 2 + [[torch.randn(2, 3), torch.randn(2, 1)]]
    failed = training(ProfilerHook(tmp_path / "failed", skip_first=0, active=9), batches=failing)
    with pytest.raises(RuntimeError):
        failed.run()
    assert recordings(tmp_path / "failed") == {"step-2-2.rank0.json.gz": 1}
    again = training(ProfilerHook(tmp_path / "again", skip_first=0, active=1))
    again.run()
    assert recordings(tmp_path / "again") == {"step-2-2.rank0.json.gz": 1}


def test_a_profile_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    said = listening()
    done = training(ProfilerHook(tmp_path / "taken", skip_first=0, active=1, terminal=said.terminal))
    done.run()
    assert done.engine.step == 4
    assert "profile not written" in said.text


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        ThroughputHook(interval=0)
    with pytest.raises(ValueError):
        ThroughputHook(peak_flops=-1.0)
    with pytest.raises(ValueError):
        ThroughputHook(flops_per_sample="guess")  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ValueError):
        MemoryHook(limit=0.0)
    with pytest.raises(ValueError):
        LearningRateWatchHook(max_jump=1.0)
    with pytest.raises(ValueError):
        ProfilerHook(tmp_path, active=0)
    with pytest.raises(ValueError, match="must be some of cpu"):
        ProfilerHook(tmp_path, activities=["tpu"])  # type: ignore[list-item]  # on purpose
