"""A required argument is missing."""

from torch import nn

from treenail.kernel import spec


class Mlp(nn.Module):
    def __init__(self, width: int, depth: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))


model = spec(Mlp)(depth=2)  # E: Too few arguments
