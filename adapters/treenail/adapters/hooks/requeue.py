"""Puts a job that was stopped back into its queue."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from math import inf
from typing import Annotated, Literal

from msgspec import Meta
from structlog.typing import FilteringBoundLogger

from treenail.adapters.logging import terminal_logger
from treenail.kernel import Communicator, Engine, Hook

StopSignal = Literal["SIGUSR1", "SIGTERM", "SIGINT"]

_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


class RequeueHook(Hook):
    """Runs a command, on rank 0, once a run that a signal stopped has been saved: ``scontrol requeue $SLURM_JOB_ID``.

    Slurm ends a job at its time limit, and lets it know before: ``#SBATCH --signal=USR1@90`` sends SIGUSR1 90 seconds earlier,
    at which a run saves a checkpoint and stops; the job then begins anew, and shall go on with ``--auto-resume``. A preempted
    job gets SIGTERM (sbatch(1), scontrol(1)). Outside of a job, where a variable of the command is not set, or where the
    command fails, there is a warning, and the run's exit code is what it would be.

    Args:
        signals: The stops after which the command runs.
        command: The program and its arguments; ``$NAME`` stands for a variable of the environment. No shell reads it.
        max_restarts: No more, when Slurm has restarted the job so often (SLURM_RESTART_COUNT); None: without end.
        timeout: Seconds that the command may take.
        communicator: The ranks of the run.
        terminal: A structlog logger for people; one that writes to standard error when None.

    Raises:
        ValueError: An argument is out of its range, or there is no command or no signal.
    """

    priority = 95

    def __init__(
        self,
        signals: Sequence[StopSignal] = ("SIGUSR1",),
        command: Sequence[str] = ("scontrol", "requeue", "$SLURM_JOB_ID"),
        max_restarts: Annotated[int, Meta(ge=0)] | None = None,
        timeout: Annotated[float, Meta(gt=0)] = 30.0,
        communicator: Communicator | None = None,
        terminal: FilteringBoundLogger | None = None,
    ) -> None:
        if (
            not command
            or isinstance(command, str)
            or not signals
            or not set(signals) <= {"SIGUSR1", "SIGTERM", "SIGINT"}
        ):
            raise ValueError(
                f"{command=} must be a program and its arguments, and {signals=} some of SIGUSR1, SIGTERM, SIGINT"
            )
        if not 0 < timeout < inf or (max_restarts is not None and max_restarts < 0):
            raise ValueError(f"{timeout=} must be above 0 and finite, and {max_restarts=} not below 0")
        self.signals = tuple(signals)
        self.command = tuple(command)
        self.max_restarts = max_restarts
        self.timeout = timeout
        self._is_first = communicator is None or communicator.rank == 0
        self._terminal = terminal or terminal_logger()

    def after_run(self, engine: Engine) -> None:
        """Run the command, if such a signal stopped the run."""
        reason = (engine.stop_reason or "").partition(" ")[0]
        if not self._is_first or reason not in self.signals:
            return
        refused = self._refused(os.environ)
        words = [_VARIABLE.sub(lambda found: os.environ.get(found[1], ""), word) for word in self.command]
        refused = refused or self._run(words)
        if refused:
            self._terminal.warning("not requeued", command=" ".join(self.command), because=refused, step=engine.step)
        else:
            self._terminal.info("requeued", command=" ".join(words), after=reason, step=engine.step)

    def _refused(self, environment: Mapping[str, str]) -> str | None:
        """Say why the command shall not run, if so."""
        names = [found[1] for word in self.command for found in _VARIABLE.finditer(word)]
        if missing := [name for name in names if not environment.get(name)]:
            return f"{', '.join(missing)} is not set; is this a job of Slurm's?"
        restarts = environment.get("SLURM_RESTART_COUNT", "0")
        if self.max_restarts is not None and restarts.isdigit() and int(restarts) >= self.max_restarts:
            return f"the job has been restarted {restarts} times already"
        return None

    def _run(self, words: Sequence[str]) -> str | None:
        """Run a command; say why it failed, if it did."""
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, errors="replace", timeout=self.timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return f"it took more than {self.timeout:g} s"
        except OSError as error:
            return f"{words[0]}: {error.strerror}"
        said = " ".join((done.stderr or done.stdout).split())[:400]
        return f"it ended with {done.returncode}: {said}" if done.returncode else None
