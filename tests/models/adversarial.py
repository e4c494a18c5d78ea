"""A generator and a discriminator that train each other, with an optimizer each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Adam

from treenail.adapters.averaging import exponential_average
from treenail.adapters.loops import StepLoop
from treenail.adapters.optim import OptimWrapper, OptimWrapperDict
from treenail.contracts import Data, Limits, Run
from treenail.kernel import late, spec

STEPS = 13  # passes have 5


class Points:
    """What is real, and the noise that something is drawn from; with chance in it, or always the same."""

    def __init__(self, chance: bool) -> None:
        self.chance = chance

    def __len__(self) -> int:
        return 42

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.default_generator if self.chance else torch.Generator().manual_seed(index)
        return torch.rand(4, generator=generator), torch.rand(2, generator=generator)


class Adversaries(nn.Module):
    """Each learns by what the other does.

    Args:
        chance: Normalise by batches, and drop features by chance.
    """

    def __init__(self, chance: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.generator = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8) if chance else nn.ReLU(), nn.Linear(8, 4))
        self.discriminator = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3 * chance), nn.LeakyReLU(), nn.Linear(8, 1))

    def train_step(self, data: Any, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        real, noise = data
        generator, discriminator = optim_wrapper["generator"], optim_wrapper["discriminator"]
        with generator.optim_context(self.generator):
            drawn = self.generator(noise)
        with discriminator.optim_context(self.discriminator):
            loss = softplus(-self.discriminator(real)).mean() + softplus(self.discriminator(drawn.detach())).mean()
        discriminator.update_params(loss)
        self.discriminator.requires_grad_(False)
        with generator.optim_context(self.generator):
            loss_generator = softplus(-self.discriminator(drawn)).mean()
        generator.update_params(loss_generator)
        self.discriminator.requires_grad_(True)
        return {"loss_discriminator": loss, "loss_generator": loss_generator}


def run(*, chance: bool, stop: int | None = None) -> Run:
    """Return a training by steps, with micro-batches, clipping and averages.

    Args:
        chance: In data and model, and bfloat16.
        stop: After so many steps.
    """
    adam = late(Adam)(lr=1e-2, betas=(0.5, 0.999))
    return Run(
        threads=1,
        device="cpu",
        model=spec(Adversaries)(chance),
        optimizer={"generator": adam, "discriminator": adam},
        updates=late(OptimWrapper)(2, precision="bfloat16" if chance else "float32", clip_norm=0.5),
        train=Data(dataset=spec(Points)(chance), batch_size=8, drop_last=True),
        loop=late(StepLoop)(max_steps=STEPS),
        averaging=late(exponential_average)(momentum=0.1),
        limits=Limits(max_steps=stop),
        hooks={"progress": None, "logger": None},
    )
