"""A registry of a port: names to callables that are typed by what they return."""

from treenail.adapters.sampling import SequentialSampler
from treenail.kernel import Adapter, Registry, Sampler, Spec

samplers = Registry[Sampler]("sampler")
samplers.declare(
    Adapter("sampler", "random", "treenail.adapters.sampling:RandomSampler", aliases=("shuffled",)), "mine"
)


@samplers.register("every_second")
class EverySecond(SequentialSampler):
    def __len__(self) -> int:
        return super().__len__() // 2


@samplers.register("first")
def first(count: int) -> Sampler:
    return SequentialSampler(count)


sampler: Sampler = samplers.resolve("shuffled")(10, seed=3)
described = Spec(samplers.resolve("every_second"), (10,))
assert sorted(sampler.indices(0, 10).tolist()) == list(range(10))
assert len(described.build()) == 5
assert len(first(3)) == 3
assert "mine:random" not in samplers.names()
