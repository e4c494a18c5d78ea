"""Samplers and datasets."""

from treenail.kernel import Adapter

_A = "treenail.adapters"

DATA: tuple[Adapter, ...] = (
    Adapter(
        port="sampler",
        name="random",
        target=f"{_A}.sampling:RandomSampler",
        aliases=("RandomSampler",),
        summary="every index once an epoch, shuffled by (seed, epoch)",
    ),
    Adapter(
        port="sampler",
        name="sequential",
        target=f"{_A}.sampling:SequentialSampler",
        aliases=("SequentialSampler",),
        summary="0, 1, 2 … every epoch",
    ),
    Adapter(
        port="sampler",
        name="subset",
        target=f"{_A}.sampling:SubsetSampler",
        aliases=("SubsetSampler", "SubsetRandomSampler"),
        summary="given indices only, shuffled or not",
    ),
    Adapter(
        port="sampler",
        name="weighted",
        target=f"{_A}.sampling:WeightedSampler",
        aliases=("WeightedSampler", "WeightedRandomSampler"),
        summary="samples by weight, with replacement or without",
    ),
    Adapter(
        port="sampler",
        name="class_balanced",
        target=f"{_A}.sampling:ClassBalancedSampler",
        aliases=("ClassBalancedSampler",),
        summary="every class as often as every other",
    ),
    Adapter(
        port="sampler",
        name="mixture",
        target=f"{_A}.sampling:MixtureSampler",
        aliases=("MixtureSampler",),
        summary="the parts of a dataset in exact proportions",
    ),
    Adapter(
        port="sampler",
        name="chain",
        target=f"{_A}.sampling:ChainSampler",
        aliases=("ChainSampler",),
        summary="the parts of a dataset one after another",
    ),
    Adapter(
        port="batch_sampler",
        name="bucket",
        target=f"{_A}.sampling:BucketBatchSampler",
        aliases=("BucketBatchSampler",),
        summary="batches of samples of similar length",
    ),
    Adapter(
        port="batch_sampler",
        name="token",
        target=f"{_A}.sampling:TokenBatchSampler",
        aliases=("TokenBatchSampler",),
        summary="batches that hold at most so many tokens",
    ),
    Adapter(
        port="batch_sampler",
        name="aspect_ratio",
        target=f"{_A}.sampling:AspectRatioBatchSampler",
        aliases=("AspectRatioBatchSampler",),
        summary="batches of images of similar shape",
    ),
    *(
        Adapter(port="sampler", name=name, target=f"{_A}.sampling.compat:{name}", summary=summary)
        for name, summary in (
            ("DefaultSampler", "mmengine's: one rank's share of every index"),
            ("InfiniteSampler", "mmengine's: one rank's share of passes without end"),
            ("ResumableRandomSampler", "helios': every index, shuffled, counted in batches"),
            ("ResumableSequentialSampler", "helios': every index in order, counted in batches"),
            ("ResumableDistributedSampler", "helios': one rank's share, counted in batches"),
            ("MultiFoldDistributedSampler", "SCEPTER's: one rank's share of several passes an epoch"),
            ("EvalDistributedSampler", "SCEPTER's: one rank's contiguous block"),
        )
    ),
    Adapter(
        port="dataset",
        name="digits",
        target=f"{_A}.data:Digits",
        requires=("sklearn",),
        install="treenail[examples]",
        summary="1,797 handwritten digits of 8x8 pixels",
    ),
)
