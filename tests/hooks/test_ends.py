"""How a run ends: after its last checkpoint, and without what it began with; and what it would wait for in vain."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from pathlib import Path
from time import sleep

import msgspec
import pytest
from torch import Tensor

from tests.hooks.small_runs import small_run
from treenail.adapters.files import LocalFiles
from treenail.adapters.hooks import BestHook, CheckpointHook, EarlyStoppingHook
from treenail.adapters.runtime import train
from treenail.contracts import Files
from treenail.kernel import ConfigError, Engine, Hook, Spec, spec


class SlowFiles(LocalFiles):
    """A disk on which it takes a while until a checkpoint is whole."""

    def __init__(self, root: str) -> None:
        super().__init__(Path(root))

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        if path.endswith("manifest.json"):
            sleep(0.3)
        super().write(path, data)


class Requeues(Hook):
    """Writes down what is saved when it would put the job back into its queue."""

    def __init__(self, checkpoints: str) -> None:
        self.checkpoints = Path(checkpoints)

    def after_run(self, engine: Engine) -> None:
        latest = self.checkpoints / "latest"
        (self.checkpoints.parent / "seen").write_text(latest.read_text() if latest.exists() else "nothing")


def test_hooks_hear_of_an_end_once_the_last_checkpoint_is_durable(tmp_path: Path) -> None:
    place = tmp_path / "checkpoints"
    files = Files(checkpoints="slow/run", mounts={"slow/": spec(SlowFiles)(str(place))})
    run = msgspec.structs.replace(small_run(1, requeues=spec(Requeues)(f"{place}/run")), files=files)
    train(run, tmp_path / "work")
    assert (place / "seen").read_text() == (place / "run" / "latest").read_text()


class Remembers(Hook):
    """Holds a tensor of the state that a run goes on from, as long as somebody else does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensor: weakref.ref[Tensor] | None = None

    def after_load_checkpoint(self, engine: Engine, checkpoint: dict[str, object]) -> None:
        model = checkpoint["model"]
        assert isinstance(model, dict)
        self.tensor = weakref.ref(model["weight"])

    def after_train_epoch(self, engine: Engine) -> None:
        if self.tensor is not None:
            gc.collect()
            self.path.write_text("released" if self.tensor() is None else "kept")


def test_a_resumed_run_does_not_keep_the_state_that_it_was_given(tmp_path: Path) -> None:
    train(small_run(1), tmp_path)
    train(small_run(2, remembers=spec(Remembers)(tmp_path / "seen")), tmp_path, resume="latest")
    assert (tmp_path / "seen").read_text() == "released"


@pytest.mark.parametrize(
    ("hook", "where"),
    [
        (spec(CheckpointHook)(save_best="auto"), "hooks.looks.save_best: save_best looks"),
        (spec(BestHook)("val/loss", "min"), "hooks.looks: BestHook looks"),
        (spec(EarlyStoppingHook)("val/loss", "min"), "hooks.looks: EarlyStoppingHook looks"),
    ],
)
def test_what_looks_at_a_metric_needs_a_validation(tmp_path: Path, hook: Spec[Hook], where: str) -> None:
    run = msgspec.structs.replace(small_run(1, looks=hook), val=None)
    with pytest.raises(ConfigError, match=f"{where} at a metric, and nothing is validated"):
        train(run, tmp_path)
