"""Hooks and curves put together before the run, and a part asked for by its port."""

from pathlib import Path

from torch import nn, optim

from treenail.adapters.data import Digits
from treenail.adapters.hooks import BestHook
from treenail.adapters.loops import EpochLoop
from treenail.adapters.sampling import RandomSampler
from treenail.adapters.vis import JsonLines
from treenail.contracts import Data, Run
from treenail.kernel import Engine, Sampler, late, spec

hooks = {"best": spec(BestHook)("val/loss", mode="min")}
vis = {"curves": late(JsonLines)()}
run = Run(
    model=spec(nn.Linear)(64, 10),
    loss=spec(nn.CrossEntropyLoss)(),
    optimizer=late(optim.AdamW)(lr=1e-3),
    train=Data(dataset=spec(Digits)("train"), batch_size=32),
    loop=late(EpochLoop)(max_epochs=3),
    hooks=hooks,
    vis=vis,
)
assert vis["curves"].build(Path("nowhere")).directory == Path("nowhere")

engine = Engine({"sampler": RandomSampler(3)})
sampler: Sampler = engine.part("sampler", Sampler)
assert len(sampler) == 3
