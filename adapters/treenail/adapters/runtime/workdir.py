"""Where a run keeps its files."""

from __future__ import annotations

from pathlib import Path

from treenail.adapters.files import LocalFiles
from treenail.kernel import CheckpointError, ConfigError, FileError

CHECKPOINTS = "checkpoints"


def choose_work_dir(config: Path, given: Path | None, *, resume: bool) -> Path:
    """Return the directory of a run: the given one, or ``work_dirs/CONFIG/001``, ``002`` … in the current directory.

    Args:
        config: The config's path; its name without suffix names the directory.
        given: What the user asked for.
        resume: Go on in the given directory, or in the newest one that has a checkpoint.

    Raises:
        ConfigError: The directory already holds a run and `resume` is False, or cannot be written.
        CheckpointError: There is nothing to resume.
    """
    if given is None:
        parent = Path("work_dirs") / config.stem
        runs = sorted((each for each in parent.glob("[0-9]*") if each.name.isdigit()), key=lambda each: int(each.name))
        if resume:
            resumable = [each for each in runs if _has_checkpoint(each)]
            if not resumable:
                raise CheckpointError(
                    "there is no checkpoint to resume from",
                    where=str(parent),
                    mend="leave --resume out, or name a --work-dir",
                )
            return resumable[-1]
        number = int(runs[-1].name) if runs else 0
        while True:  # two runs that begin at once must not share a directory
            number += 1
            given = parent / f"{number:03d}"
            try:
                given.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise _unwritable(given, error.strerror or str(error)) from None
            return given
    elif resume and not _has_checkpoint(given):
        raise CheckpointError("there is no checkpoint to resume from", where=str(given), mend="leave --resume out")
    elif not resume and _has_checkpoint(given):
        raise ConfigError(
            "this directory holds a run already",
            where=str(given),
            mend="go on with --resume, or choose another --work-dir",
        )
    _probe(given)
    return given


def _has_checkpoint(work_dir: Path) -> bool:
    return (work_dir / CHECKPOINTS / "latest").is_file()


def _probe(work_dir: Path) -> None:
    files = LocalFiles(work_dir)
    try:
        files.write("probe", b"")
        files.delete("probe")
    except FileError as error:
        raise _unwritable(work_dir, error.message.removeprefix("cannot write: ")) from None


def _unwritable(work_dir: Path, cause: str) -> ConfigError:
    return ConfigError(
        f"the work directory cannot be written: {cause}", where=str(work_dir), mend="choose another --work-dir"
    )
