"""A training that is disturbed, and then resumed until it ends."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.resume.crashes.attempts import Attempt, last_step
from tests.resume.crashes.crash_run import INTERVAL, STEPS
from tests.resume.outcomes import Outcome, difference, outcome

from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.files import LocalFiles
from treenail.kernel import FileBackend

CONFIG = Path(__file__).with_name("crash_run.py")
_TIMES = 6


class MissedError(Exception):
    """A disturbance came too late to disturb anything; the trial proves nothing, and is made again."""


class Result(NamedTuple):
    """How a trial went.

    Args:
        attempts: Processes that it took.
        lost: Steps between where the training stood when it was disturbed and where it went on.
    """

    attempts: int
    lost: int


class Trial:
    """A training that is disturbed.

    Args:
        directory: Holds everything of it; empty.
        random: Draws when and how it is disturbed.
        environment: Variables of all its attempts.
        work_dir: Its work directory, if not in `directory`.
        checkpoints: Where its checkpoints lie, and how the config says so, if not in the work directory.

    Attributes:
        may_lose: Steps that a disturbance may lose: an interval, and what is trained while a save in the background is under
            way, which the next one waits for.
        must_say: What the first attempt after the disturbance must tell.
    """

    def __init__(
        self,
        directory: Path,
        random: Random,
        environment: Mapping[str, str] | None = None,
        work_dir: Path | None = None,
        checkpoints: tuple[FileBackend, str] | None = None,
    ) -> None:
        self.directory = directory
        self.random = random
        self.work_dir = work_dir or directory / "run"
        self.checkpoints = checkpoints[0] if checkpoints else LocalFiles(self.work_dir / "checkpoints")
        waits = random.random() < 0.5
        self.arguments = [f"checkpoints.asynchronous={'false' if waits else 'true'}"]
        if checkpoints:
            self.arguments.append(f"+files.checkpoints={checkpoints[1]}")
        self.environment = {"OMP_NUM_THREADS": "1", "RUN_WORKERS": str(random.choice((0, 0, 2)))}
        self.environment.update(environment or {})
        self.attempts = 0
        self.stood = 0
        self.may_lose = INTERVAL if waits else 2 * INTERVAL
        self.must_say: str | None = None

    @contextmanager
    def attempt(self, *, is_fresh: bool = False, obeys_modes: bool = False) -> Iterator[Attempt]:
        """Give an attempt that begins, or goes on where there is a checkpoint; it has ended after the block."""
        self.attempts += 1
        self.directory.mkdir(parents=True, exist_ok=True)
        arguments = ["train", str(CONFIG), "--work-dir", str(self.work_dir), *self.arguments]
        if self.has_checkpoint():
            arguments.append("--resume")
        output = self.directory / f"attempt-{self.attempts}.txt"
        begun = Attempt(arguments, output, self.environment, is_fresh=is_fresh, obeys_modes=obeys_modes)
        try:
            yield begun
        finally:
            begun.end()

    def has_checkpoint(self) -> bool:
        """Return whether there is a whole checkpoint."""
        return any(CheckpointStore(self.checkpoints).manifests())

    def some_step(self, least: int = 1, most: int = STEPS - 2) -> int:
        """Draw a step at which the training is under way."""
        return self.random.randrange(least, most + 1)

    def reach(self, attempt: Attempt, step: int) -> None:
        """Wait until a step is committed."""
        assert attempt.wait_until(lambda: last_step(self.work_dir) >= step), attempt.said

    def kill(self, attempt: Attempt) -> None:
        """SIGKILL an attempt that is under way."""
        attempt.send(signal.SIGKILL)
        if attempt.wait() != -signal.SIGKILL:
            raise MissedError("it had ended when it was killed")

    def finish(self, undisturbed: Outcome) -> Result:
        """Resume until the training ends, and compare it with the one that was left alone."""
        self.stood = max(self.stood, last_step(self.work_dir))
        said = None
        for _ in range(3):
            with self.attempt() as last:
                code = last.wait()
                said = said or last.said
                if code == 0:
                    break
        assert code == 0, last.said
        assert self.must_say is None or self.must_say in (said or ""), f"nothing tells '{self.must_say}': {said}"
        assert "Traceback" not in (said or ""), said
        found = outcome(self.work_dir, self.checkpoints)
        where = difference(found.state, undisturbed.state) or difference(found.logged, undisturbed.logged, "logged")
        assert where is None, f"{where}\n{last.said}"
        assert found.best == undisturbed.best, f"'best' leads to step {found.best}, not {undisturbed.best}\n{last.said}"
        lost = max(self.stood - self._went_on(), 0)
        assert lost <= self.may_lose, f"{lost} steps were lost, of at most {self.may_lose}\n{said}"
        return Result(self.attempts, lost)

    def _went_on(self) -> int:
        """Return the step from which the last attempt trained."""
        text = (self.work_dir / "log.jsonl").read_text(errors="replace")  # a kill may leave half a line
        resumed = [line for line in text.splitlines() if '"event":"resumed"' in line.replace('": "', '":"')]
        return int(json.loads(resumed[-1])["step"]) if resumed else 0


def disturbed(make: Callable[[Path, Random], Trial], directory: Path, random: Random, undisturbed: Outcome) -> Result:
    """Disturb a training, again if it was too late for that, resume it, and compare.

    Raises:
        AssertionError: Something was lost, repeated or told wrongly; the message has what the attempts said.
        CannotDisturbError: This machine does not let it be done.
        MissedError: It was too late again and again.
    """
    for number in range(_TIMES):
        with suppress(MissedError):
            return make(directory / f"trial-{number}", random).finish(undisturbed)
    raise MissedError(f"it was too late, {_TIMES} times")
