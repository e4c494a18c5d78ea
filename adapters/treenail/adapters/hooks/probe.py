"""Writes what a model shows of itself: values that its modules registered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta
from torch import nn

from treenail.adapters.comm import SingleProcess, gather_object
from treenail.adapters.files import put
from treenail.adapters.hooks.probe_data import Logged, ProbeData, file_names
from treenail.adapters.hooks.probed import Probes, distributions, probes_of
from treenail.kernel import Communicator, Engine, Hook, TrainingError

Mode = Literal["train", "val", "test"]


class ProbeHook(Hook):
    """Writes what modules registered by `register_probe`, every `interval` steps and of each validation and test.

    ``DIRECTORY/train_probe/step-00001000/meta.json`` has the values by key, and the paths of files beside it, which hold arrays
    and images; ``val_probe`` and ``test_probe`` have the first batch of an evaluation. Keys of modules within the model begin
    with their names. In other steps nothing is copied. On many ranks each registers its own; rank 0 writes what all of them did,
    values as a list in the order of ranks, counts as sums. A resumed run writes steps that it makes again to the same places.

    Args:
        interval: Steps between two that are written, counted over the whole run.
        directory: Path or URI; the work directory, when it is a run's.
        modes: What is written of.
        save_last: Write the last step of the training, too, where its number is known.
        name_prefix: What directories' names begin with.
        probe_prefix: What files' names begin with.
        image_format: Of images; those with transparency are png in any case.
        video_format: Of videos.
        communicator: The ranks of the run.

    Raises:
        ValueError: An argument is out of its range.
        TrainingError: (before training) The run has no module.
    """

    priority = 85

    def __init__(
        self,
        interval: Annotated[int, Meta(ge=1)] = 1000,
        directory: str | Path = ".",
        modes: Sequence[Mode] = ("train", "val", "test"),
        *,
        save_last: bool = False,
        name_prefix: str = "step",
        probe_prefix: str = "",
        image_format: Literal["jpg", "png"] = "jpg",
        video_format: Literal["webp", "gif"] = "webp",
        communicator: Communicator | None = None,
    ) -> None:
        if interval < 1:
            raise ValueError(f"interval is {interval}, must be at least 1")
        if not modes or set(modes) - {"train", "val", "test"}:
            raise ValueError(f"modes are {list(modes)}, must be of 'train', 'val' and 'test'")
        for name, value in (("name_prefix", name_prefix), ("probe_prefix", probe_prefix)):
            if value and file_names({value: None})[value] != value:
                raise ValueError(f"{name} is {value!r}, must be letters, digits, '_', '-' and '.'")
        if image_format not in ("jpg", "png") or video_format not in ("webp", "gif"):
            raise ValueError(f"{image_format=} must be jpg or png, and {video_format=} webp or gif")
        self.interval = interval
        self.directory = str(directory)
        self.modes = tuple(modes)
        self.save_last = save_last
        self.name_prefix = name_prefix
        self.probe_prefix = probe_prefix
        self.image_format = image_format
        self.video_format = video_format
        self._ranks: Communicator = communicator or SingleProcess()
        self._probes: dict[str, Probes] = {}

    def before_run(self, engine: Engine) -> None:
        """Take over what modules register."""
        self._probes = {
            _path(part_name, name): probes_of(module, is_open=False)
            for part_name, part in engine.parts.items()
            if isinstance(part, nn.Module)
            for name, module in part.named_modules()
        }
        if not self._probes:
            raise TrainingError("there is no module to probe", where="hooks.probe", mend="leave the hook out")
        for probes in self._probes.values():
            probes.is_watched = True
        self._open(is_open=False)

    def _open(self, *, is_open: bool) -> None:
        for probes in self._probes.values():
            probes.is_open = is_open
            if is_open:
                probes.clear()

    def _is_due(self, engine: Engine) -> bool:
        done = engine.step + 1
        return "train" in self.modes and (done % self.interval == 0 or (self.save_last and done == engine.total_steps))

    def before_train_iter(self, engine: Engine, batch_index: int, batch: object) -> None:
        """Let modules register, if this step is written."""
        if self._is_due(engine):
            self._open(is_open=True)

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Write what they registered."""
        if self._is_due(engine):
            self._open(is_open=False)
            self._write("train", engine.step + 1, engine.epoch)

    def before_val_iter(self, engine: Engine, batch_index: int, batch: object) -> None:
        """Let modules register in the first batch."""
        if batch_index == 0 and "val" in self.modes:
            self._open(is_open=True)

    def after_val_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Let them register no more."""
        if batch_index == 0:
            self._open(is_open=False)

    def after_val_epoch(self, engine: Engine, metrics: dict[str, float]) -> None:
        """Write what they registered."""
        if "val" in self.modes:
            self._write("val", engine.step, engine.epoch)

    def before_test_iter(self, engine: Engine, batch_index: int, batch: object) -> None:
        """Let modules register in the first batch."""
        if batch_index == 0 and "test" in self.modes:
            self._open(is_open=True)

    def after_test_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Let them register no more."""
        if batch_index == 0:
            self._open(is_open=False)

    def after_test_epoch(self, engine: Engine, metrics: dict[str, float]) -> None:
        """Write what they registered."""
        if "test" in self.modes:
            self._write("test", engine.step, engine.epoch)

    def after_run(self, engine: Engine) -> None:
        """Leave the modules as they were before."""
        self._release()

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        """Leave the modules as they were before."""
        self._release()

    def _release(self) -> None:
        for probes in self._probes.values():
            probes.clear()
            probes.is_open, probes.is_watched = True, False
        self._probes = {}

    def _write(self, mode: Mode, step: int, epoch: int) -> None:
        own = {
            name: _Found(dict(probes.values), dict(probes.counts))
            for name, probes in self._probes.items()
            if probes.values
        }
        for probes in self._probes.values():
            probes.clear()
        told = gather_object(self._ranks, own)
        if told is None or not any(told):
            return
        place = "/".join(filter(None, (self.directory, f"{mode}_probe", f"{self.name_prefix}-{step:08d}")))
        keys = _merged(told)
        files = file_names(keys)
        shown: dict[str, Logged] = {}
        for key, each in keys.items():
            try:
                shown[key] = self._shown(each, f"{place}/{self.probe_prefix}{files[key]}")
            except ValueError as error:
                raise ValueError(f"the probe '{key}': {error}") from error
        content = {"step": step, "epoch": epoch, "mode": mode, "world_size": self._ranks.world_size, "probes": shown}
        # Written last: what it names is there.
        put(msgspec.json.format(msgspec.json.encode(content)), f"{place}/meta.json")

    def _shown(self, probes: Sequence[ProbeData | None], prefix: str) -> Logged:
        shown = [
            None
            if each is None
            else each.to_log(prefix, rank=rank, image_format=self.image_format, video_format=self.video_format)
            for rank, each in enumerate(probes)
        ]
        return shown[0] if len(shown) == 1 else shown


class _Found(NamedTuple):
    """What one module registered."""

    values: dict[str, ProbeData]
    counts: dict[str, Counter[str]]


def _path(part: str, name: str) -> str:
    return ".".join(filter(None, ("" if part == "model" else part, name)))


def _merged(told: Sequence[dict[str, _Found]]) -> dict[str, list[ProbeData | None]]:
    """Return by key what each rank registered, and of what is counted the counts of all."""
    merged: dict[str, list[ProbeData | None]] = {}
    counts: dict[str, dict[str, Counter[str]]] = {}
    for rank, modules in enumerate(told):
        for name, found in modules.items():
            lead = f"{name}/" if name else ""
            for key, value in found.values.items():
                merged.setdefault(f"{lead}{key}", [None] * len(told))[rank] = value
            for key, own in found.counts.items():
                counts.setdefault(lead, {}).setdefault(key, Counter()).update(own)
    for lead, sums in counts.items():
        for key, total in sums.items():
            merged |= {f"{lead}{kind}": [data] for kind, data in distributions(key, total).items()}
    return merged
