"""The iterator over what is left of an epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor

from treenail.kernel import StateError

T = TypeVar("T")

_FIRST = 256  # positions drawn before the first item is there: few, so that it is there at once
BLOCK = 16384  # and later on


class Drawing(chain[T]):
    """Items at every `stride`-th position of an epoch, one by one at the speed of `itertools.chain`.

    It is stateful, as torchdata's StatefulDataLoader asks: the state is the position of the next item, counted over all
    ranks.
    """

    epoch: int
    _rank: int
    _stride: int
    _next: int  # position of the first item after the block under way
    _stop: int
    _block: Iterator[T]
    _moved: Callable[[int, int], int] | None

    @classmethod
    def of(
        cls,
        draw: Callable[[int, Tensor], list[T]],
        epoch: int,
        start: int,
        stop: int,
        rank: int = 0,
        stride: int = 1,
        block: int = BLOCK,
        moved: Callable[[int, int], int] | None = None,
    ) -> Drawing[T]:
        """Return the items at positions start + rank, start + rank + stride, … below stop.

        Args:
            draw: (epoch, positions int64[n]) → the n items there.
            epoch: The epoch; it stays this one.
            start: Position that all ranks stand at.
            stop: First position that is not drawn.
            rank: Which of `stride` ranks this is.
            stride: Distance of the positions.
            block: The most items drawn at once.
            moved: Is told the (epoch, position) that a state brings this to, and returns the new `stop`.
        """
        drawing: Drawing[T]

        def blocks() -> Iterator[Iterator[T]]:
            size = min(_FIRST, block)
            while drawing._next < drawing._stop:
                first, last = drawing._next, min(drawing._next + size * stride, drawing._stop)
                drawing._next += len(range(first, last, stride)) * stride
                drawing._block = iter(draw(drawing.epoch, torch.arange(first, last, stride, device="cpu")))
                yield drawing._block
                size = min(size * 4, block)

        drawing = cls.from_iterable(blocks())  # type: ignore[assignment]  # typeshed says chain; it is one of `cls`
        drawing.epoch, drawing._rank, drawing._stride = epoch, rank, stride
        drawing._next, drawing._stop, drawing._block, drawing._moved = start + rank, stop, iter(()), moved
        return drawing

    def state_dict(self) -> dict[str, object]:
        """Return the epoch and the position, of all ranks together, that the next item stands at."""
        ahead = self._block.__length_hint__()  # type: ignore[attr-defined]  # a list's iterator has it: what it still holds
        cursor = min(self._next - self._rank - ahead * self._stride, self._stop)
        return {"epoch": self.epoch, "cursor": cursor, "world_size": self._stride}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Go to where a state stands.

        Raises:
            StateError: It is no position, or of another world size.
        """
        where = "the iterator of a sampler"
        epoch, cursor, world_size = (state_dict.get(name) for name in ("epoch", "cursor", "world_size"))
        if world_size != self._stride:
            raise StateError(
                f"the state is of a loader in a world of {world_size!r}, here it is {self._stride}",
                where=where,
                mend="keep the sampler's own state_dict, which fits any world size",
            )
        if type(epoch) is not int or type(cursor) is not int or min(epoch, cursor) < 0:
            raise StateError(f"no position epoch {epoch!r}, cursor {cursor!r}", where=where)
        deque(self._block, maxlen=0)  # drop what the block under way still holds
        self.epoch, self._next = epoch, cursor + self._rank
        if self._moved is not None:
            self._stop = self._moved(epoch, cursor)
