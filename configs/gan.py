"""A generator and a discriminator, each with its optimizer, learn to draw handwritten digits (Goodfellow et al., 2014)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus
from torch.optim import Adam

from treenail.adapters.data import Digits
from treenail.adapters.loops import EpochLoop
from treenail.adapters.optim import OptimWrapperDict
from treenail.contracts import Data, Run
from treenail.kernel import late, spec


class Gan(nn.Module):
    """Draws 8x8 images from noise.

    Args:
        noise: Numbers that an image is drawn from.
        width: Of the hidden layers.
    """

    def __init__(self, noise: int = 32, width: int = 256) -> None:
        super().__init__()
        self.noise = noise
        self.generator = nn.Sequential(
            nn.Linear(noise, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, 64),
            nn.Sigmoid(),
            nn.Unflatten(1, (1, 8, 8)),
        )
        self.discriminator = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, width),
            nn.LeakyReLU(0.2),
            nn.Dropout(0.3),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Dropout(0.3),
            nn.Linear(width, 1),
        )

    def forward(self, noise: Tensor) -> Tensor:
        """Draw images, float[batch, 1, 8, 8] in [0, 1], from float[batch, noise]."""
        images: Tensor = self.generator(noise)
        return images

    def train_step(self, data: tuple[Tensor, Tensor], optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """Train the discriminator on real and drawn images, then the generator on what the discriminator says."""
        real, _ = data
        with optim_wrapper["generator"].optim_context(self.generator):
            drawn = self.generator(torch.randn(len(real), self.noise, device=real.device))
        return self._train_discriminator(real, drawn.detach(), optim_wrapper) | self._train_generator(
            drawn, optim_wrapper
        )

    def _train_discriminator(self, real: Tensor, drawn: Tensor, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        optim = optim_wrapper["discriminator"]
        with optim.optim_context(self.discriminator):
            scores = self.discriminator(torch.cat([real, drawn]))
            # Real ones count as 0.9, so that the discriminator does not become too sure (Salimans et al., 2016).
            wanted = torch.cat([torch.full((len(real), 1), 0.9), torch.zeros(len(drawn), 1)]).to(scores)
            loss = binary_cross_entropy_with_logits(scores, wanted)
        optim.update_params(loss)
        return {"loss_discriminator": loss}

    def _train_generator(self, drawn: Tensor, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        optim = optim_wrapper["generator"]
        self.discriminator.requires_grad_(False)
        try:
            with optim.optim_context(self.generator):
                loss = softplus(-self.discriminator(drawn)).mean()
            optim.update_params(loss)
        finally:
            self.discriminator.requires_grad_(True)
        return {"loss_generator": loss}


run = Run(
    seed=0,
    threads=1,
    model=spec(Gan)(noise=32),
    optimizer={
        "generator": late(Adam)(lr=1e-3, betas=(0.5, 0.999)),
        "discriminator": late(Adam)(lr=5e-4, betas=(0.5, 0.999)),
    },
    train=Data(dataset=spec(Digits)(split="train"), batch_size=64, drop_last=True),
    loop=late(EpochLoop)(max_epochs=60),
)
