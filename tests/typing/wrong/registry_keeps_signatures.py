"""A registered function keeps its signature."""

from torch import nn

from treenail.kernel import Registry, spec

models: Registry[nn.Module] = Registry("model")


@models.register("mlp")
def mlp(width: int) -> nn.Module:
    return nn.Linear(width, width)


described = spec(mlp)(widht=3)  # E: "widht"
