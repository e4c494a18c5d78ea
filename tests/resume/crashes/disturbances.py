"""The disturbances: each is done to a training, which is then resumed until it ends."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tests.files.fault_proxy import NO_FAULT, Fault, Request, fault_proxy
from tests.files.s3_server import S3Server
from tests.resume.crashes.attempts import last_step
from tests.resume.crashes.crash_run import INTERVAL, STEPS
from tests.resume.crashes.machine import clock_library, fill, own_disk
from tests.resume.crashes.trials import MissedError, Result, Trial, disturbed
from tests.resume.outcomes import Outcome

from treenail.adapters.files import LocalFiles, ObjectFiles

_SLOWLY = {"RUN_PAUSE": "0.01"}  # several seconds of training, for what takes as long


def kill(directory: Path, random: Random) -> Trial:
    """SIGKILL at a random instant."""
    trial = Trial(directory, random)
    with trial.attempt() as attempt:
        trial.reach(attempt, trial.some_step())
        time.sleep(random.uniform(0, 0.01))
        trial.kill(attempt)
    return trial


def kill_during_save(directory: Path, random: Random) -> Trial:
    """SIGKILL at a random instant of a random save."""
    trial = Trial(directory, random)
    with trial.attempt() as attempt:
        assert attempt.wait_until(lambda: _is_saving(trial)), attempt.said
        trial.reach(attempt, trial.some_step(0, STEPS - INTERVAL))
        attempt.wait_until(lambda: _is_saving(trial))
        time.sleep(random.choice((0.0, random.uniform(0, 0.004), random.uniform(0, 0.02))))
        trial.kill(attempt)
    if not _is_saving(trial):
        raise MissedError("the save was over")
    return trial


def kill_loader_worker(directory: Path, random: Random) -> Trial:
    """SIGKILL of a process that loads batches: the training ends with a sentence."""
    trial = Trial(directory, random, {**_SLOWLY, "RUN_WORKERS": "2"})
    with trial.attempt() as attempt:
        trial.reach(attempt, trial.some_step(most=STEPS // 2))
        workers = attempt.children()
        if not workers:
            raise MissedError("there is no worker between two epochs")
        attempt.send(signal.SIGKILL, random.choice(workers))
        if attempt.wait() == 0:
            raise MissedError("the worker had loaded all that it was to load")
        assert "worker" in attempt.said, attempt.said
        assert "Traceback" not in attempt.said, attempt.said
    return trial


def terminate(directory: Path, random: Random) -> Trial:
    """SIGTERM at a random instant: nothing at all is lost."""
    trial = Trial(directory, random)
    with trial.attempt() as attempt:
        trial.reach(attempt, trial.some_step())
        attempt.send(signal.SIGTERM)
        code = attempt.wait()
        if code == 0:
            raise MissedError("it had ended when it was told to")
        assert code == 143, f"it ended with {code}: {attempt.said}"
    trial.may_lose = 0
    return trial


def stop_and_continue(directory: Path, random: Random) -> Trial:
    """SIGSTOP, as a debugger or a scheduler sends it: nobody else gets the work directory, and SIGCONT goes on."""
    trial = Trial(directory, random, _SLOWLY)
    with trial.attempt() as attempt:
        trial.reach(attempt, trial.some_step())
        attempt.send(signal.SIGSTOP)
        time.sleep(0.05)
        with trial.attempt() as other:
            code = other.wait()
        stood = last_step(trial.work_dir)
        attempt.send(signal.SIGCONT)
        assert attempt.wait() == 0, attempt.said
        if stood == STEPS:
            raise MissedError("it was over when it was stopped")
        assert code != 0, f"two runs shared a work directory: {other.said}"
        assert "process " in other.said or "holds a run already" in other.said, other.said
    trial.may_lose = 0
    return trial


def full_disk(directory: Path, random: Random) -> Trial:
    """A disk that is full from a random instant on."""
    with _small_disk(directory) as disk:
        return _filled(Trial(directory, random, work_dir=disk / "run"), disk)


def full_disk_of_checkpoints(directory: Path, random: Random) -> Trial:
    """A full disk with the checkpoints alone: saves fail, in the background or not, and logs go on."""
    with _small_disk(directory) as disk:
        place = disk / "checkpoints"
        return _filled(Trial(directory, random, checkpoints=(LocalFiles(place), str(place))), disk)


def full_disk_of_logs(directory: Path, random: Random) -> Trial:
    """A full disk with the logs alone: what is logged is lost, unless the run ends, and its checkpoints could be saved."""
    place = directory / "checkpoints"
    with _small_disk(directory) as disk:
        trial = Trial(directory, random, work_dir=disk / "run", checkpoints=(LocalFiles(place), str(place)))
        return _filled(trial, disk)


def read_only_directory(directory: Path, random: Random) -> Trial:
    """A directory of checkpoints that can no longer be written."""
    trial = Trial(directory, random)
    checkpoints = trial.work_dir / "checkpoints"
    with trial.attempt(obeys_modes=True) as attempt:
        trial.reach(attempt, trial.some_step(most=STEPS - INTERVAL - 2))
        checkpoints.mkdir(exist_ok=True)
        checkpoints.chmod(0o500)
        try:
            code = attempt.wait()
        finally:
            checkpoints.chmod(0o700)
        assert code != 0, "it went on although nothing could be saved"
        assert "Permission denied" in attempt.said, attempt.said
        assert "Traceback" not in attempt.said, attempt.said
    trial.may_lose += INTERVAL  # the save that failed is lost, too
    return trial


def damaged_checkpoint(directory: Path, random: Random) -> Trial:
    """The newest checkpoint's state has a flipped bit, or is cut short: that is told, and the one before it serves."""
    trial = _killed_late(directory, random)
    newest = _newest(trial)
    _damage(newest / random.choice(("state.safetensors", "state.json")), random)
    trial.must_say = newest.name
    return trial


def damaged_manifest(directory: Path, random: Random) -> Trial:
    """The newest checkpoint's manifest has a flipped bit, or is cut short."""
    trial = _killed_late(directory, random)
    _damage(_newest(trial) / "manifest.json", random)
    return trial


def damaged_pointer(directory: Path, random: Random) -> Trial:
    """A pointer, to the newest checkpoint or to the best, has a flipped bit, or is cut short."""
    trial = _killed_late(directory, random)
    _damage(trial.work_dir / "checkpoints" / random.choice(("latest", "best")), random)
    return trial


def deleted_checkpoint(directory: Path, random: Random) -> Trial:
    """Somebody has deleted the newest checkpoint: the one before it serves."""
    trial = _killed_late(directory, random)
    shutil.rmtree(_newest(trial))
    return trial


def clock_jumps(directory: Path, random: Random, *, seconds: int) -> Trial:
    """A wall clock that is set by so much in the middle, and by a day in that direction before the resume."""
    offset = directory / "offset"
    directory.mkdir(parents=True)
    offset.write_text("0")
    trial = Trial(directory, random, {"LD_PRELOAD": str(clock_library()), "CLOCK_OFFSET": str(offset)})
    with trial.attempt(is_fresh=True) as attempt:
        trial.reach(attempt, trial.some_step(most=STEPS // 2))
        offset.write_text(str(-seconds))
        trial.reach(attempt, trial.some_step(STEPS // 2, STEPS - 4))
        trial.kill(attempt)
    trial.stood = last_step(trial.work_dir)
    offset.write_text(str(-24 * seconds))
    with trial.attempt(is_fresh=True) as attempt:
        trial.reach(attempt, trial.stood + 1)
        trial.kill(attempt)
    return trial


def second_run(directory: Path, random: Random) -> Trial:
    """Another run that wants the same work directory, anew or resumed: it is refused, and does the first no harm."""
    trial = Trial(directory, random, _SLOWLY)
    with trial.attempt() as attempt:
        trial.reach(attempt, trial.some_step(most=STEPS // 2))
        with trial.attempt() as other:
            code = other.wait()
            if attempt.code is not None:
                raise MissedError("the first run had ended")
            assert code != 0, "two runs shared a work directory"
            assert "process " in other.said or "holds a run already" in other.said, other.said
            assert "Traceback" not in other.said, other.said
        if random.random() < 0.5:
            assert attempt.wait() == 0, attempt.said
        else:
            trial.kill(attempt)
    return trial


def failing_store(directory: Path, random: Random, *, s3: S3Server) -> Trial:
    """A store that breaks uploads off: for a moment, which is waited out, or until the training is killed meanwhile."""
    with fault_proxy(int(s3.endpoint.rpartition(":")[2])) as proxy:
        root = s3.fresh_root()
        environment = {**s3.environment, "AWS_ENDPOINT_URL": proxy.url, "AWS_REGION": "us-east-1"}
        files = ObjectFiles(root, endpoint=s3.endpoint, region="us-east-1")
        trial = Trial(directory, random, environment, checkpoints=(files, root))
        cut = Fault(cut_request=random.randrange(100_000))
        fault = random.choice((cut, cut, Fault(drop=True), Fault(answer=503)))
        broken: list[str] = []

        def choose(request: Request) -> Fault:
            if request.method not in ("PUT", "POST"):
                return NO_FAULT
            broken.append(request.target)
            return fault

        for_a_moment = random.random() < 0.5
        with trial.attempt() as attempt:
            trial.reach(attempt, trial.some_step(most=STEPS - 4))
            proxy.choose(choose)
            if not attempt.wait_until(lambda: bool(broken)):
                raise MissedError("nothing was uploaded any more")
            time.sleep(0.3 if for_a_moment else random.uniform(0, 1.0))
            if for_a_moment:
                proxy.choose(lambda _: NO_FAULT)
                assert (code := attempt.wait()) == 0, f"it ended with {code}: {attempt.said}"
            else:
                trial.kill(attempt)
                proxy.choose(lambda _: NO_FAULT)
        trial.environment["AWS_ENDPOINT_URL"] = s3.endpoint
        trial.may_lose += INTERVAL  # the one whose upload was broken off is lost, too
        return trial


Disturbance = Callable[[Path, Random], Trial]
LOCAL: dict[str, Disturbance] = {
    each.__name__.replace("_", "-"): each
    for each in (
        kill,
        kill_during_save,
        kill_loader_worker,
        terminate,
        stop_and_continue,
        full_disk,
        full_disk_of_checkpoints,
        full_disk_of_logs,
        read_only_directory,
        damaged_checkpoint,
        damaged_manifest,
        damaged_pointer,
        deleted_checkpoint,
        second_run,
    )
}
LOCAL["clock-set-back"] = partial(clock_jumps, seconds=-3600)
LOCAL["clock-set-forward"] = partial(clock_jumps, seconds=3600)
FAILING_STORE = "failing-store"
KINDS = (*LOCAL, FAILING_STORE)


def run_trial(kind: str, seed: int, undisturbed: Outcome, s3: S3Server) -> Result:
    """Disturb a training in one way, resume it, and compare; see `disturbed`."""
    random = Random(f"{kind} {seed}")
    disturbance = LOCAL.get(kind) or partial(failing_store, s3=s3)
    with TemporaryDirectory(prefix="crash-") as directory:
        return disturbed(disturbance, Path(directory), random, undisturbed)


def _is_saving(trial: Trial) -> bool:
    """Return whether a checkpoint has been begun and not been finished."""
    return any(not (path / "manifest.json").exists() for path in (trial.work_dir / "checkpoints").glob("step-*"))


@contextmanager
def _small_disk(directory: Path) -> Iterator[Path]:
    with own_disk(directory / "disk", megabytes=64) as disk:
        yield disk


def _filled(trial: Trial, disk: Path) -> Trial:
    """Fill a disk while a training is under way, wait until that ends it, and make room."""
    with trial.attempt() as attempt:
        trial.reach(attempt, trial.some_step())
        fill(disk / "ballast")
        code = attempt.wait()
        (disk / "ballast").unlink()
        if code == 0:
            raise MissedError("it needed no room any more")
        assert "No space left on device" in attempt.said, attempt.said
        assert "Traceback" not in attempt.said, attempt.said
    trial.may_lose += INTERVAL  # the save that failed is lost, too
    return trial


def _killed_late(directory: Path, random: Random) -> Trial:
    """Return a training that was killed when it had several checkpoints, and may lose the newest."""
    trial = Trial(directory, random)
    with trial.attempt() as attempt:
        trial.reach(attempt, trial.some_step(3 * INTERVAL))
        trial.kill(attempt)
    trial.may_lose += INTERVAL
    return trial


def _newest(trial: Trial) -> Path:
    """Return the directory of the newest checkpoint, which ``latest`` leads to."""
    checkpoints = trial.work_dir / "checkpoints"
    return checkpoints / (checkpoints / "latest").read_text()


def _damage(path: Path, random: Random) -> None:
    content = bytearray(path.read_bytes())
    if random.random() < 0.5:
        content = content[: random.randrange(len(content))]
    else:
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)
