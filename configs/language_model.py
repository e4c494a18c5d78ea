"""A small transformer learns to write like Python's own documentation, letter by letter (Vaswani et al., 2017)."""

from pydoc_data.topics import topics

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from treenail.adapters.averaging import exponential_average
from treenail.adapters.evaluation import Perplexity
from treenail.adapters.loops import EpochLoop
from treenail.adapters.optim import OptimWrapper, TokenCrossEntropy
from treenail.adapters.schedule import Cosine, Linear
from treenail.contracts import Data, Evaluation, Run, Schedule
from treenail.kernel import late, spec

LETTERS = 128
"""Those of ASCII."""

LENGTH = 32
"""Letters of a sample."""

BATCH, STEPS, EPOCHS = 32, 40, 2
"""Samples of a step, steps of an epoch, and epochs: a small share of the text is enough for an example."""


class Documentation:
    """The reference that ``help("topics")`` shows, in pieces of `LENGTH` letters; every tenth is for validation.

    A sample is (letters, the letters that follow each): int64[LENGTH] twice.

    Args:
        validation: Which of the two parts.
        pieces: How many of it, spread over the whole text.
    """

    def __init__(self, validation: bool = False, pieces: int = BATCH * STEPS) -> None:
        text = "\n".join(topics[name] for name in sorted(topics)).encode("ascii", "replace")
        letters = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
        whole = letters[: (len(letters) - 1) // LENGTH * LENGTH + 1]
        self._letters, self._following = whole[:-1].view(-1, LENGTH), whole[1:].view(-1, LENGTH)
        part = [index for index in range(len(self._letters)) if (index % 10 == 0) == validation]
        self._chosen = [part[index * len(part) // pieces] for index in range(pieces)]

    def __len__(self) -> int:
        """Return how many pieces there are."""
        return len(self._chosen)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a piece."""
        return self._letters[self._chosen[index]], self._following[self._chosen[index]]


class Transformer(nn.Module):
    """Scores of the next letter.

    Args:
        width: Numbers that stand for a letter.
        layers: How many.
        heads: Of attention, in each layer.
        dropout: Share of the numbers that are left out while training.
    """

    def __init__(self, width: int = 64, layers: int = 2, heads: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(LETTERS, width)
        self.positions = nn.Embedding(LENGTH, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, LETTERS, bias=False)

    def forward(self, letters: Tensor) -> Tensor:
        """Return float[batch, length, LETTERS] for int64[batch, length]."""
        length = letters.shape[1]
        hidden = self.embedding(letters) + self.positions(torch.arange(length, device=letters.device))
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=letters.device)
        scores: Tensor = self.head(self.layers(hidden, mask, is_causal=True))
        return scores


run = Run(
    seed=0,
    threads=1,
    model=spec(Transformer)(width=64),
    loss=spec(TokenCrossEntropy)(),
    optimizer=late(AdamW)(lr=1e-2, betas=(0.9, 0.98), weight_decay=0.1),
    updates=late(OptimWrapper)(accumulative_counts=4, precision="bfloat16", clip_norm=1.0),
    averaging=late(exponential_average)(momentum=0.1),
    schedules=(
        Schedule(scheduler=late(Linear)(start_factor=0.1, end=10, by_epoch=False)),
        Schedule(scheduler=late(Cosine)(begin=10, end=STEPS * EPOCHS, by_epoch=False, eta_min_ratio=0.1)),
    ),
    train=Data(dataset=spec(Documentation)(), batch_size=BATCH),
    val=Evaluation(
        dataset=spec(Documentation)(validation=True, pieces=128), batch_size=64, metrics=(spec(Perplexity)(),)
    ),
    loop=late(EpochLoop)(max_epochs=EPOCHS),
)
