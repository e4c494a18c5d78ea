"""What the parts of a run demand of each other, and components that share what comes later."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ChainedScheduler, SequentialLR

from treenail.adapters.config import Catalog, InvalidConfigError, load_run, recorded
from treenail.contracts import Run
from treenail.kernel import Late, Spec
from treenail.kernel.spec import AWAITED

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog()


def load(catalog: Catalog, *overrides: str) -> Run:
    return load_run(DIGITS, overrides, catalog)


def scheduled(schedule: str) -> str:
    return f"schedules=[{schedule}]"


NULL = "null removes an entry of"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["hooks.loger=null"], f"hooks.loger: {NULL} 'hooks', but there is no 'loger'; did you mean 'logger'?"),
        (["hooks.bset=null"], f"hooks.bset: {NULL} 'hooks', but there is no 'bset'; did you mean 'best'?"),
        (["vis.tensorbord=null"], f"vis.tensorbord: {NULL} 'vis', but there is no 'tensorbord'; did you mean"),
        (["vis.logger=null"], f"vis.logger: {NULL} 'vis', but there is no 'logger'; there are jsonlines, tensorboard"),
        (
            ["+deterministic=warn", "+cudnn_benchmark=true"],
            "cudnn_benchmark: what cuDNN finds fastest may give other bits each time",
        ),
        (["val=null"], "hooks.best.metric: there is no 'val' to give the metric 'val/accuracy'"),
        (
            ["val=null", "hooks.best=null", scheduled("{scheduler: {type: ReduceLROnPlateau}, metric: val/loss}")],
            "schedules[0].metric: there is no 'val' to give the metric 'val/loss'",
        ),
        (
            [scheduled("{scheduler: {type: StepLR, step_size: 1}, metric: val/loss}")],
            "schedules[0].metric: StepLR steps without a metric; leave 'metric' out, or take ReduceLROnPlateau",
        ),
        (
            [scheduled("{scheduler: {type: ReduceLROnPlateau}}")],
            "schedules[0]: ReduceLROnPlateau steps on a metric; write metric: val/loss",
        ),
        (
            [scheduled("{scheduler: {type: ReduceLROnPlateau}, metric: val/loss, every: step}")],
            "schedules[0].every: a schedule with a metric steps after each validation; leave 'every' out",
        ),
        (
            [scheduled("{scheduler: {type: cosine, end: 3}, every: step}")],
            "schedules[0].every: the lengths of Cosine count each epoch, as its by_epoch says; leave 'every' out",
        ),
        (
            [scheduled("{scheduler: {type: cosine, end: 3, convert_to_iter_based: true}, every: epoch}")],
            "schedules[0].every: the lengths of Cosine count each step, as its by_epoch says; leave 'every' out",
        ),
        (
            ["val=null", "hooks.best=null", scheduled("{scheduler: {type: ReduceOnPlateauLR, monitor: accuracy}}")],
            "schedules[0]: there is no 'val' to give ReduceOnPlateauLR the metric 'accuracy'",
        ),
        (
            [scheduled("{scheduler: {type: ReduceLROnPlateau}, metric: loss}")],
            "schedules[0].metric: 'loss' is no metric of a validation: write val/loss",
        ),
        (
            ["hooks.best.metric=test/accuracy"],
            "hooks.best.metric: 'test/accuracy' is no metric of a validation: write val/accuracy",
        ),
        (
            ["train.sampler={type: random}", "train.batch_sampler={type: bucket, lengths: labels}"],
            "train.sampler: a batch sampler takes no sampler; leave out one of them",
        ),
    ],
)
def test_parts_that_cannot_work_together_are_a_mistake(catalog: Catalog, overrides: list[str], message: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        load(catalog, *overrides)
    assert len(caught.value.mistakes) == 1
    assert message in str(caught.value)


def test_mistakes_between_parts_are_reported_together_with_others(catalog: Catalog) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        load(catalog, "hooks.loger=null", "seed=-1", "val=null")
    assert len(caught.value.mistakes) == 3


def test_defaults_and_entries_of_the_file_can_be_removed(catalog: Catalog) -> None:
    names = ["timer", "logger", "progress", "schedule", "checkpoint", "vis", "best"]
    run = load(
        catalog, *(f"hooks.{name}=null" for name in names), "vis.jsonlines=null", "vis.tensorboard=null", "val=null"
    )
    assert set(run.hooks.values()) == {None}
    load(catalog, scheduled("{scheduler: {type: ReduceLROnPlateau}, metric: val/loss}"))


def optimizer() -> torch.optim.SGD:
    return torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=1.0)


def test_schedulers_nested_in_sequential_lr_get_the_optimizer(catalog: Catalog) -> None:
    text = "{type: SequentialLR, schedulers: [{type: LinearLR}, {type: CosineAnnealingLR, T_max: 5}], milestones: [3]}"
    run = load(catalog, scheduled(f"{{scheduler: {text}}}"))
    for _ in range(2):  # each build gives its own optimizer
        first = optimizer()
        built = run.schedules[0].scheduler.build(first)
        assert isinstance(built, SequentialLR)
        assert [type(each).__name__ for each in built._schedulers] == ["LinearLR", "CosineAnnealingLR"]
        assert all(each.optimizer is first for each in [built, *built._schedulers])


def test_schedulers_nested_in_chained_scheduler_get_the_optimizer(catalog: Catalog) -> None:
    inner = "{type: ChainedScheduler, schedulers: [{type: ExponentialLR, gamma: 0.5}]}"
    text = f"{{type: ChainedScheduler, schedulers: [{{type: LinearLR}}, {inner}]}}"
    run = load(catalog, scheduled(f"{{scheduler: {text}}}"))
    first = optimizer()
    built = run.schedules[0].scheduler.build(first)
    assert isinstance(built, ChainedScheduler)
    linear, chained = built._schedulers
    assert all(each.optimizer is first for each in (built, linear, chained, chained._schedulers[0]))  # type: ignore[attr-defined]
    description = recorded(run)["schedules"][0]["scheduler"]  # type: ignore[index]  # plain data, known here
    assert "optimizer" not in description
    assert description["schedulers"][0] == {"type": "torch.optim.lr_scheduler:LinearLR"}


def test_a_mistake_in_a_nested_scheduler_names_its_place(catalog: Catalog) -> None:
    text = "{type: SequentialLR, schedulers: [{type: LinearLR, factor: 1}, {type: StepLR}], milestones: [3]}"
    with pytest.raises(InvalidConfigError) as caught:
        load(catalog, scheduled(f"{{scheduler: {text}}}"))
    assert [each.path for each in caught.value.mistakes] == [
        f"schedules[0].scheduler.schedulers[{place}" for place in ("0].factor", "1]")
    ]
    with pytest.raises(InvalidConfigError, match="StepLR needs 'step_size', which is missing"):
        load(catalog, scheduled("{scheduler: {type: ChainedScheduler, schedulers: [{type: StepLR}]}}"))


def test_a_late_component_fills_its_value_in_where_it_is_awaited() -> None:
    inner: Spec[object] = Spec(dict, kwargs={"c": (AWAITED, 1)})
    described: Late[int, object] = Late(dict, kwargs={"a": AWAITED, "b": [inner]})
    kept: Late[int, object] = Late(dict, kwargs={"a": AWAITED})
    outer: Late[int, object] = Late(dict, kwargs={"inner": kept})
    assert described.build(3) == {"a": 3, "b": [{"c": (3, 1)}]}
    assert outer.build(3) == {"inner": kept}
    assert pickle.loads(pickle.dumps(AWAITED)) is AWAITED
    assert copy.deepcopy(AWAITED) is AWAITED


@pytest.mark.parametrize("kind", ["StepLR, step_size: 1", "ChainedScheduler, schedulers: [{type: LinearLR}]"])
def test_what_comes_from_the_run_is_not_written(catalog: Catalog, kind: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        load(catalog, scheduled(f"{{scheduler: {{type: {kind}, optimizer: {{type: SGD}}}}}}"))
    (mistake,) = caught.value.mistakes
    assert mistake.path == "schedules[0].scheduler.optimizer"
    assert mistake.message == "'optimizer' comes from the run; leave it out"


def test_data_that_can_only_be_iterated_are_refused_with_what_takes_them(catalog: Catalog) -> None:
    stream = "train.dataset={type: 'torch.utils.data:IterableDataset'}"
    with pytest.raises(InvalidConfigError, match=r"is a class, not a dataset; .* by StreamedBatches: see how-to/loops"):
        load(catalog, "imports=[torch]", stream)
