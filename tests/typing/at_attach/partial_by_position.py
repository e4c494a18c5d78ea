# raises: SpecError: partial() takes keyword arguments only; write name=value
"""An argument by position would stand where the outputs belong."""

from torch import ones
from torch.nn.functional import cross_entropy

from treenail.kernel import partial

loss = partial(cross_entropy)(ones(10))
