"""When checkpoints are taken, which stay, and which are published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from treenail.adapters.averaging import exponential_average
from treenail.adapters.checkpoint import CheckpointStore, RankCheckpointer, publish
from treenail.adapters.comm import SingleProcess, run_threads
from treenail.adapters.files import LocalFiles
from treenail.adapters.hooks import BestHook, CheckpointHook
from treenail.adapters.hooks.best import mode_of
from treenail.adapters.hooks.compat.checkpoint import CheckpointHook as MmengineHook
from treenail.kernel import CheckpointError, Communicator, Engine, EngineError, StateError, Stateful, TrainingError


class Requests:
    """A checkpointer that writes down what is asked of it."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.pointers: dict[int, tuple[str, ...]] = {}

    def save(
        self, checkpoint: Mapping[str, object], *, step: int, epoch: int, reason: str, pointers: Sequence[str]
    ) -> str:
        self.steps.append(step)
        self.pointers[step] = tuple(dict.fromkeys((*self.pointers.get(step, ()), *pointers)))
        return "here"


class Epochs:
    """A loop of epochs of two steps, with a validation of given results after each."""

    def __init__(self, results: Sequence[dict[str, float]], stop_after: int | None = None) -> None:
        self.results, self.stop_after = results, stop_after

    def run(self, engine: Engine) -> None:
        points = engine.points
        if fire := points.before_train:
            fire(engine)
        for metrics in self.results[engine.epoch :]:
            for index in range(2):
                if after := points.after_train_iter:
                    after(engine, index, None, None)
                engine.commit(steps=1)
            if end := points.after_train_epoch:
                end(engine)
            if metrics and (tell := points.after_val_epoch):
                tell(engine, metrics)
            engine.commit(epochs=1)
            if engine.epoch == self.stop_after:
                engine.request_stop("test")
                break
        if fire := points.after_train:
            fire(engine)
        engine.commit()

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None: ...


def test_metrics_whose_pointers_would_be_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cannot share a pointer.*'val/a b/loss': best-a-b-loss"):
        BestHook(("val/a b/loss", "val/a-b/loss"), None)


def requested(hook: CheckpointHook, epochs: int = 6, stop_after: int | None = None) -> list[int]:
    requests = Requests()
    engine = Engine(checkpointer=requests)
    engine.attach(hook, "checkpoint")
    engine.run(Epochs([{}] * epochs, stop_after))
    return requests.steps


def test_checkpoints_are_taken_by_epoch_or_step_from_a_beginning_on() -> None:
    assert requested(CheckpointHook(2)) == [4, 8, 12, 12]
    assert requested(CheckpointHook(2, begin=3)) == [6, 10, 12]
    assert requested(CheckpointHook(5, "step")) == [5, 10, 12]
    assert requested(CheckpointHook(5, "step", begin=4, save_last=False)) == [4, 9]
    assert requested(CheckpointHook(None)) == [12]
    assert requested(CheckpointHook(None, save_last=False)) == []
    assert requested(CheckpointHook(None, save_last=False), stop_after=2) == [4], "a stopped run was not saved"


def test_mmengines_arguments_mean_the_same_here() -> None:
    assert requested(MmengineHook(2)) == [4, 8, 12, 12]
    assert requested(MmengineHook()) == [12]
    assert requested(MmengineHook(5, by_epoch=False, save_begin=4, save_last=False)) == [4, 9]
    hook = MmengineHook(
        save_best=("val/FID", "val/IS"), rule=("less", "greater"), published_keys=("meta", "state_dict")
    )
    assert hook.published == ("last", "best")
    for wrong, message in (
        ({"save_optimizer": False}, "holds the whole state"),
        ({"out_dir": "elsewhere"}, r"files\.checkpoints"),
        ({"filename_tmpl": "{}.pth"}, "leave it out"),
        ({"interval": 0}, "must be -1, or at least 1"),
        ({"published_keys": "optimizer"}, "'state_dict'"),
    ):
        with pytest.raises(ValueError, match=message):
            MmengineHook(**wrong)


def test_mmengines_hook_says_how_many_stay(tmp_path: Path) -> None:
    for count, left in ((2, 2), (-1, 5)):
        store = CheckpointStore(LocalFiles(tmp_path / str(count)), keep_last=3)
        engine = Engine(checkpointer=RankCheckpointer(store, SingleProcess()))
        engine.attach(MmengineHook(1, max_keep_ckpts=count, save_last=False), "checkpoint")
        engine.run(Epochs([{}] * 5))
        assert len(list(store.manifests())) == left


def seconds_on_a_rank(ranks: Communicator) -> list[int]:
    """Return at which steps this rank of several asks; each takes another time for a step."""
    hook, engine = CheckpointHook(1, "second", communicator=ranks), Engine(checkpointer=Requests())
    hook.before_train(engine)
    asked = []
    for step in range(24):
        Event().wait(0.05 * (1 + ranks.rank))
        hook.after_train_iter(engine, 0, None, None)
        before = len(requests_of(engine))
        engine.commit(steps=1)
        if len(requests_of(engine)) > before:
            asked.append(step)
    return asked


def requests_of(engine: Engine) -> list[int]:
    assert isinstance(engine.checkpointer, Requests)
    return engine.checkpointer.steps


def test_ranks_that_count_seconds_ask_at_the_same_steps() -> None:
    first, second = run_threads(2, seconds_on_a_rank)
    assert first == second
    assert first, "the time never came"


RESULTS = [
    {"val/loss": loss, "val/accuracy": accuracy} for loss, accuracy in ((3.0, 0.1), (2.0, 0.5), (2.5, 0.7), (1.0, 0.6))
]


def pointers(hook: CheckpointHook | BestHook, results: Sequence[dict[str, float]] = RESULTS) -> dict[int, set[str]]:
    requests = Requests()
    engine = Engine(checkpointer=requests)
    engine.attach(hook, "checkpoint" if isinstance(hook, CheckpointHook) else "best")
    engine.run(Epochs(results))
    return {step: set(names) - {"latest"} for step, names in requests.pointers.items() if set(names) != {"latest"}}


def test_the_best_has_a_pointer_by_the_rule_that_its_name_says() -> None:
    best = {"best"}
    assert pointers(CheckpointHook(None, save_best="auto")) == {2: best, 4: best, 8: best}
    assert pointers(CheckpointHook(None, save_best="accuracy")) == {2: best, 4: best, 6: best}
    assert pointers(CheckpointHook(None, save_best="accuracy", rule="less")) == {2: best}
    assert pointers(BestHook("val/accuracy")) == {2: best, 4: best, 6: best}
    assert pointers(BestHook("val/loss", mode="min")) == {2: best, 4: best, 8: best}
    odd = [{"val/oddity": value} for value in (1.0, 2.0)]
    assert pointers(CheckpointHook(None, save_best="oddity", greater_keys=("odd",)), odd) == {2: best, 4: best}


def test_several_metrics_have_a_pointer_each() -> None:
    found = pointers(CheckpointHook(None, save_best=("val/accuracy", "val/loss")))
    assert found == {
        2: {"best", "best-accuracy", "best-loss"},
        4: {"best", "best-accuracy", "best-loss"},
        6: {"best", "best-accuracy"},
        8: {"best-loss"},
    }


def test_the_best_k_stay(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path), keep_last=1)
    engine = Engine(checkpointer=RankCheckpointer(store, SingleProcess()))
    engine.attach(CheckpointHook(None, save_best="score", keep_best=2, save_last=False), "checkpoint")
    engine.run(Epochs([{"val/score": score} for score in (5.0, 1.0, 7.0, 6.0, 2.0)]))
    kept = store.pointers()
    assert kept["best"] == "step-00000006"
    assert {kept["best.1"], kept["best.2"]} == {"step-00000006", "step-00000008"}
    assert {directory for directory, _ in store.manifests()} == {"step-00000006", "step-00000008"}


def test_the_first_of_every_so_many_steps_stays_for_ever(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path), keep_last=1, keep_every=5)
    engine = Engine(checkpointer=RankCheckpointer(store, SingleProcess()))
    engine.attach(CheckpointHook(1), "checkpoint")
    engine.run(Epochs([{}] * 8))
    assert sorted(manifest.step for _, manifest in store.manifests()) == [6, 10, 16]


def test_the_best_goes_on_after_a_resume() -> None:
    def hook() -> CheckpointHook:
        return CheckpointHook(None, save_best="accuracy", keep_best=2)

    engine = Engine(checkpointer=Requests())
    engine.attach(hook(), "checkpoint")
    engine.run(Epochs(RESULTS[:3]))
    state = engine.state_dict()
    requests = Requests()
    again = Engine(checkpointer=requests)
    again.attach(hook(), "checkpoint")
    again.run(Epochs(RESULTS), resume=state)
    best = again.hooks["best"]
    assert isinstance(best, BestHook)
    assert (best.metric, best.best, best.step) == ("accuracy", 0.7, 6)
    assert requests.pointers[8] == ("latest", "best.2"), "the worst of the two best has another place"
    other = BestHook("val/loss", mode="min")
    with pytest.raises(StateError, match="are of accuracy, not of val/loss"):
        other.load_state_dict(best.state_dict())
    with pytest.raises(StateError, match="was the max, and is the min now"):
        BestHook("accuracy", mode="min").load_state_dict(best.state_dict())


def test_a_metric_that_is_missing_or_says_nothing_is_refused_with_what_there_is() -> None:
    with pytest.raises(TrainingError, match=r"metric 'val/accurcy', which .* did you mean 'val/accuracy'"):
        pointers(CheckpointHook(None, save_best="val/accurcy", rule="greater"))
    with pytest.raises(TrainingError, match=r"metric 'nothing', which .* there are val/loss, val/accuracy"):
        pointers(CheckpointHook(None, save_best="nothing", rule="greater"))
    with pytest.raises(TrainingError, match="'val/oddity' does not say whether"):
        pointers(CheckpointHook(None, save_best="auto"), [{"val/oddity": 1.0}])
    with pytest.raises(ValueError, match="'oddity' does not say whether a larger value is better"):
        CheckpointHook(save_best="oddity")
    with pytest.raises(ValueError, match="rule is of save_best, and there is none"):
        CheckpointHook(rule="less")
    with pytest.raises(ValueError, match="2 metrics and 1 modes"):
        BestHook(("a", "b"), ("max",))
    engine = Engine(checkpointer=Requests())
    engine.attach(BestHook("val/loss", mode="min"), "best")
    engine.attach(CheckpointHook(save_best="accuracy"), "checkpoint")
    with pytest.raises(EngineError, match="save_best and a hook 'best' of its own"):
        engine.run(Epochs(RESULTS))


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *(("val/accuracy", "max"), ("top-1", "max"), ("bbox_mAP", "max"), ("AR@100", "max"), ("val/loss", "min")),
        *(("val/mae", "min"), ("rmse", "min"), ("mape", "min"), ("perplexity", "min"), ("oddity", None)),
    ],
)
def test_names_of_metrics_say_what_is_better(name: str, mode: Literal["max", "min"] | None) -> None:
    assert mode_of(name) == mode


def test_published_weights_are_one_file_named_by_its_digest(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = nn.Linear(3, 2)
    averages = exponential_average(model, momentum=0.5)
    averages.update(1)
    with torch.no_grad():
        model.weight += 1  # which the averages have not taken part of
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made: list[tuple[dict[str, Stateful], str]] = [
        ({"model": model}, "plain"),
        ({"model": model, "averages": averages}, "averaged"),
    ]
    for parts, name in made:
        store = CheckpointStore(LocalFiles(tmp_path / name))
        engine = Engine(parts, checkpointer=RankCheckpointer(store, SingleProcess(), asynchronous=True))
        engine.attach(CheckpointHook(1, save_best="accuracy", published=("last", "best")), "checkpoint")
        engine.run(Epochs(RESULTS[:1]))
        for path in (tmp_path / name / "published").iterdir():
            assert sha256(path.read_bytes()).hexdigest()[:8] == path.stem.rpartition("-")[2]
            found = load_file(path)
            assert found.keys() == expected.keys()
            assert torch.equal(found["weight"], expected["weight"]) == (name == "plain")
        published = {path.stem.rpartition("-")[0] for path in (tmp_path / name / "published").iterdir()}
        assert published == set(store.pointers().values())
        assert set(store.pointers()) == {"latest", "best"}
    with pytest.raises(CheckpointError, match="there is no checkpoint 'bset'"):
        publish(RankCheckpointer(store, SingleProcess()), "bset")


def fail_on_rank_0(ranks: Communicator, root: Path) -> list[str]:
    """Save in the background to a place that is no directory; return what this rank is told."""
    told: list[Exception] = []
    store = CheckpointStore(LocalFiles(root / "file"), world_size=2)
    checkpointer = RankCheckpointer(store, ranks, asynchronous=True, on_failure=told.append)
    save = {"step": 1, "epoch": 0, "reason": "test", "pointers": ["latest"]}
    checkpointer.save({"model": {"weight": torch.ones(2)}}, **save)  # type: ignore[arg-type]  # of several types
    checkpointer.settle()
    good = RankCheckpointer(CheckpointStore(LocalFiles(root / "good"), world_size=2), ranks, asynchronous=True)
    with good.flushed():
        good.save({"model": {"weight": torch.ones(2)}}, **save)  # type: ignore[arg-type]  # as above
    return [type(error).__name__ for error in told[-1:]]


def test_a_failure_on_rank_0_is_told_on_every_rank(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    assert run_threads(2, fail_on_rank_0, tmp_path) == [["CheckpointError"]] * 2
    assert CheckpointStore(LocalFiles(tmp_path / "good")).load()[0].world_size == 2


@pytest.mark.parametrize("content", [b"", b"step-0000", b"\xff\xfe"])
def test_a_damaged_pointer_loses_nothing_and_is_mended(tmp_path: Path, content: bytes) -> None:
    files = LocalFiles(tmp_path)
    store = CheckpointStore(files, keep_last=1)
    for step in range(1, 5):
        pointers = ["latest", "best"] if step == 2 else ["latest"]
        if step == 4:
            files.write("best", content)
            with pytest.warns(
                UserWarning, match="the pointer 'best' .* was damaged; it leads to 'step-00000002' again"
            ):
                store.save({"engine": {}}, step=step, epoch=0, reason="", pointers=pointers)
        else:
            store.save({"engine": {}}, step=step, epoch=0, reason="", pointers=pointers)
    assert store.pointers() == {"best": "step-00000002", "latest": "step-00000004"}
    (tmp_path / "best").unlink()  # on purpose
    store.save({"engine": {}}, step=5, epoch=0, reason="", pointers=["latest"])
    assert store.pointers() == {"latest": "step-00000005"}
