"""An optimizer's argument is misspelt."""

from torch import optim

from treenail.kernel import late

optimizer = late(optim.AdamW)(lr=1e-3, weight_deacy=0.05)  # E: "weight_deacy" ... did you mean "weight_decay"?
