"""An argument slipped in behind the check."""

from torch import nn

from treenail.kernel import spec

model = spec(nn.Linear)(8, 2)
model.kwargs["bais"] = False  # E: Unsupported target for indexed assignment
