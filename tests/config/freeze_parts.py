"""Components of a user, for configs that are frozen: every kind of parameter."""

from collections.abc import Callable, Iterable, Sequence, Sized
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import torch
from msgspec import Struct
from torch import Tensor, nn

from treenail.adapters.sampling import RandomSampler
from treenail.kernel import Hook, Registry


class Colour(Enum):
    RED = "r"
    GREEN = "g"


class Point(Struct, frozen=True):
    x: int
    y: float = 0.0


class Span(NamedTuple):
    x: int
    y: float = 0.0


class Box(TypedDict):
    x: int
    y: NotRequired[float]


class Head:
    def __init__(self, classes: int) -> None:
        self.classes = classes


class Net(nn.Module):
    def __init__(
        self,
        *stages: int,
        block: nn.Module | None = None,
        blocks: Sequence[nn.Module] = (),
        named: dict[str, nn.Module] | None = None,
        sizes: list[int] | None = None,
        pair: tuple[int, float] = (1, 2.0),
        shape: int | tuple[int, ...] = 3,
        mode: Literal["fast", "exact"] = "fast",
        colour: Colour = Colour.RED,
        title: str | None = "",
        folder: Path | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        words: frozenset[str] = frozenset(),
        point: Point | None = None,
        span: Span | None = None,
        box: Box | None = None,
        head: Head | None = None,
        initialise: Callable[[Tensor], object] | None = None,
        anything: object = None,
        part: dict[str, Any] | None = None,  # Any: the config of a part, that a model builds itself
        **options: float,
    ) -> None:
        super().__init__()
        self.block, self.blocks, self.named, self.sizes, self.pair = block, blocks, named, sizes, pair
        self.shape, self.mode, self.colour, self.title, self.folder = shape, mode, colour, title, folder
        self.dtype, self.device, self.words, self.point = dtype, device, words, point
        self.span, self.box, self.head, self.anything, self.part = span, box, head, anything, part
        self.stages, self.options = stages, options
        self.weight = nn.Parameter(torch.ones(2))
        self.initialised = None
        if initialise is not None:
            initialise(self.weight.data)


class Tuned(torch.optim.SGD):
    def __init__(self, params: Iterable[nn.Parameter], by: nn.Module, lr: float = 0.25) -> None:
        super().__init__(params, lr=lr)
        self.by = by


class Lines:
    def __init__(self, transform: nn.Module | None = None) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int, /) -> object:
        return torch.zeros(2), index


class Weighted(RandomSampler):
    def __init__(self, dataset: int | Sized, by: nn.Module, seed: int = 3) -> None:
        super().__init__(dataset, seed)
        self.by, self.given = repr(by), seed


class Upload(Hook):
    def __init__(self, token: str, url: str, folder: Path, rate: float, *, dry: bool = False) -> None:
        self.token, self.url, self.folder, self.rate, self.dry = token, url, folder, rate, dry


class Loose(Hook):
    def __init__(self, **options: int) -> None:
        self.options = options


def _make() -> type[Hook]:
    class Hidden(Hook):
        pass

    return Hidden


HOOKS: Registry[Hook] = Registry("hook")
HOOKS.register("hidden")(_make())
