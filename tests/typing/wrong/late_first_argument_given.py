"""The argument that comes later is given now."""

from torch import nn, optim

from treenail.kernel import late

model = nn.Linear(2, 1)
optimizer = late(optim.AdamW)(params=model.parameters(), lr=1e-3)  # E: Unexpected keyword argument "params"
