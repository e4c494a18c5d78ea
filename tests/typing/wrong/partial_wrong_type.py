"""A loss function's argument has another type."""

from torch.nn.functional import cross_entropy

from treenail.kernel import partial

loss = partial(cross_entropy)(reduction=None)  # E: Argument "reduction" ... incompatible type "None"; expected "str"
