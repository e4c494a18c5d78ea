"""The bare loop and the peers in the benchmark `loops`, each written as its own documentation shows."""

# The peers are untyped, or not installed where the types are checked.
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call,misc,unused-ignore"

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch
from accelerate import Accelerator
from ignite.engine import Engine, Events
from ignite.handlers import ModelCheckpoint, ProgressBar, Timer
from ignite.metrics import RunningAverage
from lightning import Fabric, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from scripts.benchmarks._loops_work import (
    Batch,
    Contestant,
    StampedBatches,
    make_model,
    make_optimizer,
    mse,
    weights_of,
)
from torch import Tensor, nn


def bare(batches: StampedBatches, _: Path) -> Tensor:
    """Train with a plain loop."""
    model = make_model()
    optimizer = make_optimizer(model)
    for inputs, targets in batches:
        optimizer.zero_grad()
        loss = mse(model(inputs), targets)
        loss.backward()
        optimizer.step()
    return weights_of(model)


def bare_clearing(batches: StampedBatches, _: Path) -> Tensor:
    """Train with a plain loop that forgets gradients by hand, past `Optimizer.zero_grad` and its entry in profiles."""
    model = make_model()
    optimizer = make_optimizer(model)
    for inputs, targets in batches:
        for parameter in model.parameters():
            parameter.grad = None
        loss = mse(model(inputs), targets)
        loss.backward()
        optimizer.step()
    return weights_of(model)


def _fabric(batches: StampedBatches, _: Path) -> Tensor:
    fabric = Fabric(accelerator="cpu", devices=1)
    plain = make_model()
    model, optimizer = fabric.setup(plain, make_optimizer(plain))
    for inputs, targets in batches:
        optimizer.zero_grad()
        loss = mse(model(inputs), targets)
        fabric.backward(loss)
        optimizer.step()
    return weights_of(plain)


def _accelerate(*, accumulate: bool) -> Callable[[StampedBatches, Path], Tensor]:
    def train(batches: StampedBatches, _: Path) -> Tensor:
        accelerator = Accelerator(cpu=True)
        plain = make_model()
        model, optimizer = accelerator.prepare(plain, make_optimizer(plain))
        if accumulate:
            for inputs, targets in batches:
                with accelerator.accumulate(model):
                    loss = mse(model(inputs), targets)
                    accelerator.backward(loss)
                    optimizer.step()
                    optimizer.zero_grad()
        else:
            for inputs, targets in batches:
                optimizer.zero_grad()
                loss = mse(model(inputs), targets)
                accelerator.backward(loss)
                optimizer.step()
        return weights_of(plain)

    return train


class _Module(LightningModule):
    def __init__(self, *, log: bool) -> None:
        super().__init__()
        self.network = make_model()
        self._log = log

    def training_step(self, batch: Batch, _: int) -> Tensor:
        inputs, targets = batch
        loss = mse(self.network(inputs), targets)
        if self._log:
            self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.SGD:
        return make_optimizer(self.network)


def _lightning(*, on: bool, log: bool) -> Callable[[StampedBatches, Path], Tensor]:
    def train(batches: StampedBatches, directory: Path) -> Tensor:
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        module = _Module(log=log)
        trainer = Trainer(
            max_epochs=1,
            accelerator="cpu",
            devices=1,
            default_root_dir=directory,
            logger=log,
            callbacks=[TQDMProgressBar()] if on else [],
            enable_progress_bar=on,
            enable_checkpointing=on,
            enable_model_summary=on,
        )
        trainer.fit(module, train_dataloaders=batches)
        return weights_of(module)

    return train


class _Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.network = make_model()

    def forward(self, inputs: Tensor, targets: Tensor, mode: str = "tensor") -> dict[str, Tensor] | Tensor:
        outputs: Tensor = self.network(inputs)
        return {"loss": mse(outputs, targets)} if mode == "loss" else outputs


_RUNS = count()
_MMENGINE_HOOKS = ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")


def _mmengine(*, hooks: bool) -> Callable[[StampedBatches, Path], Tensor]:
    def train(batches: StampedBatches, directory: Path) -> Tensor:
        model = _Model()
        runner = Runner(
            model=model,
            work_dir=str(directory),
            train_dataloader=batches,
            train_cfg={"by_epoch": True, "max_epochs": 1},
            optim_wrapper=OptimWrapper(make_optimizer(model)),
            default_hooks=None if hooks else dict.fromkeys(_MMENGINE_HOOKS),
            experiment_name=f"bench{next(_RUNS)}",
        )
        runner.train()
        for handler in runner.logger.handlers:
            handler.close()
        for kind in (MMLogger, MessageHub, Visualizer):  # or every run would stay in memory
            kind._instance_dict.clear()
        return weights_of(model)

    return train


def _ignite(*, handlers: bool) -> Callable[[StampedBatches, Path], Tensor]:
    def train(batches: StampedBatches, directory: Path) -> Tensor:
        model = make_model()
        optimizer = make_optimizer(model)

        def update(_: Engine, batch: Batch) -> float:
            inputs, targets = batch
            optimizer.zero_grad()
            loss = mse(model(inputs), targets)
            loss.backward()
            optimizer.step()
            return loss.item()

        trainer = Engine(update)
        if handlers:
            _attach_handlers(trainer, model, optimizer, directory)
        trainer.run(batches, max_epochs=1)
        return weights_of(model)

    return train


def _attach_handlers(trainer: Engine, model: nn.Module, optimizer: torch.optim.Optimizer, directory: Path) -> None:
    timer = Timer(average=True)
    timer.attach(
        trainer, resume=Events.ITERATION_STARTED, pause=Events.ITERATION_COMPLETED, step=Events.ITERATION_COMPLETED
    )
    RunningAverage(output_transform=float).attach(trainer, "loss")
    ProgressBar().attach(trainer, ["loss"])
    lines = directory / "log.jsonl"

    def log(engine: Engine) -> None:
        values = {"step": engine.state.iteration, "loss": engine.state.metrics["loss"], "time": timer.value()}
        with lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    trainer.add_event_handler(Events.ITERATION_COMPLETED(every=10), log)
    saver = ModelCheckpoint(directory / "checkpoints", n_saved=3)
    parts = {"model": model, "optimizer": optimizer, "trainer": trainer}
    trainer.add_event_handler(Events.EPOCH_COMPLETED, saver, parts)


def peers() -> list[Contestant]:
    """Return every peer in its variants."""
    no_loader = "; batches not passed through a prepared loader"
    return [
        Contestant("fabric", _fabric, f"setup(model, optimizer){no_loader}"),
        Contestant("ignite, no handlers", _ignite(handlers=False), "nothing"),
        Contestant(
            "ignite, handlers",
            _ignite(handlers=True),
            "timer, running average, tqdm bar, JSON line every 10 steps, one checkpoint",
        ),
        Contestant("accelerate", _accelerate(accumulate=False), f"prepare(model, optimizer){no_loader}"),
        Contestant("accelerate + accumulate", _accelerate(accumulate=True), "as above, inside accumulate(model)"),
        Contestant(
            "mmengine, no hooks",
            _mmengine(hooks=False),
            "default hooks off; its log processor and environment dump stay",
        ),
        Contestant(
            "mmengine, default hooks",
            _mmengine(hooks=True),
            "timer, log line every 10 steps (console and file), local visualizer, one checkpoint; no bar by default",
        ),
        Contestant("lightning, all off", _lightning(on=False, log=False), "no bar, checkpoint, summary or logger"),
        Contestant(
            "lightning, bar + checkpoint",
            _lightning(on=True, log=False),
            "tqdm bar, summary, one checkpoint; no logger",
        ),
        Contestant(
            "lightning, defaults + self.log",
            _lightning(on=True, log=True),
            "the same with its CSV logger (a line every 50 steps) and one self.log(loss) a step",
        ),
    ]
