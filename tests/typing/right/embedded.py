"""Treenail's loop and engine inside a program of one's own: own model, own step, no config."""

import torch
from torch import Tensor, nn, optim

from treenail.adapters.data import Batches, Loader
from treenail.adapters.loops import EpochLoop, EvalLoop
from treenail.adapters.sampling import RandomSampler
from treenail.contracts import StepOutput, TrainWork
from treenail.kernel import Engine, Record


class Autoencoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(8, width)
        self.decoder = nn.Linear(width, 8)

    def forward(self, inputs: Tensor) -> Tensor:
        decoded: Tensor = self.decoder(self.encoder(inputs).relu())
        return decoded


model = Autoencoder(width=4)
optimizer = optim.Adam(model.parameters(), lr=1e-2)
samples = list(torch.rand(10, 8))


def step(batch: object) -> StepOutput:
    assert isinstance(batch, Tensor)
    optimizer.zero_grad()
    loss = (model(batch) - batch).square().mean()
    torch.autograd.backward(loss)
    optimizer.step()
    return StepOutput(loss.detach(), weight=len(batch))


sampler = RandomSampler(len(samples), seed=1)
batches = Loader(samples, sampler, batch_size=4)
validation = EvalLoop("val", model, nn.MSELoss(), Batches([(samples[0][None], samples[0][None])]))
loop = EpochLoop(TrainWork(step, batches, validation), max_epochs=2)
engine = Engine({"model": model, "optimizer": optimizer, "batches": batches, "loop": loop})
records: list[Record] = []
engine.subscribe(records.append)
engine.run(loop)

assert (engine.step, engine.epoch) == (6, 2)
assert [record.step for record in records] == [3, 6]
assert engine.part("model", Autoencoder).encoder.out_features == 4
resumed = Engine({"model": model, "optimizer": optimizer, "batches": batches, "loop": loop})
resumed.load_state_dict(engine.state_dict())
assert resumed.attempt == 2
