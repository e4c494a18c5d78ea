"""Checkpoints of a run whose parameters may be spread over ranks: each rank saves and loads its own parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event
from typing import Final, NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from treenail.adapters.checkpoint.contents import release_cache
from treenail.adapters.checkpoint.errors import UnsuitableError
from treenail.adapters.checkpoint.files import TENSORS
from treenail.adapters.checkpoint.flight import Flight
from treenail.adapters.checkpoint.parts import SHARDS, places_of, put, take
from treenail.adapters.checkpoint.ranks import on_first, together
from treenail.adapters.checkpoint.receipts import collect_receipts, write_receipt
from treenail.adapters.checkpoint.sharded import read_shards, shard_name, snapshot_shards, write_shards
from treenail.adapters.checkpoint.store import CheckpointStore, SaveRequest, attempt_of, commits_of
from treenail.adapters.checkpoint.targets import Targets
from treenail.adapters.checkpoint.tensors import Buffers, is_spread
from treenail.adapters.checkpoint.tree import Snapshot, copied_tensors, freeze
from treenail.adapters.comm import all_gather_object, broadcast_object
from treenail.contracts import FileEntry, Manifest
from treenail.kernel import CheckpointError, Communicator, Stateful, TreenailError

_PATIENCE: Final = 30.0  # seconds that the parts of other ranks are waited for after a failure


class Resumed(NamedTuple):
    """A checkpoint to go on from.

    Args:
        directory: Where it lies in the store.
        manifest: What it says of itself.
        state: The state tree.
    """

    directory: str
    manifest: Manifest
    state: dict[str, object]


class RankCheckpointer:
    """Saves a run of many ranks: a `Checkpointer` that every rank calls.

    Rank 0 saves what is equal on all ranks; of what is spread over them each writes its part, beside it. The training waits
    for the copy of its state; it is written in the background. At most one is under way: the next one waits for it, so that
    none is lost. Pointers move once all of their checkpoint is durable.

    Args:
        store: Of a backend that all ranks share.
        communicator: The ranks; those of torch's process group where tensors are spread.
        asynchronous: Return as soon as the state is copied; the memory of the copy is kept for the next one.
        on_failure: Told of a save that failed in the background, such as `Engine.fail`; the next save raises it when None.
        timeout: Seconds that rank 0 waits for the parts of the others.
    """

    def __init__(
        self,
        store: CheckpointStore,
        communicator: Communicator,
        *,
        asynchronous: bool = False,
        on_failure: Callable[[Exception], object] | None = None,
        timeout: float = 1800.0,
    ) -> None:
        self.store = store
        self.communicator = communicator
        self._asynchronous = asynchronous
        self._on_failure = on_failure if asynchronous else None
        self._timeout = timeout
        self._buffers = Buffers()
        self._flight: Flight | None = None
        self._begun = False  # whether any rank has a flight
        self._checks: list[tuple[str, Callable[[Mapping[str, Tensor]], object]]] = []
        self._cached: list[str] = []  # the large files of this rank's last save
        self._newest: int | None = None  # commits of the state that `latest` leads to, where this process knows it

    def check_copy(self, branch: str, check: Callable[[Mapping[str, Tensor]], object]) -> None:
        """Let the next save look at what it copied, in the background, before anything of it is written.

        Args:
            branch: Of the state tree, a mapping with tensors; only what is equal on all ranks.
            check: Called on rank 0 with these by their keys, on the CPU, complex ones as real and imaginary part. The save
                fails by what it raises: no pointer moves, and retention removes nothing.
        """
        self._checks.append((branch, check))

    def save(
        self, checkpoint: Mapping[str, object], *, step: int, epoch: int, reason: str, pointers: Sequence[str]
    ) -> str:
        """Save; all ranks call it together.

        Returns:
            Where the checkpoint lies or, as long as it is being written, will lie.

        Raises:
            CheckpointError: It could not be saved, or the one before could not; on every rank.
            TreenailError: A check raised it, now or of the one before; on every rank.
        """
        checks, self._checks = self._checks, []
        self.settle()
        store, ranks = self.store, self.communicator
        rest, shards = take(checkpoint)
        directory = on_first(ranks, lambda: self._begin(step)) if shards else None
        self._newest = commits_of(checkpoint)
        buffers = self._buffers if self._asynchronous else Buffers(borrow=True)
        buffers.begin()
        spread = snapshot_shards(shards, ranks, buffers) if shards else None
        whole: list[Snapshot] = []
        on_first(ranks, lambda: whole.append(freeze(rest, buffers)))
        request = SaveRequest(step, epoch, attempt_of(checkpoint), reason, tuple(pointers))

        def write(cancelled: Event) -> None:
            buffers.wait()
            for frozen in whole:
                for branch, check in checks:
                    check(copied_tensors(frozen, branch))
            parts: list[FileEntry] = []
            place = directory or store.begin(step)
            for path in self._cached:
                release_cache(store.files, path)
            self._cached = [f"{place}/{TENSORS}"] if whole else []
            if spread is not None:
                self._cached.append(f"{place}/{shard_name(ranks.rank, ranks.world_size)}")
                own = write_shards(spread, store.files, place)
                if ranks.rank > 0:
                    write_receipt(store.files, place, ranks.rank, ranks.world_size, own)
                    return
                others = collect_receipts(store.files, place, ranks.world_size, cancelled, self._timeout)
                parts = [own, *others]
            store.finish(place, whole[0], request, parts)

        if ranks.rank == 0 or spread is not None:
            self._flight = Flight(write, self._on_failure)
        self._begun = True
        if not self._asynchronous:
            try:
                self.flush()
            except BaseException:
                self._end_flight()  # it reads what the training would change
                raise
        return f"{store.files.uri}/{directory or f'step-{step:08d}'}"

    def _begin(self, step: int) -> str:
        directory = self.store.begin(step)
        self.store.claim(directory)
        return directory

    def is_saved(self, commits: int) -> bool:
        """Return whether ``latest`` leads to the state of a commit; all ranks call it together, and wait until it is durable.

        Args:
            commits: Those of the engine.

        Raises:
            CheckpointError: As `settle`.
        """
        if self._newest == commits:
            self.settle()
        return self._newest == commits

    def mark_changed(self) -> None:
        """Note that what a run goes on with is not what it resumed, although nothing was committed since."""
        self._newest = None

    def settle(self) -> None:
        """Wait until the save under way, if there is one, has ended; all ranks call it together.

        Raises:
            CheckpointError: It failed, and nobody is told by `on_failure`.
        """
        if (error := self._landed()) is not None:
            if self._on_failure is None:
                raise error
            self._on_failure(error)

    def flush(self) -> None:
        """Wait until the save under way, if there is one, is durable; all ranks call it together.

        Raises:
            CheckpointError: It failed; on every rank.
        """
        if (error := self._landed()) is not None:
            raise error

    @contextmanager
    def flushed(self) -> Iterator[None]:
        """At the end of the block, however it ends, wait until the save under way is durable; `on_failure` is told no more.

        Raises:
            CheckpointError: The block ended well, and the save failed.
        """
        try:
            yield
        except BaseException as error:
            # The other ranks may be anywhere, or gone: nothing is agreed on, and their parts are not waited for long.
            if (failed := self._end_flight()) is not None and str(failed) != str(error):
                # One disk is full for both: what to do about it is said once.
                is_same = isinstance(error, TreenailError) and error.message == failed.message
                error.add_note(f"the last checkpoint was not saved, either: {failed.where if is_same else failed}")
            raise
        finally:
            # An engine that is told by its own checkpointer would live on, and with it the workers of its loader.
            self._on_failure = None
        self.flush()

    def _end_flight(self) -> TreenailError | None:
        """Wait for this rank alone, and not long for the parts of others; return what its save ended by."""
        if (flight := self._flight) is None:
            return None
        if not flight.join(_PATIENCE):
            flight.cancelled.set()
            flight.join()
        return flight.error

    def _landed(self) -> TreenailError | None:
        """Wait for all ranks; return the first error, on every rank."""
        if not self._begun:
            return None
        flight, ranks = self._flight, self.communicator
        if flight is not None and (ranks.rank > 0 or ranks.world_size == 1):
            flight.join()
        failed = flight.error if flight is not None else None
        if ranks.world_size > 1:
            # Rank 0 may wait for the part of a rank that could not write it, nor say so.
            failed = next(filter(None, all_gather_object(ranks, failed if ranks.rank > 0 else None)), None)
            if flight is not None and ranks.rank == 0:
                if failed is not None:
                    flight.cancelled.set()
                flight.join()
                failed = failed or flight.error
            failed = broadcast_object(ranks, failed)
        # Not before: who is interrupted here waits for it at the end of the run.
        self._begun, self._flight = False, None
        if failed is not None:
            self._newest = None
        return failed

    def load(self, name: str, parts: Mapping[str, Stateful]) -> tuple[Manifest, dict[str, object]]:
        """Read a checkpoint for the parts of a run, each rank what it needs, whatever ranks saved it.

        Args:
            name: A pointer, or a directory's name.
            parts: Those of the run; of ``model`` and ``optimizer`` parameters may be spread over ranks.

        Raises:
            CheckpointError: It is missing, torn, or of another run; on every rank.
        """
        self.settle()
        # A shared place may show different pointers.
        directory = on_first(self.communicator, lambda: self.store.resolve(name))
        return self._load(directory, parts)

    def resume(self, name: str, parts: Mapping[str, Stateful], warn: Callable[[str], object]) -> Resumed:
        """Read the checkpoint that a run goes on from; in place of a damaged ``latest``, the newest good one before it.

        Args:
            name: A pointer, or a directory's name; nothing stands in for any but ``latest``.
            parts: As `load` takes them.
            warn: Told, on rank 0, which checkpoint is damaged, how, and which one is taken.

        Raises:
            CheckpointError: None is left; or one is of a later format, of another model or cannot be reached, which no
                other one mends; on every rank.
        """
        if name != "latest":
            directory = on_first(self.communicator, lambda: self.store.resolve(name))
            return Resumed(directory, *self.load(directory, parts))
        self.settle()
        first: CheckpointError | None = None
        candidates = on_first(self.communicator, self.store.candidates)
        for directory in candidates.directories:
            try:
                manifest, state = self._load(directory, parts)
            except UnsuitableError:
                raise
            except CheckpointError as error:
                first = first or error
                continue
            damage = first or candidates.problem
            if damage is not None and self.communicator.rank == 0:
                warn(f"{damage}; going on from '{directory}' in its place (step {manifest.step})")
            self._newest = commits_of(state) if damage is None else None
            return Resumed(directory, manifest, state)
        raise first or CheckpointError("there is no checkpoint to go on from", where=self.store.files.uri)

    def _load(self, directory: str, parts: Mapping[str, Stateful]) -> tuple[Manifest, dict[str, object]]:
        model, optimizer = parts.get("model"), parts.get("optimizer")
        is_sharded = isinstance(model, nn.Module) and any(map(is_spread, model.parameters()))
        read: list[tuple[Manifest, dict[str, object]]] = []
        together(self.communicator, lambda: read.append(self.store.load(directory, shards=not is_sharded)))
        manifest, state = read[0]
        if not isinstance(model, nn.Module) or not is_sharded:
            return manifest, state
        if not isinstance(optimizer, Optimizer):
            raise UnsuitableError(
                "the parameters are spread over ranks, but the part 'optimizer' is no optimizer of torch"
            )
        targets = Targets(model, optimizer, parts)
        recorded = state.pop(SHARDS, None)
        if recorded is None:  # of a run that was not spread
            targets.spread(state)
            return manifest, state
        places = places_of(recorded)
        filled = {tensor: targets.memory(path) for tensor, path in places.items()}
        read_shards(filled, self.store.files, directory, self.communicator)
        for tensor, path in places.items():
            put(state, path, filled[tensor])
        return manifest, state
