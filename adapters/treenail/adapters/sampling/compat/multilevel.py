"""The sampler of SCEPTER over records in an index of several levels: batches of records, not of indices."""

from __future__ import annotations

import posixpath
import random
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

import torch
from msgspec import Meta
from torch import Tensor

from treenail.adapters.files import LocalFiles
from treenail.adapters.sampling.compat.ranks import ENDLESS, any_rank
from treenail.adapters.sampling.compat.records import RecordIndex
from treenail.adapters.sampling.epochs import EpochSampler, at_least, whole
from treenail.adapters.sampling.permutation import Permutation, fingerprint
from treenail.adapters.sampling.shard import Shard, process_rank
from treenail.kernel import FileBackend, FileError, mix

DrawMode = Literal["uniform", "weighted", "epoch"]
"""``"uniform"``: at each level of the index, every entry is equally likely; batches never end, as in SCEPTER.

``"weighted"``: files are drawn in proportion to their records, so that no record is likelier than another; no end, too.
``"epoch"``: every record once an epoch, over all ranks: files in a random order, each file's records shuffled.
"""


class Record(NamedTuple):
    """A record, by the names of its fields.

    Args:
        fields: Its fields; the first one has the prefixes for paths before it.
        image_size: Height and width that its image should have.
        prompt_prefix: What is to be put before a prompt.
    """

    fields: dict[str, str]
    image_size: tuple[int, int]
    prompt_prefix: str

    def __index__(self) -> int:
        """Return a number of its own, which stands for it where randomness is seeded by (seed, epoch, index)."""
        return mix(*self.fields.values())


class MultiLevelBatchSampler(Shard[list[Record]]):
    """Batches of records, read from the files of an index.

    What a batch holds is a pure function of (seed, rank, epoch, number of the batch), so that a run resumes at once. A record
    comes twice in a batch only where the index has fewer records than a batch.

    Args:
        index_file: The index, as `build_index` writes it: JSON, or a text file with a record in each line.
        batch_size: Records of a batch.
        rank: Which rank draws; torch's process group knows when None, and without one it is 0. ``"uniform"`` and
            ``"weighted"`` draw other batches for each.
        seed: Seed of the batches.
        fields: Names of a record's fields; the first is a path.
        delimiter: What stands between fields; the last field may contain it.
        path_prefix: Put before the first field where that is a relative path.
        prompt_prefix: Handed on with each record.
        oss_prefix: Put before path_prefix; for an index whose path begins with a scheme, its scheme and bucket when None.
        image_size: Height and width, handed on with each record.
        mode: How records are drawn.
        num_replicas: Number of ranks that share an epoch, with ``mode="epoch"``; torch's process group knows when None.
        drop_last: Leave out an incomplete last batch of an epoch, and batches that not every rank would have; otherwise
            ranks that would lack a batch repeat one of the first.
        cached_files: The most files that stay in memory.
        files: Where index_file lies; its own folder when None.

    Raises:
        ValueError: An argument is out of range.
        FileError: A file of the index is missing, malformed or empty.
    """

    def __init__(
        self,
        index_file: str,
        batch_size: Annotated[int, Meta(ge=1)],
        rank: Annotated[int, Meta(ge=0)] | None = None,
        seed: int = 8888,
        *,
        fields: Sequence[str] = ("oss_key", "prompt"),
        delimiter: str = ",",
        path_prefix: str = "",
        prompt_prefix: str = "",
        oss_prefix: str | None = None,
        image_size: tuple[int, int] = (1024, 1024),
        mode: DrawMode = "uniform",
        num_replicas: int | None = None,
        drop_last: bool = False,
        cached_files: Annotated[int, Meta(ge=1)] = 64,
        files: FileBackend | None = None,
    ) -> None:
        batch_size, seed = at_least(1, batch_size, "batch_size"), whole(seed, "seed")
        cached_files = at_least(1, cached_files, "cached_files")
        height, width = (at_least(1, side, "image_size") for side in image_size)
        if isinstance(fields, str) or not fields or not delimiter:
            raise ValueError(f"fields is {fields!r} and delimiter {delimiter!r}; give a list of names, and a text")
        if mode not in get_args(DrawMode):
            raise ValueError(f"mode is {mode!r}, must be 'uniform', 'weighted' or 'epoch'")
        if oss_prefix is None:
            oss_prefix = "/".join(index_file.split("/")[:3]) if "://" in index_file else ""
        if files is None:
            if "://" in index_file:
                raise ValueError(f"index_file is {index_file!r}; give its store as `files`, and the path within that")
            files, index_file = LocalFiles(Path(index_file).parent), Path(index_file).name
        index = RecordIndex(files, index_file, cached_files=cached_files)
        form = _Form(
            tuple(fields),
            delimiter,
            posixpath.join(oss_prefix, path_prefix),
            prompt_prefix,
            (height, width),
        )
        batches: _Batches
        if mode == "epoch":
            batches = _Epochs(index, form, batch_size, seed, drop_last=drop_last)
            rank, world_size = process_rank(rank, num_replicas)
        else:
            batches = _Stream(index, form, batch_size, seed, any_rank(rank), weighted=mode == "weighted")
            rank, world_size = 0, 1  # the stream is this rank's own
        super().__init__(batches, rank, world_size, padding="drop" if drop_last else "repeat")
        self.batch_size, self.mode, self.seed = batch_size, mode, seed


class _Form(NamedTuple):
    """How a line is taken apart."""

    names: tuple[str, ...]
    delimiter: str
    prefix: str
    prompt_prefix: str
    image_size: tuple[int, int]

    def record(self, line: str, where: str) -> Record:
        values = line.split(self.delimiter, len(self.names) - 1)
        if len(values) != len(self.names):
            raise FileError(
                f"the record {line!r} has {len(values)} of the fields {', '.join(self.names)}",
                where=where,
                mend="is the delimiter right?",
            )
        if self.prefix and "://" not in values[0]:
            values[0] = posixpath.join(self.prefix, values[0])
        return Record(dict(zip(self.names, values, strict=True)), self.image_size, self.prompt_prefix)


class _Batches(EpochSampler[list[Record]]):
    """An order of batches of records."""

    block = 1  # a batch reads files

    def __init__(
        self,
        index: RecordIndex,
        form: _Form,
        batch_size: int,
        length: int,
        counts: list[int] | None,
        identity: dict[str, object],
    ) -> None:
        self._index = index
        self._form = form
        self._batch_size = batch_size
        described = {
            "kind": "records",
            "index": mix(index.level, *index.entries),
            "batch_size": batch_size,
            # What a batch draws depends on them; a record may move from one file to another with no entry changed.
            "counts": None if counts is None else fingerprint(torch.tensor(counts, dtype=torch.int64, device="cpu")),
        }
        super().__init__(length, {**described, **identity})

    def batches(self, cursor: int, count: int) -> list[list[Record]]:
        """Return the batches number cursor … cursor+count-1 of the current epoch, fewer at its end.

        Raises:
            ValueError: cursor or count is out of range.
        """
        return self.draw(self.epoch, self.positions(cursor, count))

    def _records(self, path: str | None, count: int | None = None) -> list[str]:
        """Return the records of a file; None is the index itself."""
        return self._index.entries if path is None else self._index.records(path, count)

    def _taken(self, path: str | None, lines: list[str], places: Sequence[int]) -> list[Record]:
        return [self._form.record(lines[place], path or self._index.path) for place in places]


class _Stream(_Batches):
    """Random batches of one rank, without end."""

    endless = True
    repeats_items = True

    def __init__(
        self, index: RecordIndex, form: _Form, batch_size: int, seed: int, rank: int, *, weighted: bool
    ) -> None:
        self._seed = seed
        self._rank = rank
        self._paths: list[str] = []  # of all files of records, once they are needed
        self._counts: list[int] | None = None
        if weighted and index.level > 1:
            self._paths, self._counts = index.record_files()
            self._edges = [*accumulate(self._counts)]
        mode = "weighted" if weighted else "uniform"
        super().__init__(index, form, batch_size, ENDLESS, self._counts or index.counts, {"mode": mode, "seed": seed})

    def draw(self, epoch: int, positions: Tensor) -> list[list[Record]]:
        """Return the batches at positions of an epoch."""
        return [self._batch(random.Random(mix(self._seed, self._rank, epoch, each))) for each in positions.tolist()]

    def _batch(self, generator: random.Random) -> list[Record]:
        """Draw files, and from each what it has and the batch still needs, until the batch is full."""
        batch: list[Record] = []
        drawn: set[str | None] = set()  # files of which nothing is left for this batch
        while len(batch) < self._batch_size:
            path = self._file(generator)
            if path in drawn:
                path = self._another(generator, drawn)
            lines = self._records(path)
            places = generator.sample(range(len(lines)), min(self._batch_size - len(batch), len(lines)))
            batch += self._taken(path, lines, places)
            drawn.add(path)
        return batch

    def _file(self, generator: random.Random) -> str | None:
        if self._index.level == 1:
            return None
        if self._counts:
            return generator.choices(self._paths, cum_weights=self._edges)[0]
        path = self._index.located(generator.choice(self._index.entries))
        for _ in range(self._index.level - 2):
            path = self._index.located(generator.choice(self._index.lines(path)))
        return path

    def _another(self, generator: random.Random, drawn: set[str | None]) -> str | None:
        """Draw one of the files that this batch has not drawn yet; when it has drawn all, begin again."""
        if self._index.level == 1:
            return None
        self._paths = self._paths or self._index.record_paths()
        left = [number for number, path in enumerate(self._paths) if path not in drawn]
        if not left:
            drawn.clear()
            left = list(range(len(self._paths)))
        weights = [self._counts[number] for number in left] if self._counts else None
        return self._paths[generator.choices(left, weights)[0]]


class _Epochs(_Batches):
    """Every record once an epoch: files in a random order, their records shuffled."""

    def __init__(self, index: RecordIndex, form: _Form, batch_size: int, seed: int, *, drop_last: bool) -> None:
        self._paths: Sequence[str | None] = [None]  # the index itself
        self._counts = [len(index.entries)]
        if index.level > 1:
            self._paths, self._counts = index.record_files()
        self._seed = seed
        self._total = sum(self._counts)
        self._last: tuple[int, Tensor, Tensor] | None = None
        length = self._total // batch_size if drop_last else -(-self._total // batch_size)
        super().__init__(
            index,
            form,
            batch_size,
            length,
            self._counts,
            {"mode": "epoch", "seed": seed, "total": self._total, "drop_last": drop_last},
        )

    def draw(self, epoch: int, positions: Tensor) -> list[list[Record]]:
        """Return the batches at positions of an epoch."""
        order, edges = self._order(epoch)
        return [
            self._batch(
                epoch, order, edges, number * self._batch_size, min((number + 1) * self._batch_size, self._total)
            )
            for number in positions.tolist()
        ]

    def _batch(self, epoch: int, order: Tensor, edges: Tensor, start: int, stop: int) -> list[Record]:
        """Return the records number start … stop-1 of an epoch."""
        batch: list[Record] = []
        place = int(torch.searchsorted(edges, start, right=True)) - 1
        while start < stop:
            file, until = int(order[place]), min(stop, int(edges[place + 1]))
            path, count = self._paths[file], self._counts[file]
            shuffled = Permutation(count, mix(self._seed, epoch, file, "records"))
            offset = int(edges[place])
            batch += self._taken(
                path,
                self._records(path, count),
                shuffled(torch.arange(start - offset, until - offset, device="cpu")).tolist(),
            )
            start, place = until, place + 1
        return batch

    def _order(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Return the files in an epoch's order, and the number of the first record of each in it; int64[f], int64[f + 1]."""
        if self._last is None or self._last[0] != epoch:
            order = Permutation(len(self._paths), mix(self._seed, epoch, "files"))(
                torch.arange(len(self._paths), device="cpu")
            )
            counts = torch.tensor(self._counts, dtype=torch.int64, device="cpu")[order]
            self._last = epoch, order, torch.cat((torch.zeros(1, dtype=torch.int64, device="cpu"), counts.cumsum(0)))
        return self._last[1], self._last[2]
