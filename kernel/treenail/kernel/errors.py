"""One hierarchy of errors; every message says what was wrong, where, and what to do."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from types import ModuleType


class TreenailError(Exception):
    """Base of every error that Treenail raises on purpose.

    Args:
        message: What was wrong, in one sentence without a full stop.
        where: The place: ``file:line:column``, a path in a tree, a URI.
        mend: What the user can do about it.
    """

    def __init__(self, message: str, *, where: str | None = None, mend: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.mend = mend

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        mend = f"; {self.mend}" if self.mend else ""
        return f"{place}{self.message}{mend}"


class SpecError(TreenailError):
    """A component was described with arguments that its signature does not take."""


class BuildError(TreenailError):
    """A component's own constructor raised; the cause keeps its traceback."""


class RegistryError(TreenailError):
    """A name is unknown, registered twice, or does not lead to a callable."""


class MissingDependencyError(TreenailError):
    """An adapter needs a package that is not installed."""


class HookError(TreenailError):
    """A hook has a misspelt or mis-signed point, a taken name, or an order that contradicts itself."""


class EngineError(TreenailError):
    """The engine was asked for a part it does not hold, or used out of order."""


class ConfigError(TreenailError):
    """A config is wrong; nothing has been built."""


class StateError(TreenailError):
    """A saved state does not fit the object that should take it."""


class CheckpointError(TreenailError):
    """A checkpoint is missing, torn, foreign or cannot be written."""


class FileError(TreenailError):
    """A file operation failed; says the operation, the path and the cause."""


class FileMissingError(FileError):
    """The file that was asked for does not exist."""


class ExportError(TreenailError):
    """An artefact could not be made, or did not agree with its model; nothing was published."""


class CommunicationError(TreenailError):
    """Ranks called different collectives, one of them failed or is gone, or a message could not be sent."""


class TrainingError(TreenailError):
    """The training itself went wrong, for example a loss that is not finite."""


def did_you_mean(word: str, choices: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return ``did you mean 'x'?`` for the choice nearest to ``word``, None if none is near (difflib's ratio)."""
    from difflib import get_close_matches  # only needed once something went wrong

    known = list(choices)
    by_lower = {choice.lower(): choice for choice in reversed(known)}
    near = get_close_matches(word, known, n=1, cutoff=cutoff)
    if not near:
        near = [by_lower[match] for match in get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)]
    return f"did you mean '{near[0]}'?" if near else None


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency where it is used.

    Args:
        module: Dotted name of the module to import.
        extra: The extra of the ``treenail`` distribution that installs it.
        purpose: What needs it, for the message.

    Raises:
        MissingDependencyError: The module is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{purpose} needs the package '{error.name}', which is not installed",
            mend=f"pip install 'treenail[{extra}]'",
        ) from error
