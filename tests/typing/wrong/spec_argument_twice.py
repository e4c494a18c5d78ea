"""An argument is given by position and by name."""

from torch import nn

from treenail.kernel import spec


class Mlp(nn.Module):
    def __init__(self, width: int, depth: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))


model = spec(Mlp)(128, width=64)  # E: gets multiple values for keyword argument "width"
