"""The benchmark `runtime`: how long a training stands still for a checkpoint, and how long saving and loading take."""

# The peers are untyped, or not installed where the types are checked.
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call,misc,unused-ignore"

from __future__ import annotations

import gc
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO
from mmengine.runner import save_checkpoint
from torch import Tensor, nn
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from treenail.adapters.checkpoint import CheckpointStore, RankCheckpointer
from treenail.adapters.comm import SingleProcess
from treenail.adapters.files import LocalFiles
from treenail.adapters.hooks import CheckpointHook
from treenail.kernel import Engine

State = dict[str, Tensor]

METHOD = """\
A state of {megabytes} MB in 100 float32 tensors, to a directory of this disk; the median of the rounds, all in turns.
stall      how long the call keeps the training, which may go on when it returns; the second and later saves of a run, which
           is when whoever keeps buffers has them. "of a copy" is by one copy of the tensors into others that exist.
           Treenail's is a commit of its engine, with the hook that refuses to save a model that is not finite.
total      until what was saved is whole on disk. Treenail's has that check and SHA-256 sums in it, fsync of files and
           directories, and the removal of the checkpoint before. Like "torch.save, fsync, rename" it writes a new file beside
           the last good one; the others empty their last file and fill its memory, which is warm, again. But for
           "torch.save, fsync" these leave the data to the operating system: a power cut loses it, and a crash in the midst
           of it leaves neither the old state nor the new one.
load       the state from the file, which the operating system still has in memory."""


class Saved(NamedTuple):
    """What a save took, in seconds."""

    stall: float
    total: float


class Peer(NamedTuple):
    """Something that saves and loads.

    Args:
        save: Saves a state below a directory.
        load: Loads it again.
    """

    save: Callable[[State, Path], Saved]
    load: Callable[[Path], object] | None


def make_state(megabytes: int) -> State:
    """Return tensors of so much in all."""
    numbers = megabytes * 1_000_000 // 4 // 100
    generator = torch.Generator().manual_seed(0)
    return {f"layer{index}_weight": torch.rand(numbers, generator=generator) for index in range(100)}


class Copies:
    """One copy of all tensors into others that exist."""

    def __init__(self, state: State) -> None:
        self._into = {name: torch.zeros_like(tensor) for name, tensor in state.items()}

    def save(self, state: State, _: Path) -> Saved:
        """Copy."""
        begin = perf_counter()
        for name, tensor in state.items():
            self._into[name].copy_(tensor)
        taken = perf_counter() - begin
        return Saved(taken, taken)


class Treenail:
    """Treenail's checkpoints, as a run saves them: the copies' memory is kept."""

    def __init__(self, state: State, directory: Path, *, asynchronous: bool) -> None:
        self.store = CheckpointStore(LocalFiles(directory), keep_last=1)
        self._checkpointer = RankCheckpointer(self.store, SingleProcess(), asynchronous=asynchronous)
        self._engine = Engine({"model": nn.ParameterDict(state)}, checkpointer=self._checkpointer)
        self._engine.attach(CheckpointHook(interval=None))

    def save(self, _: State, __: Path) -> Saved:
        """Save the state of the beginning, and wait until it is durable."""
        self._engine.request_checkpoint("benchmark")
        begin = perf_counter()
        self._engine.commit(steps=1)
        stall = perf_counter() - begin
        self._checkpointer.flush()
        return Saved(stall, perf_counter() - begin)

    def load(self, _: Path) -> object:
        """Load and verify the last one."""
        return self.store.load("latest")[1]["model"]


def _torch_save(state: State, directory: Path, *, durable: bool = False) -> Saved:
    begin = perf_counter()
    torch.save(state, directory / "state.pt")
    if durable:
        _flush(directory / "state.pt")
        _flush(directory)
    taken = perf_counter() - begin
    return Saved(taken, taken)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _torch_save_aside(state: State, directory: Path) -> Saved:
    """Save as whoever must not lose the file before does: in a new file, flushed, then renamed over it."""
    begin = perf_counter()
    torch.save(state, directory / "new.pt")
    _flush(directory / "new.pt")
    (directory / "new.pt").replace(directory / "state.pt")
    _flush(directory)
    taken = perf_counter() - begin
    return Saved(taken, taken)


def _torch_load(directory: Path) -> object:
    return torch.load(directory / "state.pt", weights_only=True)


def _mmengine(state: State, directory: Path) -> Saved:
    begin = perf_counter()
    save_checkpoint({"state_dict": state}, str(directory / "epoch_1.pth"))
    taken = perf_counter() - begin
    return Saved(taken, taken)


def _lightning(state: State, directory: Path) -> Saved:
    plugin = AsyncCheckpointIO(TorchCheckpointIO())
    begin = perf_counter()
    plugin.save_checkpoint({"state_dict": state}, str(directory / "step.ckpt"))
    stall = perf_counter() - begin
    plugin.teardown()
    return Saved(stall, perf_counter() - begin)


def _distributed_save(state: State, directory: Path) -> Saved:
    place = directory / "dcp"
    shutil.rmtree(place, ignore_errors=True)
    begin = perf_counter()
    future = async_save(state, checkpoint_id=str(place))
    stall = perf_counter() - begin
    if isinstance(future, Future):
        future.result()
    return Saved(stall, perf_counter() - begin)


def _distributed_load(directory: Path) -> object:
    """Load into tensors that exist, as DCP does."""
    reader = FileSystemReader(str(directory / "dcp"))
    metadata = reader.read_metadata().state_dict_metadata
    state = {name: torch.empty(each.size) for name, each in metadata.items() if isinstance(each, TensorStorageMetadata)}
    load(state, storage_reader=reader, no_dist=True)
    return state


@contextmanager
def _one_rank() -> Iterator[None]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def race_checkpoints(rounds: int, megabytes: int) -> dict[str, dict[str, float]]:
    """Let everybody save and load the same state in turns.

    Returns:
        By name: milliseconds of the stall, the whole save and the load, and the stall in copies.
    """
    state = make_state(megabytes)
    with TemporaryDirectory() as folder, _one_rank():
        root = Path(folder)
        background = Treenail(state, root / "background", asynchronous=True)
        waiting = Treenail(state, root / "waiting", asynchronous=False)
        peers: dict[str, Peer] = {
            "one memory copy": Peer(Copies(state).save, None),
            "treenail": Peer(background.save, background.load),
            "treenail, asynchronous: false": Peer(waiting.save, waiting.load),
            "torch.save": Peer(_torch_save, _torch_load),
            "torch.save, fsync": Peer(lambda its, where: _torch_save(its, where, durable=True), None),
            "torch.save, fsync, rename": Peer(_torch_save_aside, None),
            "DCP async_save": Peer(_distributed_save, _distributed_load),
            "Lightning AsyncCheckpointIO": Peer(_lightning, None),
            "mmengine": Peer(_mmengine, None),
        }
        saves: dict[str, list[Saved]] = {name: [] for name in peers}
        loads: dict[str, list[float]] = {name: [] for name in peers}
        for number in range(rounds + 1):
            names = list(peers)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                place = root / name.replace(" ", "-")
                place.mkdir(exist_ok=True)
                gc.collect()
                os.sync()  # nobody pays for what another one has left to the operating system
                saved = peers[name].save(state, place)
                read = peers[name].load
                begin = perf_counter()
                found = read(place) if read is not None else None
                taken = perf_counter() - begin
                if isinstance(found, dict) and not all(torch.equal(found[key], state[key]) for key in state):
                    raise AssertionError(f"{name} loaded something else than it saved")
                if number > 0:
                    saves[name].append(saved)
                    if read is not None:
                        loads[name].append(taken)
    copy = median(each.stall for each in saves["one memory copy"])
    return {
        name: {
            "stall": median(each.stall for each in its) * 1e3,
            "stall in copies": median(each.stall for each in its) / copy,
            "total": median(each.total for each in its) * 1e3,
            **({"load": median(loads[name]) * 1e3} if loads[name] else {}),
        }
        for name, its in saves.items()
    }
