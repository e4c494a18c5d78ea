"""What keeps a batch from coming: a sample that cannot be made, or a loader process that ended."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Final, NamedTuple

from torch.utils.data._utils import signal_handling
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from treenail.adapters.data.indexed import Indexed
from treenail.kernel import TrainingError

_GRACE: Final = 1.0
"""Seconds from the end of a worker to that of the others."""

_GONE: Final = (RuntimeError, OSError, EOFError)
"""What torch raises of a worker that ended, or a connection to it."""


class DataError(TrainingError):
    """A batch could not be loaded. It is raised where the next batch is asked for: between two steps."""


class WorkerTraceback(Exception):  # noqa: N818  # it is no error, it shows where one was
    """The traceback of an exception of another process, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class FailedBatch(NamedTuple):
    """What a loader has in the place of a batch that could not be made; it travels from a worker to the program.

    Args:
        message: What was wrong.
        where: ``file:line`` in the dataset, where that is known.
        mend: What to do.
        error: The exception, pickled; None where it cannot be.
        frames: Its traceback.
    """

    message: str
    where: str | None
    mend: str
    error: bytes | None
    frames: str

    @classmethod
    def of(cls, dataset: object, indices: Sequence[object], drawn: int, error: Exception) -> FailedBatch:
        """Describe a failure.

        Args:
            dataset: What the samples are of.
            indices: Of the samples of the batch.
            drawn: How many of them were made; where it is all of them, they could not be collated.
            error: What was raised.
        """
        name, what = name_of_dataset(dataset), f"{type(error).__name__}: {' '.join(str(error).split())}"
        if drawn < len(indices):
            message = f"sample {indices[drawn]} of {name} cannot be loaded: {what}"
            mend = f"dataset[{indices[drawn]}] shows it; mend the sample, or leave it out"
        else:
            shown = f"{', '.join(map(str, indices[:8]))}{' …' if len(indices) > 8 else ''}"
            message = f"the samples {shown} of {name} make no batch: {what}"
            mend = (
                "let samples be alike (tensors of one shape, in the same fields), or give collate: list, or a function"
            )
        try:
            pickled = pickle.dumps(error)
            pickle.loads(pickled)  # our own; some exceptions are pickled and cannot be read again
        except Exception:  # whatever an exception's own fields raise
            pickled = None
        return cls(message, _place(error), mend, pickled, "".join(traceback.format_exception(error)))

    def told(self) -> DataError:
        """Return the error, whose causes are the exception and the traceback that it had in its process."""
        found = DataError(self.message, where=self.where, mend=self.mend)
        cause: BaseException = WorkerTraceback(self.frames)
        if self.error is not None:
            error = pickle.loads(self.error)  # as above
            error.__cause__ = cause
            cause = error
        found.__cause__ = cause
        return found


def name_of_dataset(dataset: object) -> str:
    """Return what a dataset is called in messages."""
    return type(dataset.dataset if isinstance(dataset, Indexed) else dataset).__qualname__


def _place(error: Exception) -> str | None:
    """Return the line in the dataset, or what it calls, that led to an exception."""
    own = Path(__file__).parent
    frames = (each for each in traceback.extract_tb(error.__traceback__) if Path(each.filename).parent != own)
    found = next(frames, None)
    return None if found is None else f"{found.filename}:{found.lineno}"


class WatchedWorkers:
    """The loader processes of an iterator of torch's, of which one may end in the midst of anything.

    torch raises that in a handler of SIGCHLD, anywhere in the main thread, in the midst of an optimizer's step too. Here
    nothing is raised but where the next batch is asked for. A process that is killed while it sends leaves a part of a
    message, whose reader would wait for the rest for ever; for that the others are ended, too.

    Args:
        iterator: torch's.
        dataset: What is loaded, for messages.

    Attributes:
        failed: Whether a process ended that should not; the iterator is of no use then.
    """

    def __init__(self, iterator: _MultiProcessingDataLoaderIter, dataset: object) -> None:
        self.failed = False
        self._workers = list(iterator._workers)
        self._dataset = name_of_dataset(dataset)
        self._ended = threading.Event()
        self._killed: set[int | None] = set()
        # As torch itself does at the end; what it names is torch's own.
        signal_handling._remove_worker_pids(id(iterator))  # type: ignore[attr-defined]
        iterator._worker_pids_set = False
        # A thread pins the messages that a GPU shall get: it waits, and the program does not.
        results = None if hasattr(iterator, "_pin_memory_thread") else iterator._worker_result_queue
        if results is not None:
            threading.Thread(target=self._watch, args=(results,), daemon=True, name="treenail-loader").start()

    def _watch(self, results: Queue[object]) -> None:
        wait([each.sentinel for each in self._workers])
        if self._ended.wait(_GRACE):
            return
        for worker in self._workers:
            if worker.is_alive():
                self._killed.add(worker.pid)
                worker.kill()
        # With its last end closed, whoever reads gets an EOFError; typeshed does not have it.
        results._writer.close()  # type: ignore[attr-defined]

    def end(self) -> None:
        """The processes are ended on purpose."""
        self._ended.set()

    def checked(self, batches: Iterator[object]) -> Iterator[object]:
        """Yield batches.

        Raises:
            DataError: A sample could not be made, or a process ended.
        """
        try:
            for batch in batches:
                if type(batch) is FailedBatch:
                    raise batch.told()
                yield batch
        except _GONE as error:
            if (found := self.failure(error)) is None:
                raise
            raise found from error

    def failure(self, error: BaseException) -> DataError | None:
        """Return what to say of processes that ended, if one did and led to an error."""
        if not isinstance(error, _GONE):
            return None
        wait([each.sentinel for each in self._workers], 1.0)  # one may be about to
        for number, worker in enumerate(self._workers):
            code = worker.exitcode
            if code is not None and worker.pid not in self._killed:  # with 0, too: none was told to end
                self.failed = True
                how, mend = _death(code)
                return DataError(
                    f"loader worker {number} of {len(self._workers)} (process {worker.pid}), which loads {self._dataset}, {how}",
                    mend=mend,
                )
        return None


def _death(code: int) -> tuple[str, str]:
    """Return how a process ended, and what that calls for."""
    if code >= 0:
        return f"ended itself with code {code}", "with num_workers: 0 the dataset, or a library under it, shows where"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    how = f"was killed by {name}"
    if name == "SIGKILL":
        return how, "if nobody did so, memory ran out (dmesg says so): lower num_workers, or what a sample takes"
    if name == "SIGBUS":
        return (
            how,
            f"shared memory ran out ({_shared()}): enlarge /dev/shm (docker run --shm-size), or lower num_workers",
        )
    return how, "if nobody did so, a library crashed: num_workers: 0 and PYTHONFAULTHANDLER=1 show where"


def _shared() -> str:
    try:
        found = os.statvfs("/dev/shm")  # where the system keeps it
    except OSError:
        return "there is no /dev/shm"
    return f"{found.f_bavail * found.f_frsize >> 20} of {found.f_blocks * found.f_frsize >> 20} MiB are free"


__all__ = ["DataError", "FailedBatch", "WatchedWorkers", "WorkerTraceback", "name_of_dataset"]
