"""A sampler that cannot resume."""

from torch.utils.data import RandomSampler

from treenail.adapters.data import Digits
from treenail.contracts import Data
from treenail.kernel import late, spec

data = Data(
    dataset=spec(Digits)("train"),
    batch_size=32,
    sampler=late(RandomSampler)(),  # E: "Late[Sized, RandomSampler]"; expected "Late[Dataset, Sampler] | None"
)
