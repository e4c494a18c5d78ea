"""The ports: everything that may differ between two deployments stands behind one of these Protocols.

Each is small enough to implement in an afternoon. What can be derived from a port is a function written once on top of
it, never a method that each adapter repeats. The laws of a port are executable: `treenail.contracts.laws`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:  # the kernel imports no torch; only its types are named here
    from pathlib import Path

    from torch import Tensor, nn

    from treenail.kernel.engine import Engine, Record

T = TypeVar("T")


@runtime_checkable
class Stateful(Protocol):
    """An object whose state can be saved and restored; the same shape as `torch.distributed.checkpoint.stateful.Stateful`."""

    @abstractmethod
    def state_dict(self) -> dict[str, object]:
        """Return the state: nested dicts, lists and tuples of tensors, numbers, strings, bytes, booleans and None."""

    @abstractmethod
    def load_state_dict(self, state_dict: dict[str, object], /) -> object:
        """Take a state that `state_dict` returned, in this process or another one."""


@runtime_checkable
class Sampler(Stateful, Protocol):
    """A resumable order of the indices of a dataset, epoch after epoch.

    The order of an epoch is a pure function of the sampler's arguments and the epoch; it depends neither on the number
    of processes nor on what was drawn before, and drawing leaves global generators alone. Its state is where the consumer
    stands: (epoch, cursor), (0, 0) at first, 0 <= cursor <= len(sampler). Drawing moves nothing; `advance` does, when
    samples have been *consumed*, and leaves an iteration under way undisturbed.
    """

    @property
    @abstractmethod
    def epoch(self) -> int:
        """The current epoch, from 0."""

    @property
    @abstractmethod
    def cursor(self) -> int:
        """How many samples of the current epoch were consumed."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many indices one whole epoch has, whatever the cursor."""

    @abstractmethod
    def indices(self, cursor: int, count: int) -> Tensor:
        """Return the indices at positions cursor … cursor+count-1 of the current epoch's order.

        Args:
            cursor: First position, 0 <= cursor <= len(self).
            count: How many, >= 0; fewer come back at the end of the epoch.

        Returns:
            int64[min(count, len(self) - cursor)]

        Raises:
            ValueError: cursor or count is out of range.
        """

    @abstractmethod
    def __iter__(self) -> Iterator[int]:
        """Yield the indices from the cursor to the end of this epoch, whatever happens meanwhile; the cursor stays."""

    @abstractmethod
    def advance(self, count: int) -> None:
        """Record that `count` further samples were consumed.

        Raises:
            ValueError: count is negative or goes past the end of the epoch.
        """

    @abstractmethod
    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless this is the current one (then the cursor stays: a resumed epoch goes on).

        Raises:
            ValueError: epoch is negative.
        """


@runtime_checkable
class Loop(Stateful, Protocol):
    """Runs an engine through one kind of work: training by epoch, validation, test, or one of yours."""

    @abstractmethod
    def run(self, engine: Engine) -> None:
        """Do the work: fire the engine's hook points, commit each step, stop soon after `engine.stop_reason` is set."""


class Capabilities(NamedTuple):
    """What a file backend can do beyond the primitives.

    Args:
        atomic_replace: `write` over an existing file shows readers the old or the new content, never a mixture.
        conditional_put: A write can be made to fail when the file already exists.
        multipart: Large files are uploaded in parts.
        ranges: `read` of a range transfers that range only.
        writable: `write` and `delete` work; where they do not, they raise `FileError`.
        local: What is read comes from this machine, so that local copies would gain nothing.
    """

    atomic_replace: bool
    conditional_put: bool = False
    multipart: bool = False
    ranges: bool = True
    writable: bool = True
    local: bool = False


class FileStat(NamedTuple):
    """What a store knows of a file.

    Args:
        size: In bytes.
        modified: Time of the last change, in seconds since the Unix epoch.
        version: Differs between any two contents of the path (an ETag, a revision); None where the store has no such thing.
    """

    size: int
    modified: float
    version: str | None = None


@runtime_checkable
class FileBackend(Protocol):
    """Files under one root, named by relative POSIX paths (``"checkpoints/latest"``).

    There are no directories to make or remove: a path may have any number of parts. A path that is absolute, climbs out
    of the root, has an empty, ``"."`` or ``".."`` part, a NUL or no UTF-8 form is refused with a `FileError` that is no
    `FileMissingError`, by every method.
    """

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this backend can do beyond the primitives."""

    @property
    @abstractmethod
    def uri(self) -> str:
        """Where the root lies, for people and messages: ``file:///data/run``, ``s3://bucket/run``."""

    @abstractmethod
    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `start` (all to the end when None); fewer come back at the end of the file.

        Raises:
            FileMissingError: There is no such file.
            FileError: start or length is negative, or the store failed.
        """

    @abstractmethod
    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        """Make `path` hold exactly `data`, durably: when this returns, a power cut does not lose it.

        When it raises (the iterable may, too), or the process is killed, the path holds what it held before.

        Raises:
            FileError: The store refused or failed.
        """

    @abstractmethod
    def stat(self, path: str) -> FileStat:
        """Return size and time of a file.

        Raises:
            FileMissingError: There is no such file.
        """

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all files below the directory `prefix` ("" is the root), in order of their names' bytes.

        A prefix with nothing below it yields nothing. Files that a `write` has not finished are not listed.
        """

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove a file.

        Raises:
            FileMissingError: There is no such file.
        """


@runtime_checkable
class VisBackend(Protocol):
    """Scalars, images, graphs, configs and texts of a run, written to a place that people look at.

    It is given committed steps only. `start` says which attempt of the run this is and after which commit it begins; what
    an earlier attempt wrote in later commits is dropped: a resumed run has no doubled tail.
    """

    @abstractmethod
    def start(self, *, run: str, attempt: int, step: int, commit: int) -> None:
        """Begin a run (attempt 1, step 0, commit 0) or resume one that stands at `step`, after `commit`."""

    @abstractmethod
    def scalars(self, record: Record) -> None:
        """Add a point to the curve of each name, at the record's step."""

    @abstractmethod
    def image(self, name: str, image: Tensor, *, step: int) -> None:
        """Add a picture: float[channels, height, width] in [0, 1], 1 or 3 channels, RGB."""

    @abstractmethod
    def graph(self, model: nn.Module, inputs: Tensor) -> None:
        """Add the model's graph, traced or listed on an example input of shape [batch, …]."""

    @abstractmethod
    def config(self, config: str) -> None:
        """Add the run's config as text."""

    @abstractmethod
    def text(self, name: str, text: str, *, step: int) -> None:
        """Add a text."""

    @abstractmethod
    def close(self) -> None:
        """Flush and release everything; calling it twice is harmless."""


class ParityReport(NamedTuple):
    """How an exported artefact compared with its model before it was published.

    Args:
        files: Paths of the published files as `open` takes them, the artefact first, then its side files.
        shapes: The input shapes that were compared.
        max_abs_error: Largest absolute difference over all of them.
        tolerance: The largest that would have been accepted.
    """

    files: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    max_abs_error: float
    tolerance: float


@runtime_checkable
class Exporter(Protocol):
    """Turns a model into an artefact that can be deployed, published only after a parity check."""

    @abstractmethod
    def export(self, model: nn.Module, inputs: Tensor, destination: Path) -> ParityReport:
        """Export in eval mode, run the artefact at several batch sizes, compare, and only then publish.

        The model comes back in the mode, on the device and with the weights that it had.

        Args:
            model: Takes one tensor, returns one tensor.
            inputs: Example input of shape [batch, …]; the first dimension is free in the artefact.
            destination: Path of the artefact; side files lie beside it and begin with its name.

        Raises:
            ExportError: The model cannot be exported, or the artefact disagrees with it; nothing was published.
        """


@runtime_checkable
class Communicator(Protocol):
    """Ranks that work together: collectives on tensors, messages between two ranks, and groups of ranks.

    Every rank calls the same collectives in the same order. Where one does something else (another collective, dtype,
    shape, operation or rank) or cannot take part, every rank gets a `CommunicationError` that says which rank did what, before
    data moves; nobody waits longer than the communicator's timeout. Arguments are left as they are; results are new
    tensors of the same dtype, on the device of this rank's argument (the CPU without one).
    """

    @property
    @abstractmethod
    def rank(self) -> int:
        """This process's number, 0 <= rank < world_size."""

    @property
    @abstractmethod
    def world_size(self) -> int:
        """How many ranks there are."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait until every rank is here."""

    @abstractmethod
    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        """Return the element-wise sum, mean, product, min, max, band, bor or bxor over ranks; bit for bit equal on all.

        A mean is the sum divided by the number of ranks, of floating-point or complex tensors; the last three are bitwise.
        """

    @abstractmethod
    def broadcast(self, tensor: Tensor | None, source: int = 0) -> Tensor:
        """Return the tensor of rank `source`; the others may give None, else a tensor of its shape and dtype."""

    @abstractmethod
    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """Return every rank's tensor in rank order; first dimensions may differ."""

    @abstractmethod
    def gather(self, tensor: Tensor, destination: int = 0) -> list[Tensor] | None:
        """Return every rank's tensor in rank order on rank `destination`, None elsewhere; first dimensions may differ."""

    @abstractmethod
    def scatter(self, tensors: Sequence[Tensor] | None, source: int = 0) -> Tensor:
        """Return this rank's one of the world_size tensors of rank `source`; the others give None."""

    @abstractmethod
    def all_to_all(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Send the i-th of world_size tensors to rank i; return what the ranks sent here, in rank order."""

    @abstractmethod
    def isend(self, tensor: Tensor, destination: int, tag: int = 0) -> Callable[[], None]:
        """Begin to send to another rank; the returned function waits until the tensor may be changed."""

    @abstractmethod
    def irecv(self, source: int, tag: int = 0) -> Callable[[], Tensor]:
        """Begin to receive from another rank; the returned function waits for the tensor and returns it."""

    @abstractmethod
    def group(self, ranks: Sequence[int]) -> Communicator | None:
        """Return a communicator of some of the ranks, numbered in the given order; None where this rank is not one.

        Every rank of this communicator calls it, with the same ranks.
        """

    @abstractmethod
    def abort(self, reason: str) -> None:
        """Make every other rank's collectives raise a `CommunicationError` with the reason, those under way, too."""


@runtime_checkable
class Metric(Protocol):
    """Accumulates over an evaluation and gives named results."""

    @abstractmethod
    def reset(self) -> None:
        """Forget everything seen."""

    @abstractmethod
    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take a batch: the model's outputs [batch, …] and the targets [batch, …]."""

    @abstractmethod
    def compute(self) -> Mapping[str, float]:
        """Return the results of everything seen since `reset`, by name.

        Raises:
            TrainingError: Nothing was seen.
        """


@runtime_checkable
class BatchSource(Stateful, Protocol):
    """Batches of an epoch for a loop: iterates from where consumption stands, and moves on only when told to."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many batches one whole epoch has."""

    @abstractmethod
    def __iter__(self) -> Iterator[object]:
        """Yield the batches of the current epoch that have not been consumed."""

    @property
    @abstractmethod
    def consumed(self) -> int:
        """How many batches of the current epoch have been consumed."""

    @abstractmethod
    def advance(self) -> None:
        """Record that one further batch was consumed."""

    @abstractmethod
    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless this is the current one."""


@runtime_checkable
class Checkpointer(Protocol):
    """Where the engine's commits put checkpoints."""

    @abstractmethod
    def save(
        self, checkpoint: Mapping[str, object], *, step: int, epoch: int, reason: str, pointers: Sequence[str]
    ) -> str:
        """Save a state tree, whole or not at all, then move the pointers (``"latest"``, ``"best"``) to it.

        Returns:
            Where the checkpoint lies, for people.

        Raises:
            CheckpointError: It could not be saved; earlier checkpoints are untouched.
        """
