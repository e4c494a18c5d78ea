"""The sampler of SCEPTER for evaluation: each rank has one contiguous block, and no sample comes twice unmarked."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from treenail.adapters.sampling.drawing import Drawing
from treenail.adapters.sampling.epochs import checked_epoch, is_position, length_of, whole
from treenail.adapters.sampling.shard import SampleIndex, process_rank
from treenail.kernel import StateError

_MOST_STAGES = 24  # changes of the world size within an epoch: a state stays below 1 KB
_MOST_RANKS = 2**20  # of a stage


class _Stage(NamedTuple):
    """A stretch of the epoch in one world: its size, and how many samples each rank consumed of its block."""

    world_size: int
    consumed: int


class EvalDistributedSampler:
    """One rank's block of the indices 0 … n-1, in order: a `treenail.contracts.SamplerShard`.

    Blocks have ceil(n / num_replicas) indices; without padding the last ranks have fewer, or none.

    An evaluation may go on in another world: what no rank consumed is split into blocks again, and `len` is this rank's
    new block. The state has the world size and the count of each stage of the epoch.

    Args:
        dataset: The dataset, or how many samples it has.
        num_replicas: Number of ranks; torch's process group knows when None, and without one it is 1.
        rank: Which rank this is; as above, and without a process group it is 0.
        padding: Give every rank equally many: the blocks of the last ranks go on with the first samples. Then indices are
            `SampleIndex`, which tells repeated samples.

    Raises:
        ValueError: There is no such rank.
    """

    def __init__(
        self,
        dataset: int | Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        padding: bool = False,
    ) -> None:
        self.rank, self.world_size = process_rank(rank, num_replicas)
        self.padding = padding
        self.epoch = 0
        self.size = length_of(dataset)
        self._begin([])

    def _begin(self, earlier: list[_Stage], consumed: int = 0) -> None:
        """Split what the earlier stages left."""
        self._earlier = earlier
        self._stretches = _left_by(earlier, self.size)
        self._total = sum(map(len, self._stretches))
        self._consumed = consumed  # of each rank's block, or as many as it has

    @property
    def _block(self) -> int:
        """Samples of a block: those of the first rank, the most that any has."""
        return -(-self._total // self.world_size)

    @property
    def cursor(self) -> int:
        """How many items of its block this rank consumed."""
        return min(self._consumed, len(self))

    def __len__(self) -> int:
        if self.padding:
            return self._block
        return max(0, min(self._block, self._total - self.rank * self._block))

    @property
    def remaining(self) -> int:
        """How many items this rank will still draw in this epoch."""
        return len(self) - self.cursor

    def __iter__(self) -> Iterator[int]:
        stretches, total, first = self._stretches, self._total, self.rank * self._block

        def draw(epoch: int, positions: Tensor) -> list[int]:
            return self._read(epoch, positions + first, stretches, total)

        return Drawing.of(draw, self.epoch, self.cursor, len(self))

    def indices(self, cursor: int, count: int) -> Tensor:
        """Return the items number cursor … cursor+count-1 of this rank's block, fewer at its end.

        Returns:
            int64[min(count, len(self) - cursor)]

        Raises:
            ValueError: cursor or count is out of range.
        """
        cursor, count = whole(cursor, "cursor"), whole(count, "count")
        if not 0 <= cursor <= len(self) or count < 0:
            raise ValueError(f"nothing to draw: {count} from cursor {cursor} on; the block has 0 … {len(self)}")
        positions = torch.arange(cursor, min(cursor + count, len(self)), device="cpu")
        return torch.tensor(self.draw(self.epoch, positions), dtype=torch.int64, device="cpu")

    def draw(self, epoch: int, positions: Tensor) -> list[int]:
        """Return the items at positions int64[n] of this rank's block, each 0 … len(self)-1."""
        return self._read(epoch, positions + self.rank * self._block, self._stretches, self._total)

    def _read(self, epoch: int, places: Tensor, stretches: list[range], total: int) -> list[int]:
        """Return the indices at places of the stretches; beyond their end they begin again."""
        if not len(places):
            return []
        ends = torch.tensor([len(stretch) for stretch in stretches], device="cpu").cumsum(0)
        wrapped = places % max(total, 1)
        number = torch.searchsorted(ends, wrapped, right=True)
        # The start of a stretch, less the place at which it begins.
        shifts = torch.tensor([stretch.stop for stretch in stretches], device="cpu") - ends
        indices: list[int] = (wrapped + shifts[number]).tolist()
        if not self.padding:
            return indices
        repeated = (places >= total).tolist()
        return [SampleIndex(index, epoch, again) for index, again in zip(indices, repeated, strict=True)]

    def advance(self, count: int) -> None:
        """Record that every rank consumed `count` further items, or what it had left where that was less.

        Raises:
            ValueError: count is negative, or no rank has anything left in this epoch.
        """
        count, left = whole(count, "count"), self._block - self._consumed
        if count < 0 or (count > 0 and not left):
            raise ValueError(f"cannot advance by {count}: {left} are left for a rank in this epoch")
        self._consumed += min(count, left)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless this is the current one; all epochs have the same order.

        Raises:
            ValueError: epoch is negative.
        """
        epoch = checked_epoch(epoch)
        if epoch != self.epoch:
            self.epoch = epoch
            self._begin([])

    @property
    def identity(self) -> dict[str, object]:
        """What a state must have in common with this sampler to fit."""
        return {"kind": "blocks", "size": self.size}

    def state_dict(self) -> dict[str, object]:
        """Return the epoch, and [world size, consumed by each rank] of its stages; equal on all ranks, less than 1 KB."""
        stages = [*self._earlier, _Stage(self.world_size, self._consumed)]
        return {
            "epoch": self.epoch,
            **self.identity,
            "stages": [list(stage) for stage in stages if stage.consumed],
        }

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Go to where a state stands, whatever the world size it was saved with.

        Raises:
            StateError: It is of another dataset or no position, or the world size changed too often within the epoch.
        """
        where = type(self).__name__
        for name, value in self.identity.items():
            if state_dict.get(name) != value:
                raise StateError(
                    f"the state's {name} is {state_dict.get(name)!r}, this sampler's is {value!r}",
                    where=where,
                    mend="resume with the dataset and the sampler that the evaluation was begun with",
                )
        epoch, stages = state_dict.get("epoch"), _stages_of(state_dict.get("stages"), self.size)
        if not is_position(epoch, 0, 0) or stages is None:
            raise StateError(f"no position epoch {epoch!r}, stages {state_dict.get('stages')!r}", where=where)
        goes_on = bool(stages) and stages[-1].world_size == self.world_size
        earlier = stages[:-1] if goes_on else stages
        if len(earlier) >= _MOST_STAGES:
            raise StateError(
                f"the world size has changed {len(earlier)} times within this epoch, {_MOST_STAGES - 1} are possible",
                where=where,
                mend=f"go on with {stages[-1].world_size} ranks, or begin the evaluation again",
            )
        self.epoch = whole(epoch, "epoch")
        self._begin(earlier, stages[-1].consumed if goes_on else 0)


def _left_by(stages: list[_Stage], size: int) -> list[range]:
    """Return the stretches of 0 … size-1, in order, that no rank of the stages consumed."""
    stretches = [range(size)] if size else []
    for world_size, consumed in stages:
        total = sum(map(len, stretches))
        block = -(-total // world_size)
        starts = [min(rank * block, total) for rank in range(world_size + 1)]
        kept = [range(min(start + consumed, stop), stop) for start, stop in pairwise(starts)]
        stretches = _cut_out(stretches, [places for places in kept if places])
    return stretches


def _cut_out(stretches: list[range], kept: list[range]) -> list[range]:
    """Return the parts of stretches at the kept places, counted through all of them; both ascend."""
    parts, before, number = [], 0, 0
    for stretch in stretches:
        after = before + len(stretch)
        while number < len(kept) and kept[number].start < after:
            places = kept[number]
            parts.append(stretch[max(places.start, before) - before : min(places.stop, after) - before])
            if places.stop > after:
                break  # it goes on in the next stretch
            number += 1
        before = after
    return parts


def _stages_of(value: object, size: int) -> list[_Stage] | None:
    """Return the stages that a state has; None where they are none."""
    if not isinstance(value, list):
        return None
    stages: list[_Stage] = []
    for each in value:
        if not isinstance(each, list | tuple) or len(each) != 2 or any(type(number) is not int for number in each):
            return None
        stage = _Stage(*each)
        if not 1 <= stage.world_size <= _MOST_RANKS or stage.consumed < 1:
            return None
        left = sum(map(len, _left_by(stages, size)))
        if stage.consumed > -(-left // stage.world_size):
            return None
        stages.append(stage)
    return stages
