"""An optimizer is given the model instead of its parameters."""

from torch import nn, optim

from treenail.kernel import late

model = nn.Linear(2, 1)
optimizer = late(optim.SGD)(lr=0.1).build(model)  # E: incompatible type "Linear"; expected "Iterable[Tensor]
