"""An argument's name is misspelt."""

from torch import nn

from treenail.kernel import spec


class Mlp(nn.Module):
    def __init__(self, width: int, depth: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))


model = spec(Mlp)(width=128, detph=2)  # E: "detph" ... did you mean "depth"?
