"""What happens to a run besides its records, as lines of its log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from treenail.adapters.checkpoint import Resumed
from treenail.adapters.logging import JsonLog, failure_facts, terminal_logger
from treenail.adapters.runtime.ranks import cause_of
from treenail.contracts import Run
from treenail.kernel import Communicator, Engine, FileError, TreenailError


def log_file_of(run: Run, work_dir: Path, rank: int) -> Path | None:
    """Return the log of a rank; None where it shall write none.

    Args:
        run: The config.
        work_dir: Of the run.
        rank: The rank.
    """
    if rank == 0:
        return work_dir / "log.jsonl"
    return work_dir / f"log.rank{rank}.jsonl" if run.distributed.rank_logs else None


class RunEvents:
    """Writes what an attempt of a run goes on from, and how it ends; a failure with its traceback.

    Args:
        log: A file of JSON lines, which is added to; None: nothing is written.
        communicator: The ranks of the run: rank 0 speaks to people.

    Attributes:
        engine: What runs, from when on it does.
    """

    def __init__(self, log: Path | None, communicator: Communicator) -> None:
        self._log = log
        self._communicator = communicator
        self._goes_on = False
        self.engine: Engine | None = None

    def resumed(self, checkpoint: Resumed) -> None:
        """Say what the run goes on from.

        Raises:
            FileError: The log cannot be written.
        """
        self._goes_on = True
        facts = {"step": checkpoint.manifest.step, "epoch": checkpoint.manifest.epoch}
        if self._communicator.rank == 0:
            terminal_logger().info("resumed", checkpoint=checkpoint.directory, **facts)
        self._write("resumed", checkpoint=checkpoint.directory, **facts)

    def ended(self, engine: Engine) -> None:
        """Say that the run went through, or why it stopped before.

        Raises:
            FileError: The log cannot be written.
        """
        if engine.stop_reason is None:
            self._write("finished", **self._progress())
        else:
            self._write("stopped", **self._progress(), reason=engine.stop_reason)

    @contextmanager
    def failures_logged(self) -> Iterator[None]:
        """Write down what ends what is done inside."""
        try:
            yield
        except BaseException as error:
            self._failed(error)
            raise

    def _failed(self, error: BaseException) -> None:
        # Where nothing has begun, the one who begins it sees what is wrong; an empty directory stays empty.
        if self._log is None or (self.engine is None and not self._log.exists()):
            return
        try:
            self._write("failed", **self._progress(), **failure_facts(cause_of(self._communicator, error) or error))
        except FileError as other:
            error.add_note(f"the log has nothing of it: {other}")
            return
        if not isinstance(error, TreenailError):
            error.add_note(f"the traceback is in {self._log}")

    def _progress(self) -> dict[str, object]:
        engine = self.engine
        if engine is None or (self._goes_on and engine.attempt == 1):  # it has not taken the checkpoint's counters yet
            return {}
        return {"step": engine.step, "epoch": engine.epoch}

    def _write(self, event: str, **facts: object) -> None:
        if self._log is None:
            return
        log = JsonLog(self._log)
        try:
            log.logger.info(event, **facts)
        finally:
            log.close()


__all__ = ["RunEvents", "log_file_of"]
