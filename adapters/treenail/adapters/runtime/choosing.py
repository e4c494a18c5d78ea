"""What a test and a prediction have in common: which data of a config they are of, and that their output can be written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import uuid4

from treenail.adapters.files import current_mounts, is_directory, redacted
from treenail.contracts import Evaluation, Prediction, Run
from treenail.kernel import ConfigError, did_you_mean


def choose_data(
    run: Run, name: str, kinds: Sequence[str]
) -> tuple[str, Evaluation | Prediction | Mapping[str, Evaluation]]:
    """Return the data that a name stands for, and of which kind they are.

    Args:
        run: The config.
        name: A kind, or ``test/NAME`` for one set of several, which comes as a mapping of that set alone.
        kinds: Which may be chosen, fields of the config.

    Raises:
        ConfigError: The config has no such data.
    """
    kind, _, part = name.partition("/")
    if kind not in kinds:
        listed = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
        raise ConfigError(f"there are no data '{name}'", mend=f"choose {listed}, or NAME of test/NAME")
    found: Evaluation | Prediction | Mapping[str, Evaluation] | None = getattr(run, kind)
    if found is None:
        others = [each for each in ("test", "val") if each != kind and getattr(run, each) is not None]
        instead = f", or choose the data of {' or '.join(others)}" if others else ""
        metrics = "" if kind == "predict" else ", metrics: […]"
        mend = f"add {kind}: {{dataset: …, batch_size: …{metrics}}}{instead}"
        raise ConfigError(f"the config has no '{kind}'", mend=mend)
    if not part:
        return kind, found
    if not isinstance(found, Mapping):
        raise ConfigError(f"there is no '{name}', '{kind}' is one set of data", mend=f"choose {kind}")
    if part not in found:
        known = [f"{kind}/{each}" for each in found]
        mend = did_you_mean(name, known) or f"choose {' or '.join(known)}"
        raise ConfigError(f"'{name}' is no set of data", mend=mend)
    return kind, {part: found[part]}


def probe_output(output: str) -> None:
    """Write and delete a small file beside an output, so that the results of hours can be written.

    Raises:
        ConfigError: The output is a directory.
        FileError: It cannot be written there.
    """
    place = current_mounts().resolve(output)
    if is_directory(place.backend, place.file()):
        raise ConfigError("the output is a directory", where=redacted(output), mend="name a file")
    probe = f"{place.path}.{uuid4().hex}"
    place.backend.write(probe, b"")
    place.backend.delete(probe)
