"""mmengine's hooks in whole runs: their place among the default hooks, and a resume with them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from tests.hooks.small_runs import small_run
from tests.hooks.test_compat_runs import Stops
from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.comm import run_threads
from treenail.adapters.files import LocalFiles
from treenail.adapters.hooks import ProgressHook
from treenail.adapters.hooks.compat import IterTimerHook, LoggerHook, ParamSchedulerHook, RuntimeInfoHook
from treenail.adapters.runtime import assemble, train
from treenail.adapters.runtime.default_hooks import default_hooks
from treenail.contracts import Run
from treenail.kernel import Communicator, ConfigError, Engine, Hook, Spec, spec


def order(run: Run, work_dir: Path) -> tuple[list[str], list[str]]:
    """Return the names of a run's hooks as they are attached, and as they run."""
    hooks = default_hooks(run, assemble(run, work_dir), work_dir)
    engine = Engine()
    for name, hook in hooks.items():
        engine.attach(hook, name)
    return list(hooks), list(engine.hooks)


def test_a_default_that_is_replaced_keeps_its_place_and_one_that_is_null_is_gone(tmp_path: Path) -> None:
    attached, running = order(small_run(), tmp_path)
    replaced = order(
        small_run(logger=spec(LoggerHook)(), schedule=spec(ParamSchedulerHook)(), timer=spec(IterTimerHook)()), tmp_path
    )
    assert replaced[0] == attached, "as many, in the same places"
    assert [name for name in replaced[1] if name != "timer"] == [name for name in running if name != "timer"]
    assert order(small_run(logger=None), tmp_path)[0] == [name for name in attached if name != "logger"]
    more, run_more = order(small_run(runtime_info=spec(RuntimeInfoHook)()), tmp_path)
    assert set(more) - set(attached) == {"runtime_info"}
    assert run_more.index("runtime_info") < run_more.index("logger")


def test_a_hub_may_join_a_run_that_is_resumed(tmp_path: Path) -> None:
    train(small_run(stops=spec(Stops)(3)), tmp_path)
    train(small_run(logger=spec(LoggerHook)(2)), tmp_path, resume="latest")
    hooks = final(tmp_path)["hooks"]
    assert isinstance(hooks, dict)
    assert len(hooks["runtime_info"]["log_scalars"]["train/loss"]["log_history"]) == 5


def final(work_dir: Path) -> dict[str, object]:
    return CheckpointStore(LocalFiles(work_dir / "checkpoints")).load()[1]


@pytest.mark.parametrize("stop", [3, 4, 7])
def test_a_resumed_run_has_the_weights_and_the_histories_of_one_that_was_never_stopped(
    tmp_path: Path, stop: int
) -> None:
    hooks: dict[str, Spec[Hook] | None] = {
        "logger": spec(LoggerHook)(2),
        "info": spec(RuntimeInfoHook)(),
        "schedule": spec(ParamSchedulerHook)(),
    }
    train(small_run(2, **hooks), tmp_path / "whole")
    train(small_run(2, **hooks, stops=spec(Stops)(stop)), tmp_path / "parts")
    summary = train(small_run(2, **hooks), tmp_path / "parts", resume="latest", allow_changes=True)
    assert summary.step == 8
    states = [final(tmp_path / name) for name in ("whole", "parts")]
    for name in ("weight", "bias"):
        first, second = (state["model"][name] for state in states)  # type: ignore[index]  # it is a mapping of tensors
        assert torch.equal(first, second)
    scalars = [state["hooks"]["info"]["log_scalars"] for state in states]  # type: ignore[index]  # as above
    for name in ("train/loss", "train/lr", "val/loss"):
        first, second = (each[name]["log_history"] for each in scalars)
        assert torch.equal(first, second), name
        assert len(first) == (2 if name == "val/loss" else 8)


def test_a_config_changes_priorities_of_hooks(tmp_path: Path) -> None:
    _, usual = order(small_run(), tmp_path)
    assert usual.index("timer") < usual.index("checkpoint")
    _, changed = order(msgspec.structs.replace(small_run(), priorities={"checkpoint": -1}), tmp_path)
    assert changed[0] == "checkpoint"
    named = msgspec.structs.replace(small_run(), priorities={"timer": "LOWEST", "checkpoint": "HIGH"})
    _, changed = order(named, tmp_path)
    assert changed.index("checkpoint") < changed.index("logger") < changed.index("timer") == len(changed) - 1
    misspelt = msgspec.structs.replace(small_run(), priorities={"chekpoint": 5})
    with pytest.raises(
        ConfigError, match=r"priorities.chekpoint: there is no hook 'chekpoint'; did you mean 'checkpoint'"
    ):
        order(misspelt, tmp_path)


def test_a_priority_of_a_hook_that_only_rank_0_has_is_right_on_all_ranks(tmp_path: Path) -> None:
    run = msgspec.structs.replace(small_run(progress=spec(ProgressHook)()), priorities={"progress": 3})
    assembly = assemble(run, tmp_path)

    def priority(ranks: Communicator) -> object:
        return getattr(default_hooks(run, assembly, tmp_path, ranks).get("progress"), "priority", None)

    assert run_threads(2, priority) == [3, None]
