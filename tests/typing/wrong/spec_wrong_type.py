"""A number is written as a string."""

from torch import nn

from treenail.kernel import spec


class Mlp(nn.Module):
    def __init__(self, width: int, depth: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))


model = spec(Mlp)(width="128")  # E: Argument "width" ... incompatible type "str"; expected "int"
