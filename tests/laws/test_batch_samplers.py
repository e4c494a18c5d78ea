"""The batch samplers of Treenail obey the laws of batch samplers."""

from treenail.adapters.sampling import AspectRatioBatchSampler, BucketBatchSampler, TokenBatchSampler
from treenail.contracts import BatchSampler
from treenail.contracts.laws import BatchSamplerLaws


def lengths(size: int) -> list[float]:
    return [float(number * 7 % 10 + 1) for number in range(size)]


class TestBucketBatchSampler(BatchSamplerLaws):
    def make(self, size: int, batch_size: int, seed: int, drop_last: bool) -> BatchSampler:
        return BucketBatchSampler(size, lengths(size), batch_size, num_buckets=4, drop_last=drop_last, seed=seed)

    def dropped(self, size: int, batch_size: int) -> int:
        return min(4, size) * (batch_size - 1)


class TestOneBucket(BatchSamplerLaws):
    def make(self, size: int, batch_size: int, seed: int, drop_last: bool) -> BatchSampler:
        return BucketBatchSampler(size, lengths(size), batch_size, num_buckets=1, drop_last=drop_last, seed=seed)


class TestOneBucketInOrder(BatchSamplerLaws):
    seeded = False

    def make(self, size: int, batch_size: int, seed: int, drop_last: bool) -> BatchSampler:
        return BucketBatchSampler(size, lengths(size), batch_size, num_buckets=1, drop_last=drop_last, shuffle=False)


class TestTokenBatchSampler(BatchSamplerLaws):
    """Every bucket has samples of one length, 1 … 4, and so many of them as 12 tokens allow, or batch_size."""

    def make(self, size: int, batch_size: int, seed: int, drop_last: bool) -> BatchSampler:
        tokens = [float(number % 4 + 1) for number in range(size)]
        return TokenBatchSampler(size, tokens, 12, batch_size, boundaries=[2, 3, 4], drop_last=drop_last, seed=seed)

    def complete(self, batch: list[int], batch_size: int) -> bool:
        return len(batch) == min(batch_size, 12 // (batch[0] % 4 + 1))

    def dropped(self, size: int, batch_size: int) -> int:
        return 4 * (batch_size - 1)


class TestAspectRatioBatchSampler(BatchSamplerLaws):
    def make(self, size: int, batch_size: int, seed: int, drop_last: bool) -> BatchSampler:
        ratios = [0.5 + number % 2 for number in range(size)]
        return AspectRatioBatchSampler(size, ratios, batch_size, drop_last=drop_last, seed=seed)

    def dropped(self, size: int, batch_size: int) -> int:
        return 2 * (batch_size - 1)
