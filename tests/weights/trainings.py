"""One small training in Treenail, mmengine and Lightning: the same model, data, order, optimizer and schedules."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from treenail.adapters.averaging import exponential_average
from treenail.adapters.loops import EpochLoop
from treenail.adapters.sampling import SequentialSampler
from treenail.adapters.schedule.compat import LinearLR, MultiStepLR
from treenail.adapters.weights import load_from
from treenail.contracts import Data, LoadFrom, Run, Schedule
from treenail.kernel import late, spec

EPOCHS = 3
STEPS = 4  # of an epoch: 8 samples in batches of 2
OPTIMIZER = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}


class Points(Dataset[tuple[Tensor, Tensor]]):
    """8 samples."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(index)
        return torch.randn(3, generator=generator), torch.randn(1, generator=generator)


def network() -> nn.Module:
    """Return the model, with weights that are always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))


def other() -> dict[str, Tensor]:
    """Return weights of the model that it does not have."""
    return {
        name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in network().state_dict().items()
    }


MMENGINE_SCHEDULES = (
    Schedule(scheduler=late(LinearLR)(start_factor=0.1, begin=0, end=3, by_epoch=False)),
    Schedule(scheduler=late(MultiStepLR)(milestones=(2,), gamma=0.5, by_epoch=True)),
)
TORCH_SCHEDULES = (Schedule(scheduler=late(torch.optim.lr_scheduler.StepLR)(step_size=2, gamma=0.5)),)


def run(schedules: tuple[Schedule, ...] = (), *, averages: bool = False) -> Run:
    """Return the training as a run of ours."""
    return Run(
        model=spec(network)(),
        loss=spec(nn.MSELoss)(),
        optimizer=late(torch.optim.SGD)(lr=0.1, momentum=0.9, weight_decay=1e-3),
        train=Data(dataset=spec(Points)(), sampler=late(SequentialSampler)(), batch_size=2),
        loop=late(EpochLoop)(max_epochs=EPOCHS),
        schedules=schedules,
        averaging=late(exponential_average)(momentum=0.1) if averages else None,
        hooks={"progress": None, "logger": None},
        device="cpu",
        threads=1,
    )


def mmengine(directory: Path) -> None:
    """Train with mmengine's Runner: ``epoch_1.pth`` … with averages, ``iter_6.pth`` in the middle of an epoch.

    Below ``accumulated`` so with an update of every four batches, ``iter_1.pth`` …; below ``by_step`` by iteration, and below
    ``resumed`` what mmengine itself makes of that training's ``iter_4.pth``. Below ``configured`` a config says that updates
    are of two batches.
    """
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # for its own files, which torch >= 2.6 does not load else
    warnings.simplefilter("ignore")
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    class Named(Points):
        def __getitem__(self, index: int) -> dict[str, Tensor]:  # type: ignore[override]  # as mmengine's models take it
            inputs, targets = super().__getitem__(index)
            return {"inputs": inputs, "targets": targets}

    class Net(BaseModel):  # type: ignore[misc]  # mmengine has no types
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, inputs: Tensor, targets: Tensor, mode: str) -> dict[str, Tensor]:
            return {"loss": nn.functional.mse_loss(self.net(inputs), targets)}

    def trained(place: Path, by_epoch: bool = True, **settings: object) -> None:
        runner = Runner(
            model=Net(),
            work_dir=str(place),
            train_dataloader={
                "dataset": Named(),
                "sampler": {"type": "DefaultSampler" if by_epoch else "InfiniteSampler", "shuffle": False},
                "batch_size": 2,
                "num_workers": 0,
                "collate_fn": {"type": "default_collate"},
            },
            train_cfg={"by_epoch": True, "max_epochs": EPOCHS}
            if by_epoch
            else {"by_epoch": False, "max_iters": EPOCHS * STEPS},
            log_level=logging.ERROR,
            experiment_name=place.name,
            **settings,
        )
        runner.train()
        torch.save(runner.model.net.state_dict(), place / "end.pt")

    sgd = {"type": "SGD", **OPTIMIZER}
    trained(
        directory,
        optim_wrapper={"optimizer": sgd},
        param_scheduler=[
            {"type": "LinearLR", "start_factor": 0.1, "begin": 0, "end": 3, "by_epoch": False},
            {"type": "MultiStepLR", "milestones": [2], "gamma": 0.5, "by_epoch": True},
        ],
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 1}},
        custom_hooks=[
            {"type": "EMAHook", "momentum": 0.1},
            {"type": "CheckpointHook", "interval": 6, "by_epoch": False, "save_last": False},
        ],
    )
    each = {"checkpoint": {"type": "CheckpointHook", "interval": 1, "by_epoch": False}}
    four = {"optimizer": sgd, "accumulative_counts": 4}
    trained(
        directory / "accumulated",
        optim_wrapper=four,
        default_hooks=each,
        param_scheduler={"type": "MultiStepLR", "milestones": [1], "gamma": 0.5, "by_epoch": True},
        custom_hooks=[{"type": "EMAHook", "momentum": 0.1}],
    )
    by_step = directory / "by_step"
    trained(by_step, by_epoch=False, optim_wrapper=four, default_hooks=each)
    trained(
        directory / "resumed",
        by_epoch=False,
        optim_wrapper=four,
        default_hooks=each,
        resume=True,
        load_from=str(by_step / "iter_4.pth"),
    )
    two = {"optimizer": sgd, "accumulative_counts": 2}
    trained(directory / "configured", optim_wrapper=two, default_hooks=each, cfg={"optim_wrapper": two})


def lightning(directory: Path) -> None:
    """Train with Lightning's Trainer: ``epoch-step=4.ckpt`` … after epochs, ``step-step=6.ckpt`` in the middle of one.

    So below ``averaged``, with averages of the weights, which are the model's in the end, and below ``accumulated``, with an
    update of every two batches, which its steps count, and below ``swa`` with averages of epochs.
    """
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging, WeightAveraging

    class Net(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = network()

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            return nn.functional.mse_loss(self.model(batch[0]), batch[1])

        def configure_optimizers(self):  # type: ignore[no-untyped-def]  # Lightning's type is a union of ten
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)]

    decay = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    averaging = WeightAveraging(multi_avg_fn=decay)
    for place, callbacks, accumulated in (
        (directory, [], 1),
        (directory / "averaged", [averaging], 1),
        (directory / "accumulated", [], 2),
        (directory / "swa", [StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1)], 1),
    ):
        net = Net()
        trainer = Trainer(
            default_root_dir=place,
            max_epochs=EPOCHS,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
            accumulate_grad_batches=accumulated,
            callbacks=[
                *callbacks,
                ModelCheckpoint(place, filename="epoch-{step}", save_top_k=-1),
                ModelCheckpoint(place, filename="step-{step}", every_n_train_steps=6 // accumulated, save_top_k=-1),
            ],
        )
        trainer.fit(net, DataLoader(Points(), 2))
        torch.save(net.model.state_dict(), place / "end.pt")


def sharded(directory: Path) -> list[float]:
    """Load weights into a model that FSDP2 has sharded, and return what it then gives."""
    from treenail.adapters.parallel import fully_sharded

    dist.init_process_group("gloo")
    try:
        if dist.get_rank() == 0:
            torch.save(other(), directory / "a.pt")
        dist.barrier()
        model = fully_sharded(network())
        report = load_from(model, LoadFrom(path=str(directory / "a.pt"), exclude=("3.bias",), strict=False))
        assert report.elements == 37
        model.eval()
        outputs: list[float] = model(torch.ones(2, 3)).flatten().tolist()
        return outputs
    finally:
        dist.destroy_process_group()
