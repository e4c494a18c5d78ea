"""A loss function's argument is misspelt."""

from torch.nn.functional import cross_entropy

from treenail.kernel import partial

loss = partial(cross_entropy)(label_smoothign=0.1)  # E: "label_smoothign" ... did you mean "label_smoothing"?
