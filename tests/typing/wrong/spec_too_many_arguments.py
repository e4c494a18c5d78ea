"""One positional argument too many."""

from torch import nn

from treenail.kernel import spec


class Mlp(nn.Module):
    def __init__(self, width: int, depth: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))


model = spec(Mlp)(128, 2, 3)  # E: Too many arguments
