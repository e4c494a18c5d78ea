"""Trainings of mmengine and Lightning go on as runs of ours."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor, nn

from tests.weights.trainings import EPOCHS, MMENGINE_SCHEDULES, STEPS, TORCH_SCHEDULES, Points, network, run
from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.files import LocalFiles
from treenail.adapters.loops import StepLoop
from treenail.adapters.optim import OptimWrapper
from treenail.adapters.runtime import Conversion, convert_checkpoint, train
from treenail.adapters.sampling import SequentialSampler
from treenail.adapters.schedule.compat import LinearLR, MultiStepLR, StepLR
from treenail.adapters.weights import load_from, open_source, weights_of
from treenail.contracts import Data, LoadFrom, Run, Schedule
from treenail.kernel import CheckpointError, ConfigError, late, spec

MMENGINE = {"epoch_1.pth": STEPS, "epoch_2.pth": 2 * STEPS, "iter_6.pth": 6}
LIGHTNING = {"epoch-step=4.ckpt": STEPS, "epoch-step=8.ckpt": 2 * STEPS, "step-step=6.ckpt": 6}


def weights_of_latest(work_dir: Path, part: str = "model") -> dict[str, object]:
    return weights_of(open_source(work_dir / "checkpoints" / "latest"), part)


def assert_equal(ours: dict[str, object], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0, msg=name)


def converted(run: Run, path: Path, work_dir: Path, prefix: str) -> Conversion:
    return convert_checkpoint(run, path, work_dir, prefix=prefix)


@pytest.mark.parametrize(("name", "step"), MMENGINE.items())
def test_a_training_of_mmengine_ends_with_the_very_weights_that_it_ends_with_there(
    of_mmengine: Path, tmp_path: Path, name: str, step: int
) -> None:
    config = run(MMENGINE_SCHEDULES, averages=True)
    done = converted(config, of_mmengine / name, tmp_path, "net")
    assert (done.step, done.epoch) == (step, step // STEPS)
    assert any(each.startswith("message_hub") for each in done.left)
    assert any(each.startswith("order of samples") for each in done.left) == (step % STEPS > 0)
    assert train(config, tmp_path, resume="latest").step == EPOCHS * STEPS
    assert_equal(weights_of_latest(tmp_path), torch.load(of_mmengine / "end.pt"))
    averages = {
        each.removeprefix("net."): tensor
        for each, tensor in weights_of(open_source(of_mmengine / f"epoch_{EPOCHS}.pth")).items()
    }
    found = weights_of_latest(tmp_path, "averages")
    for each, tensor in averages.items():
        torch.testing.assert_close(found[each], tensor, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("name", "step"), LIGHTNING.items())
def test_a_training_of_lightning_ends_with_the_very_weights_that_it_ends_with_there(
    of_lightning: Path, tmp_path: Path, name: str, step: int
) -> None:
    config = run(TORCH_SCHEDULES)
    done = converted(config, of_lightning / name, tmp_path, "model")
    assert (done.step, done.epoch) == (step, step // STEPS)
    assert any(each.startswith("callbacks") for each in done.left)
    assert train(config, tmp_path, resume="latest").epoch == EPOCHS
    assert_equal(weights_of_latest(tmp_path), torch.load(of_lightning / "end.pt"))


def test_averages_of_lightning_go_on(of_lightning: Path, tmp_path: Path) -> None:
    config = run(TORCH_SCHEDULES, averages=True)
    converted(config, of_lightning / "averaged" / "step-step=6.ckpt", tmp_path, "model")
    train(config, tmp_path, resume="latest")
    assert_equal(weights_of_latest(tmp_path), torch.load(of_lightning / "end.pt"))
    found, averages = weights_of_latest(tmp_path, "averages"), torch.load(of_lightning / "averaged" / "end.pt")
    for name in dict(network().named_parameters()):
        torch.testing.assert_close(found[name], averages[name], rtol=1e-6, atol=1e-7)


def test_a_loss_scaler_goes_on_and_is_not_dropped(of_lightning: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(of_lightning / "epoch-step=4.ckpt", weights_only=True)
    checkpoint["MixedPrecision"] = torch.amp.GradScaler("cpu", init_scale=512.0).state_dict()
    torch.save(checkpoint, tmp_path / "scaled.ckpt")
    with pytest.raises(CheckpointError, match="updates: it has a loss scaler, the run has none"):
        converted(run(TORCH_SCHEDULES), tmp_path / "scaled.ckpt", tmp_path / "without", "model")
    scaled = changed(updates=late(OptimWrapper)(precision="float16"))
    converted(scaled, tmp_path / "scaled.ckpt", tmp_path / "with", "model")
    _, state = CheckpointStore(LocalFiles(tmp_path / "with" / "checkpoints")).load()
    assert isinstance(state["updates"], dict)
    assert state["updates"]["loss_scaler"]["scale"] == 512.0


def test_the_checkpoint_is_one_of_the_run_and_says_where_it_comes_from(of_lightning: Path, tmp_path: Path) -> None:
    converted(run(TORCH_SCHEDULES), of_lightning / "epoch-step=4.ckpt", tmp_path, "model")
    manifest, state = CheckpointStore(LocalFiles(tmp_path / "checkpoints")).load()
    assert (manifest.step, manifest.epoch, manifest.attempt) == (4, 1, 1)
    assert manifest.reason.endswith("epoch-step=4.ckpt")
    assert isinstance(state["optimizer"], dict)
    assert len(state["optimizer"]["state"]) == 6


class Fewer(Points):
    def __len__(self) -> int:
        return 6


def changed(**fields: object) -> Run:
    return msgspec.structs.replace(run(TORCH_SCHEDULES), **fields)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (changed(optimizer=late(torch.optim.AdamW)(lr=0.1)), "optimizer: it is not of AdamW: its groups have momentum"),
        (
            changed(optimizer=late(torch.optim.SGD)(lr=0.1, momentum=0.9)),
            "optimizer: its weight_decay of group 0 is 0.001, the run's 0",
        ),
        (
            changed(optimizer=late(torch.optim.SGD)(lr=0.2, momentum=0.9, weight_decay=1e-3)),
            "optimizer: its lr of group 0 is 0.1, the run's 0.2",
        ),
        (changed(schedules=()), "schedules: there are 1 schedules in it, the run has 0"),
        (
            changed(schedules=(Schedule(scheduler=late(torch.optim.lr_scheduler.StepLR)(step_size=3, gamma=0.5)),)),
            "schedules: schedule 0: its step_size is 2, the run's 3",
        ),
        (
            changed(schedules=(Schedule(scheduler=late(torch.optim.lr_scheduler.ExponentialLR)(gamma=0.5)),)),
            "schedules: schedule 0: it is not of ExponentialLR: it has step_size",
        ),
        (
            changed(
                schedules=(
                    Schedule(scheduler=late(torch.optim.lr_scheduler.StepLR)(step_size=2, gamma=0.5), every="step"),
                )
            ),
            "schedules: schedule 0: it stands at 1, and would at 4",
        ),
        (
            changed(schedules=(Schedule(scheduler=late(StepLR)(step_size=2, gamma=0.5)),)),
            "schedules: schedule 0: its state is of one of torch's",
        ),
        (
            changed(train=Data(dataset=spec(Fewer)(), batch_size=2)),
            "batches: an epoch had 4 steps, one of the run has 3",
        ),
        (
            changed(averaging=run(averages=True).averaging),
            "averages: there are no averages in it",
        ),
    ],
)
def test_what_contradicts_the_config_is_an_error(
    of_lightning: Path, tmp_path: Path, config: Run, complaint: str
) -> None:
    with pytest.raises(CheckpointError, match=re.escape(complaint)):
        converted(config, of_lightning / "epoch-step=4.ckpt", tmp_path, "model")
    assert not (tmp_path / "checkpoints" / "latest").exists()


def test_what_is_skipped_begins_anew_and_is_named(of_lightning: Path, tmp_path: Path) -> None:
    config = changed(optimizer=late(torch.optim.AdamW)(lr=0.1), schedules=())
    done = convert_checkpoint(
        config,
        of_lightning / "epoch-step=4.ckpt",
        tmp_path,
        prefix="model",
        skip=("optimizer", "schedules"),
    )
    assert {"optimizer: skipped", "schedules: skipped"} <= set(done.left)
    _, state = CheckpointStore(LocalFiles(tmp_path / "checkpoints")).load()
    assert isinstance(state["optimizer"], dict)
    assert state["optimizer"]["state"] == {}
    assert train(config, tmp_path, resume="latest").step == EPOCHS * STEPS


def test_a_part_that_cannot_be_skipped_is_named(of_lightning: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'optimizer'"):
        convert_checkpoint(run(), of_lightning / "epoch-step=4.ckpt", tmp_path, skip=("optimiser",))


def test_schedules_of_mmengine_are_compared_by_their_kind_and_arguments(of_mmengine: Path, tmp_path: Path) -> None:
    warm, steps = MMENGINE_SCHEDULES
    other = Schedule(scheduler=late(LinearLR)(start_factor=0.2, begin=0, end=3, by_epoch=False))
    for number, (schedules, complaint) in enumerate(
        (
            ((steps, warm), "schedule 0: it stands at 4, and would at 1"),
            ((other, steps), "schedule 0: its start_factor is 0.1, the run's 0.2"),
            (
                (warm, Schedule(scheduler=late(StepLR)(step_size=2, gamma=0.5))),
                "schedule 1: it is of the kind MultiStep",
            ),
        )
    ):
        with pytest.raises(CheckpointError, match=re.escape(complaint)):
            converted(run(schedules), of_mmengine / "epoch_1.pth", tmp_path / str(number), "net")


class Reordered(nn.Module):
    """The model with its layers registered in another order."""

    def __init__(self) -> None:
        super().__init__()
        for name, module in {"3": nn.Linear(4, 1), "1": nn.BatchNorm1d(4), "0": nn.Linear(3, 4)}.items():
            self.add_module(name, module)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = inputs
        return outputs


def test_an_optimizer_whose_parameters_come_in_another_order_is_refused(of_lightning: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=re.escape("its parameter 0 is '0.weight', the run's '3.weight'")):
        converted(changed(model=spec(Reordered)()), of_lightning / "epoch-step=4.ckpt", tmp_path, "model")


def test_files_without_a_training_are_refused_with_what_to_do(of_lightning: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"this is a file of torch\.save.*load_from"):
        converted(run(), of_lightning / "end.pt", tmp_path, "")


def test_accumulated_batches_of_lightning_are_one_step(of_lightning: Path, tmp_path: Path) -> None:
    config = changed(
        train=Data(dataset=spec(Points)(), sampler=late(SequentialSampler)(), batch_size=4),
        updates=late(OptimWrapper)(accumulative_counts=2),
    )
    for name, step in {"epoch-step=2.ckpt": 2, "step-step=3.ckpt": 3}.items():
        done = converted(config, of_lightning / "accumulated" / name, tmp_path / name, "model")
        assert (done.step, done.epoch) == (step, step // 2)
        assert train(config, tmp_path / name, resume="latest").step == EPOCHS * 2
        assert_equal(weights_of_latest(tmp_path / name), torch.load(of_lightning / "accumulated" / "end.pt"))


FOUR = {
    "train": Data(dataset=spec(Points)(), sampler=late(SequentialSampler)(), batch_size=8),
    "updates": late(OptimWrapper)(accumulative_counts=4),
}


def halved(milestone: int, *, by_epoch: bool) -> tuple[Schedule, ...]:
    return (Schedule(scheduler=late(MultiStepLR)(milestones=(milestone,), gamma=0.5, by_epoch=by_epoch)),)


@pytest.mark.parametrize("iteration", [3, 4, 6, 8])
def test_accumulated_batches_of_mmengine_are_one_step_wherever_it_was_saved(
    of_mmengine: Path, tmp_path: Path, iteration: int
) -> None:
    config = changed(**FOUR, schedules=halved(1, by_epoch=True), averaging=run(averages=True).averaging)
    done = converted(config, of_mmengine / "accumulated" / f"iter_{iteration}.pth", tmp_path, "net")
    # The checkpoint of an epoch's last step was written before the epoch was over.
    assert (done.step, done.epoch) == (iteration // 4, (iteration - 1) // 4)
    assert f"batches: epoch {done.epoch}, step {done.step}, each of 4 batches" in done.taken
    assert any(each.startswith("averages: they were updated with each batch") for each in done.left)
    lost = [each for each in done.left if each.startswith("gradients of the last")]
    assert bool(lost) == (iteration % 4 > 0)
    assert train(config, tmp_path, resume="latest").step == EPOCHS
    found, theirs = weights_of_latest(tmp_path), torch.load(of_mmengine / "accumulated" / "end.pt")
    if lost:  # the batches of those gradients are trained with again, which counts in statistics of batches only
        theirs |= {name: tensor for name, tensor in found.items() if name.startswith(("1.running", "1.num"))}
    assert_equal(found, theirs)


def test_it_ends_as_mmengines_own_resumed_training_does(of_mmengine: Path, tmp_path: Path) -> None:
    config = changed(**FOUR, schedules=(), loop=late(StepLoop)(max_steps=EPOCHS))
    converted(config, of_mmengine / "by_step" / "iter_4.pth", tmp_path, "net")
    train(config, tmp_path, resume="latest")
    assert_equal(weights_of_latest(tmp_path), torch.load(of_mmengine / "resumed" / "end.pt"))


def test_a_config_in_the_checkpoint_says_how_many_batches_an_update_was_made_of(
    of_mmengine: Path, tmp_path: Path
) -> None:
    config = changed(train=Data(dataset=spec(Points)(), batch_size=4), schedules=())
    done = converted(config, of_mmengine / "configured" / "iter_6.pth", tmp_path, "net")
    assert (done.step, done.epoch) == (3, 1)
    with pytest.raises(CheckpointError, match="batches: an epoch had 2 steps, one of the run has 1"):
        converted(changed(**FOUR, schedules=()), of_mmengine / "configured" / "iter_6.pth", tmp_path / "four", "net")


def test_a_config_that_says_nothing_of_accumulation_had_none(of_mmengine: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(of_mmengine / "by_step" / "iter_8.pth", weights_only=False)
    for number, (said, step) in enumerate((("optim_wrapper = dict(type='OptimWrapper')", 8), ("", 2))):
        checkpoint["meta"]["cfg"] = said
        torch.save(checkpoint, tmp_path / "iter_8.pth")
        config = changed(**FOUR, schedules=(), loop=late(StepLoop)(max_steps=9))
        assert converted(config, tmp_path / "iter_8.pth", tmp_path / str(number), "net").step == step


def test_schedules_that_counted_accumulated_batches_are_refused_with_why(of_mmengine: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(of_mmengine / "by_step" / "iter_8.pth", weights_only=False)
    checkpoint["param_schedulers"] = [{"_global_step": 8, "by_epoch": False}]
    torch.save(checkpoint, tmp_path / "iter_8.pth")
    config = changed(**FOUR, schedules=halved(8, by_epoch=False), loop=late(StepLoop)(max_steps=EPOCHS))
    complaint = "it stands at 8, and would at 2 after 2 steps, of 4 batches each, which it counted one by one"
    with pytest.raises(CheckpointError, match=complaint):
        converted(config, tmp_path / "iter_8.pth", tmp_path / "run", "net")


def test_updates_that_go_on_from_one_epoch_to_the_next_are_refused(of_mmengine: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(of_mmengine / "configured" / "iter_6.pth", weights_only=False)
    checkpoint["meta"]["cfg"] = "optim_wrapper = dict(accumulative_counts=3)"
    torch.save(checkpoint, tmp_path / "iter_6.pth")
    with pytest.raises(CheckpointError, match="an epoch had 4 batches, and an update was made of every 3"):
        converted(run(), tmp_path / "iter_6.pth", tmp_path / "run", "net")


def test_updates_of_lightning_that_had_different_numbers_of_batches_are_refused(
    of_lightning: Path, tmp_path: Path
) -> None:
    checkpoint = torch.load(of_lightning / "accumulated" / "step-step=3.ckpt", weights_only=True)
    checkpoint["global_step"] = 5  # of 6 batches
    torch.save(checkpoint, tmp_path / "scheduled.ckpt")
    with pytest.raises(CheckpointError, match="it made 5 updates of 6 batches, which were not of as many each"):
        converted(run(TORCH_SCHEDULES), tmp_path / "scheduled.ckpt", tmp_path / "run", "model")


def test_averages_of_epochs_of_lightning_are_named_and_can_be_loaded(of_lightning: Path, tmp_path: Path) -> None:
    path = of_lightning / "swa" / "step-step=6.ckpt"
    config = changed(schedules=())
    skipped = ("optimizer", "schedules")
    done = convert_checkpoint(config, path, tmp_path, prefix="model", skip=skipped)
    (told,) = [each for each in done.left if each.startswith("callbacks")]
    part = told.partition("part: ")[2].rstrip("}")
    model = network()
    assert load_from(model, LoadFrom(path=str(path), part=part, prefix="model")).complete
    assert not torch.equal(model.state_dict()["0.weight"], weights_of(open_source(path))["model.0.weight"])  # type: ignore[arg-type]


def test_weights_of_another_precision_are_told(of_lightning: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(of_lightning / "epoch-step=4.ckpt", weights_only=True)
    checkpoint["state_dict"] = {
        name: tensor.bfloat16() if tensor.is_floating_point() else tensor
        for name, tensor in checkpoint["state_dict"].items()
    }
    torch.save(checkpoint, tmp_path / "half.ckpt")
    done = converted(run(TORCH_SCHEDULES), tmp_path / "half.ckpt", tmp_path / "run", "model")
    assert "model: 9 tensors, 8 converted from bfloat16 to float32" in done.taken
