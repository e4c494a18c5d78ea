"""torchrun's agent, which knows a stop from a failure and says why ranks start again."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path
from typing import Final

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from treenail.adapters.launch.failures import Failure, RankFailedError, rank_failed, read_report
from treenail.adapters.launch.rendezvous import Meeting

_ROLE: Final = "rank"
_STOPS: Final = frozenset({128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGUSR1})


class StoppedError(Exception):
    """Every rank of this machine stopped in good order after a signal.

    Args:
        exit_code: Of all of them, 128 + the signal's number.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class Agent(LocalElasticAgent):
    """Starts the ranks of this machine, watches them, and starts them again.

    torch's own starts ranks again that were asked to stop, and gives them 30 s to save their work when machines join.

    Args:
        command: The program of a rank and its arguments.
        processes: How many on this machine.
        meeting: Of the machines.
        max_restarts: How often the ranks are started again after one failed.
        grace: Seconds that the ranks have to stop after a signal.
        directory: For the ranks' reports of failures.
    """

    def __init__(
        self,
        command: tuple[str, ...],
        processes: int,
        meeting: Meeting,
        *,
        max_restarts: int,
        grace: float,
        directory: Path,
    ) -> None:
        program, *arguments = command
        spec = WorkerSpec(
            _ROLE,
            processes,
            meeting,
            entrypoint=program,
            args=tuple(arguments),
            max_restarts=max_restarts,
            monitor_interval=0.1,
        )
        super().__init__(spec, DefaultLogsSpecs(log_dir=str(directory)))
        self._meeting = meeting
        self._grace = round(grace)
        self._failed: RankFailedError | None = None

    def wait(self) -> None:
        """Run the ranks until they end.

        Raises:
            RankFailedError: A rank failed, and there are no restarts left.
            StoppedError: They stopped after a signal.
            SignalException: This process got one, and has passed it on.
        """
        self.run()
        if self._failed is not None:
            raise self._failed

    def _invoke_run(self, role: str = _ROLE) -> RunResult:
        try:
            result: RunResult = super()._invoke_run(role)
        except SignalException:
            self._meeting.leave()  # before this machine's ranks stop, and with them all others
            raise
        return result

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result: RunResult = super()._monitor_workers(worker_group)
        failures = [_read(rank, failure) for rank, failure in result.failures.items()]
        if code := _stop_code(failures):
            if not self._meeting.changes():
                raise StoppedError(code)
            # The ranks agreed on the stop before this agent noticed that another machine came or went.
            self._restart_workers(worker_group)
            return RunResult(WorkerState.HEALTHY)
        self._failed = rank_failed(failures, worker_group.workers[0].world_size) if failures else None
        return result

    def _restart_workers(self, worker_group: WorkerGroup) -> None:
        if self._failed is None:
            why = "the number of machines changes, and the ranks start again"
        else:
            most = worker_group.spec.max_restarts
            why = f"{self._failed}; restart {most - self._remaining_restarts} of {most}"
        print(f"{socket.gethostname()}: {why}", file=sys.stderr, flush=True)
        super()._restart_workers(worker_group)

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, *arguments: object, **options: object) -> None:
        if self._pcontext is not None:
            self._pcontext.close(death_sig, self._grace)
        # What it takes further depends on torch's version, and comes from torch.
        super()._shutdown(death_sig, *arguments, **options)  # type: ignore[arg-type]


def _read(rank: int, failure: ProcessFailure) -> Failure:
    return read_report(failure.error_file, rank, failure.exitcode, failure.timestamp)


def _stop_code(failures: list[Failure]) -> int:
    """Return the common exit code of ranks that stopped in good order after a signal, 0 if they did not."""
    codes = {failure.exit_code for failure in failures}
    orderly = not any(failure.message for failure in failures) and len(codes) == 1
    return max(codes) if orderly and codes <= _STOPS else 0


__all__ = ["Agent", "StoppedError"]
