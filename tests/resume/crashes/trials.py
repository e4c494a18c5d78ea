"""The disturbances, one after the other done to a training, which is then resumed until it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.files.fault_proxy import NO_FAULT, Fault, FaultProxy, fault_proxy
from tests.files.s3_server import S3Server
from tests.resume.crashes.attempts import Attempt, last_step
from tests.resume.crashes.crash_run import INTERVAL, STEPS
from tests.resume.outcomes import Outcome, difference, outcome

from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.files import LocalFiles, ObjectFiles
from treenail.kernel import FileBackend

CONFIG = Path(__file__).with_name("crash_run.py")
_HERE = Path(__file__).parent


class CannotDisturbError(Exception):
    """This machine does not let a disturbance be made; the message says why."""


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
        arguments: Of ``treenail train``, besides.
        checkpoints: Where its checkpoints lie, if not in the work directory.
    """

    def __init__(
        self,
        directory: Path,
        random: Random,
        environment: Mapping[str, str] | None = None,
        arguments: tuple[str, ...] = (),
        checkpoints: FileBackend | None = None,
    ) -> None:
        self.directory = directory
        self.random = random
        self.work_dir = directory / "run"
        self.checkpoints = checkpoints or LocalFiles(self.work_dir / "checkpoints")
        self.environment = {"OMP_NUM_THREADS": "1", "RUN_WORKERS": str(random.choice((0, 0, 2)))}
        self.environment.update(environment or {})
        self.arguments = arguments
        self.attempts = 0
        self.stood = 0
        self.may_lose = INTERVAL

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

    def some_step(self) -> int:
        """Draw a step at which the training is under way."""
        return self.random.randrange(1, STEPS - 1)

    def reach(self, attempt: Attempt, step: int) -> None:
        """Wait until a step is committed, and remember where the training stands when it is disturbed."""
        assert attempt.wait_until(lambda: last_step(self.work_dir) >= step), attempt.said

    def finish(self, undisturbed: Outcome) -> Result:
        """Resume until the training ends, and compare it with the one that was left alone."""
        self.stood = max(self.stood, last_step(self.work_dir))
        newest = max((manifest.step for _, manifest in CheckpointStore(self.checkpoints).manifests()), default=0)
        lost = max(self.stood - newest, 0)
        for _ in range(3):
            with self.attempt() as last:
                if (code := last.wait()) == 0:
                    break
        assert code == 0, last.said
        found = outcome(self.work_dir, self.checkpoints)
        where = difference(found.state, undisturbed.state) or difference(found.logged, undisturbed.logged, "logged")
        assert where is None, f"{where}\n{last.said}"
        assert lost <= self.may_lose, f"{lost} steps were lost, of at most {self.may_lose}"
        return Result(self.attempts, lost)


def kill(trial: Trial) -> None:
    """SIGKILL at a random instant."""
    with trial.attempt() as attempt:
        trial.reach(attempt, trial.some_step())
        time.sleep(trial.random.uniform(0, 0.01))
        attempt.send(signal.SIGKILL)


def kill_during_save(trial: Trial) -> None:
    """SIGKILL at a random instant of a random save."""
    with trial.attempt() as attempt:
        assert attempt.wait_until(lambda: _is_saving(trial.work_dir / "checkpoints")), attempt.said
        trial.reach(attempt, trial.random.randrange(0, STEPS - INTERVAL))
        attempt.wait_until(lambda: _is_saving(trial.work_dir / "checkpoints"))
        time.sleep(trial.random.choice((0.0, trial.random.uniform(0, 0.004), trial.random.uniform(0, 0.03))))
        attempt.send(signal.SIGKILL)


def terminate(trial: Trial) -> None:
    """SIGTERM at a random instant: nothing at all is lost."""
    with trial.attempt() as attempt:
        trial.reach(attempt, trial.some_step())
        attempt.send(signal.SIGTERM)
        code = attempt.wait()
        assert code in (0, 143), f"it ended with {code}: {attempt.said}"
    trial.may_lose = 0


def full_disk(trial: Trial) -> None:
    """A disk that is full from a random instant on."""
    with _own_disk(trial.directory, megabytes=64) as disk, trial.attempt() as attempt:
        trial.reach(attempt, trial.some_step())
        ballast = disk / "ballast"
        _fill(ballast)
        code = attempt.wait()
        assert code not in (0, None) or last_step(trial.work_dir) == STEPS, attempt.said
        if code != 0:
            assert "No space left on device" in attempt.said, attempt.said
            assert "Traceback" not in attempt.said, attempt.said
        ballast.unlink()


def read_only_directory(trial: Trial) -> None:
    """A directory of checkpoints that can no longer be written."""
    checkpoints = trial.work_dir / "checkpoints"
    with trial.attempt(obeys_modes=True) as attempt:
        trial.reach(attempt, trial.random.randrange(1, STEPS - INTERVAL - 1))
        checkpoints.mkdir(exist_ok=True)
        checkpoints.chmod(0o500)
        try:
            code = attempt.wait()
        finally:
            checkpoints.chmod(0o700)
        assert code != 0, "it went on although nothing could be saved"
        assert "Permission denied" in attempt.said, attempt.said
        assert "Traceback" not in attempt.said, attempt.said
    trial.may_lose = 2 * INTERVAL  # the save that failed is lost, too


def damaged_checkpoint(trial: Trial) -> None:
    """The newest checkpoint, or the pointer to it, has a flipped bit, or is cut short; the one before it serves."""
    with trial.attempt() as attempt:
        trial.reach(attempt, trial.random.randrange(3 * INTERVAL, STEPS - 1))
        attempt.send(signal.SIGKILL)
    root = trial.work_dir / "checkpoints"
    newest = max(root.glob("step-*/manifest.json"), key=lambda path: path.parent.name).parent
    victims = [*sorted(newest.iterdir()), root / "latest"]
    victim = trial.random.choice([path for path in victims if path.name != "owner"])
    content = bytearray(victim.read_bytes())
    if trial.random.random() < 0.5:
        content = content[: trial.random.randrange(len(content))]
    else:
        content[trial.random.randrange(len(content))] ^= 1 << trial.random.randrange(8)
    victim.write_bytes(content)
    trial.may_lose = 2 * INTERVAL


def failing_store(trial: Trial, proxy: FaultProxy) -> None:
    """A store that breaks uploads off: for a moment, which is waited out, or until the training is killed meanwhile."""
    cut = Fault(cut_request=trial.random.randrange(100_000))
    fault = trial.random.choice((cut, cut, Fault(drop=True), Fault(answer=503)))
    for_a_moment = trial.random.random() < 0.5
    with trial.attempt() as attempt:
        trial.reach(attempt, trial.some_step())
        proxy.choose(lambda request: fault if request.method in ("PUT", "POST") else NO_FAULT)
        time.sleep(0.3 if for_a_moment else trial.random.uniform(0.1, 1.5))
        if not for_a_moment:
            attempt.send(signal.SIGKILL)
        proxy.choose(lambda _: NO_FAULT)
        code = attempt.wait()
        assert code == (0 if for_a_moment else -signal.SIGKILL) or last_step(trial.work_dir) == STEPS, attempt.said
    trial.may_lose = 2 * INTERVAL  # the one whose upload was broken off is lost, too


def clock_set_back(trial: Trial) -> None:
    """A wall clock that goes back by an hour in the middle, and by a day before the resume."""
    offset = trial.directory / "offset"
    trial.directory.mkdir(parents=True, exist_ok=True)
    offset.write_text("0")
    trial.environment |= {"LD_PRELOAD": str(_clock_library()), "CLOCK_OFFSET": str(offset)}
    with trial.attempt(is_fresh=True) as attempt:
        trial.reach(attempt, trial.random.randrange(1, STEPS // 2))
        offset.write_text("3600")
        trial.reach(attempt, trial.random.randrange(STEPS // 2, STEPS - 1))
        attempt.send(signal.SIGKILL)
    trial.stood = last_step(trial.work_dir)
    offset.write_text("86400")
    with trial.attempt(is_fresh=True) as attempt:
        trial.reach(attempt, trial.stood + 1)
        attempt.send(signal.SIGKILL)


def second_run(trial: Trial) -> None:
    """Another run that wants the same work directory, anew or resumed: it is refused, and does the first no harm."""
    with trial.attempt() as attempt:
        trial.reach(attempt, trial.some_step())
        with trial.attempt() as other:
            code = other.wait()
            if attempt.code is None:
                assert code != 0, "two runs shared a work directory"
                assert "process " in other.said, other.said
            assert "Traceback" not in other.said, other.said
        if trial.random.random() < 0.5:
            attempt.wait()
            assert attempt.code == 0, attempt.said


Disturbance = Callable[[Trial], None]
LOCAL: dict[str, Disturbance] = {
    each.__name__.replace("_", "-"): each
    for each in (
        kill,
        kill_during_save,
        terminate,
        full_disk,
        read_only_directory,
        damaged_checkpoint,
        clock_set_back,
        second_run,
    )
}
FAILING_STORE = "failing-store"
KINDS = (*LOCAL, FAILING_STORE)


def run_trial(kind: str, seed: int, undisturbed: Outcome, s3: S3Server) -> Result:
    """Disturb a training in one way, resume it, and compare.

    Raises:
        AssertionError: Something was lost, repeated or told wrongly; the message has what the attempts said.
        CannotDisturbError: This machine does not let it be done.
    """
    random = Random(f"{kind} {seed}")
    with tempfile.TemporaryDirectory(prefix="crash-") as directory:
        if kind != FAILING_STORE:
            trial = Trial(Path(directory) / "trial", random)
            LOCAL[kind](trial)
            return trial.finish(undisturbed)
        with fault_proxy(int(s3.endpoint.rpartition(":")[2])) as proxy:
            root = s3.fresh_root()
            environment = {**s3.environment, "AWS_ENDPOINT_URL": proxy.url, "AWS_REGION": "us-east-1"}
            arguments = (f"+files.checkpoints={root}",)
            files = ObjectFiles(root, endpoint=s3.endpoint, region="us-east-1")
            trial = Trial(Path(directory) / "trial", random, environment, arguments, files)
            failing_store(trial, proxy)
            return trial.finish(undisturbed)


def _is_saving(checkpoints: Path) -> bool:
    """Return whether a checkpoint has been begun and not been finished."""
    return any(not (path / "manifest.json").exists() for path in checkpoints.glob("step-*"))


@contextmanager
def _own_disk(directory: Path, *, megabytes: int) -> Iterator[Path]:
    """Mount a small file system at a directory; what lies on it stays there afterwards, on the larger one."""
    directory.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotDisturbError(f"a file system cannot be mounted here: {done.stderr.strip()}")
    kept = directory.with_name("kept")
    try:
        yield directory
        shutil.copytree(directory, kept, symlinks=True)
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)
    shutil.copytree(kept, directory, symlinks=True, dirs_exist_ok=True)


def _fill(path: Path) -> None:
    block = bytes(1 << 20)
    with path.open("wb", buffering=0) as file:
        while block:
            try:
                file.write(block)
            except OSError:
                block = block[: len(block) // 2]


def _clock_library() -> Path:
    """Return the compiled library that sets clocks back."""
    library = Path(tempfile.gettempdir()) / f"treenail-clock-{os.getuid()}" / "clock.so"
    if not library.exists():
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise CannotDisturbError("there is no C compiler for the library that sets clocks back")
        library.parent.mkdir(exist_ok=True)
        made = library.with_name(f"{os.getpid()}.so")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(made), str(_HERE / "clock.c"), "-ldl"], check=True)
        made.replace(library)
    return library
