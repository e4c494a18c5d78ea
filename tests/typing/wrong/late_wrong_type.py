"""A list where the optimizer takes a pair."""

from torch import optim

from treenail.kernel import late

optimizer = late(optim.AdamW)(lr=1e-3, betas=[0.9, 0.95])  # E: Argument "betas" ... incompatible type "list[float]"
