"""Small models in float64, and what one process makes of them with the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from treenail.adapters.parallel import without_gradient_sync

STEPS, BATCH, WIDTH = 4, 12, 5  # an odd width splits unevenly in two, and over data within tensor


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.up(x)
        out: Tensor = x + self.down(hidden.relu())
        return out


class Net(nn.Module):
    """Two blocks, a norm and a head."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(width), Block(width)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(self.norm(x))
        return out


class NormNet(nn.Module):
    """A network with batch normalisation of images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1, bias=False)  # the norm takes a bias away
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.conv(x)).relu().mean((2, 3)))
        return out


class Gan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.latent_size = 3
        self.generator = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4))
        self.discriminator = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
        self.upsample = nn.Upsample(scale_factor=2)

    def latent(self, samples: int) -> Tensor:
        return torch.linspace(-1, 1, samples * self.latent_size, dtype=torch.float64).view(samples, -1)

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.discriminator(self.generator(z))
        return out


def made(model: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Make a model in float64, the same on every rank."""
    torch.manual_seed(seed)
    return model().double()


def optimizer_of(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(module.parameters(), lr=0.05)


def batches(shape: tuple[int, ...] = (WIDTH,), out: int = 5, steps: int = STEPS) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(7)
    for _ in range(steps):
        yield (
            torch.randn(BATCH, *shape, dtype=torch.float64, generator=generator),
            torch.randn(BATCH, out, dtype=torch.float64, generator=generator),
        )


def train(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    share: tuple[int, int] = (0, 1),
    shape: tuple[int, ...] = (WIDTH,),
) -> None:
    """Train on every size-th sample of each batch, from rank on."""
    rank, size = share
    out = 2 if len(shape) > 1 else 5
    for inputs, targets in batches(shape, out):
        optimizer.zero_grad()
        (module(inputs[rank::size]) - targets[rank::size]).square().mean().backward()
        optimizer.step()


def accumulate(
    module: nn.Module, share: tuple[int, int] = (0, 1), between: Callable[[], object] = lambda: None
) -> None:
    """Run forward and backward passes over three micro-batches of a share; the last one communicates."""
    rank, size = share
    inputs, targets = next(batches())
    *first, last = zip(inputs[rank::size].chunk(3), targets[rank::size].chunk(3), strict=True)

    def backward(micro_batch: tuple[Tensor, Tensor]) -> None:
        x, y = micro_batch
        ((module(x) - y).square().mean() / 3).backward()

    with without_gradient_sync(module):
        for micro_batch in first:
            backward(micro_batch)
            between()
    backward(last)


def trained_alone(model: Callable[[], nn.Module], shape: tuple[int, ...] = (WIDTH,)) -> nn.Module:
    """Return what one process without a group has after it trained on whole batches."""
    module = made(model)
    train(module, optimizer_of(module), shape=shape)
    return module


def whole(tensor: Tensor | None) -> Tensor:
    """Return a tensor, of which ranks may hold parts, as each rank would have it alone."""
    assert tensor is not None
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    return {name: whole(tensor) for name, tensor in module.state_dict().items()}


def whole_gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: whole(parameter.grad) for name, parameter in module.named_parameters()}


def assert_equal_states(found: nn.Module, expected: nn.Module) -> None:
    assert_close(whole_state(found), whole_state(expected))


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
