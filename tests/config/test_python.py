"""Configs in Python: the objects that the file made are the ones that train, whatever an override touches beside them."""

import functools
from pathlib import Path

import pytest
from torch import nn

from treenail.adapters.config import Catalog, InvalidConfigError, load_run, recorded
from treenail.contracts import Run
from treenail.kernel import ConfigError, Late

HEAD = """
import functools
from pathlib import Path
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR
from treenail.adapters.data import Digits
from treenail.adapters.evaluation import Accuracy
from treenail.adapters.hooks import BestHook
from treenail.adapters.loops import EpochLoop
from treenail.contracts import Data, Evaluation, Run, Schedule
from treenail.kernel import Spec, late, partial, spec

class Net(nn.Module):
    def __init__(self, size=None, table=None, layers=(), *blocks, **options):
        super().__init__()
        self.size, self.table, self.layers, self.blocks, self.options = size, table, layers, blocks, options

def run_of(model=None, **changes):
    return Run(**{
        "model": model or spec(nn.Linear)(64, 10),
        "loss": partial(cross_entropy)(),
        "optimizer": late(SGD)(lr=0.1),
        "train": Data(dataset=spec(Digits)(split="train"), batch_size=64),
        "loop": late(EpochLoop)(max_epochs=1),
    } | changes)
"""


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog()


def load(tmp_path: Path, catalog: Catalog, text: str, *overrides: str) -> Run:
    path = tmp_path / "config.py"
    path.write_text(HEAD + text)
    return load_run(path, overrides, catalog)


def mistakes(tmp_path: Path, catalog: Catalog, text: str, *overrides: str) -> list[str]:
    with pytest.raises(InvalidConfigError) as caught:
        load(tmp_path, catalog, text, *overrides)
    return [f"{mistake.path}: {mistake.message}" for mistake in caught.value.mistakes]


OVERRIDES = pytest.mark.parametrize("overrides", [(), ("train.batch_size=32",), ("model.args.1.size=4",)], ids=repr)


@OVERRIDES
def test_callables_of_one_name_are_not_confused(tmp_path: Path, catalog: Catalog, overrides: tuple[str, ...]) -> None:
    run = load(
        tmp_path,
        catalog,
        """
def make(n):
    class Local(Net):
        number = n
    return Local

class Base(Net):
    @classmethod
    def made(cls):
        return cls()

class Other(Base): pass

run = run_of(spec(nn.Sequential)(
    spec(make(1))(), spec(make(2))(), spec(Base.made)(), spec(Other.made)(), spec(lambda: make(3)())(), spec(lambda: make(4)())(),
))
""",
        *overrides,
    )
    layers = list(run.model.build().children())
    assert [getattr(layers[index], "number", None) for index in (0, 1, 4, 5)] == [1, 2, 3, 4]
    assert [type(layers[index]).__name__ for index in (2, 3)] == ["Base", "Other"]
    assert layers[1].size == (4 if "model.args.1.size=4" in overrides else None)


def test_without_overrides_the_run_of_the_file_is_used_itself(tmp_path: Path, catalog: Catalog) -> None:
    run = load(tmp_path, catalog, "run = run_of()\nrun.model.target.run = run")
    try:
        assert vars(run.model.target)["run"] is run
    finally:
        del nn.Linear.run  # type: ignore[attr-defined]  # the config put it there


@pytest.mark.parametrize("overrides", [(), ("seed=3",), ("+model.kept=1",)], ids=repr)
def test_arguments_keep_their_values(tmp_path: Path, catalog: Catalog, overrides: tuple[str, ...]) -> None:
    text = """
size, table = (1, 2), {"type": "relu", "n": 1, 3: (4,)}
Net.given = (size, table)
run = run_of(spec(Net)(size, table, [(1, 2)], (3, 4), option=(5, 6)))
"""
    model = load(tmp_path, catalog, text, *overrides).model
    built = vars(model.build())
    assert (built["size"], built["table"]) == ((1, 2), {"type": "relu", "n": 1, 3: (4,)})
    assert (built["layers"], built["blocks"], built["options"]["option"]) == ([(1, 2)], ((3, 4),), (5, 6))
    given = vars(model.target)["given"]
    arguments = [*model.args, *model.kwargs.values()]
    assert any(each is given[0] for each in arguments)
    assert any(each is given[1] for each in arguments)


def test_an_override_leads_through_a_plain_mapping_and_a_tuple(tmp_path: Path, catalog: Catalog) -> None:
    text = """
table = {"type": "relu", "sizes": (1, 2), "path": Path("here"), 3: 4}
Net.given = table
run = run_of(spec(Net)(table=table))
"""
    changes = ("model.table.type=gelu", "model.table.sizes.1=5", "model.table.3=5", "+model.table.new=[1]")
    model = load(tmp_path, catalog, text, *changes).model
    expected = {"type": "gelu", "sizes": (1, 5), "path": Path("here"), 3: 5, "new": [1]}
    assert vars(model.build())["table"] == expected
    assert vars(model.target)["given"]["type"] == "relu"


def test_an_override_cannot_lead_through_an_opaque_value(tmp_path: Path, catalog: Catalog) -> None:
    (message,) = mistakes(tmp_path, catalog, "run = run_of(spec(Net)(size=Path('x')))", "model.size.name=y")
    assert "'model.size' is neither a mapping nor a list" in message


def test_an_override_replaces_a_component_or_its_type(tmp_path: Path, catalog: Catalog) -> None:
    text = "run = run_of(spec(nn.Sequential)(spec(nn.Linear)(64, 10), spec(nn.ReLU)()))"
    overrides = ("model.args.1={type: Dropout, p: 0.5}", "model.args.1.p=0.25", "model.args.0.bias=false")
    run = load(tmp_path, catalog, text, *overrides, "optimizer.type=Adam", "loss.label_smoothing=0.1")
    linear, dropout = run.model.build().children()
    assert isinstance(dropout, nn.Dropout)
    assert dropout.p == 0.25
    assert [name for name, _ in linear.named_parameters()] == ["weight"]
    assert isinstance(run.optimizer, Late)
    assert (run.optimizer.target.__name__, run.optimizer.kwargs) == ("Adam", {"lr": 0.1})
    assert run.loss is not None
    loss = run.loss.build()
    assert isinstance(loss, functools.partial)
    assert loss.keywords == {"label_smoothing": 0.1}


def test_a_function_that_makes_the_loss_is_called_not_completed(tmp_path: Path, catalog: Catalog) -> None:
    text = """
def make_loss(smoothing, other=0):
    return functools.partial(cross_entropy, label_smoothing=smoothing)
run = run_of(loss=spec(make_loss)(0.5))
"""
    for overrides in ((), ("loss.other=1",)):
        made = load(tmp_path, catalog, text, *overrides).loss
        assert made is not None
        loss = made.build()
        assert isinstance(loss, functools.partial)
        assert loss.keywords == {"label_smoothing": 0.5}


def test_an_argument_named_type_is_kept(tmp_path: Path, catalog: Catalog) -> None:
    text = "def make(type, size=1):\n    return Net(size, type)\nrun = run_of(spec(make)('relu'))"
    built = vars(load(tmp_path, catalog, text, "model.size=2").model.build())
    assert (built["size"], built["table"]) == (2, "relu")


def test_any_partial_can_be_described(tmp_path: Path, catalog: Catalog) -> None:
    text = "def one(x): pass\nrun = run_of(loss=spec(functools.partial)(one, 3, **{}))"
    run = load(tmp_path, catalog, text, "seed=1")
    assert recorded(run)["loss"]["args"][1] == 3  # type: ignore[index]  # plain data, known here


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run_of(seed=-1)", "seed: expected 'int' >= 0"),
        (
            "run_of(val=Evaluation(dataset=spec(Digits)(split='val'), batch_size=0))",
            "val.batch_size: expected 'int' >= 1",
        ),
        ("run_of(loss=late(SGD)(lr=1))", "loss: expected a Spec or null, got Late(torch.optim.sgd:SGD(…, lr=1))"),
        ("run_of(seed=spec(int)(3))", "seed: expected an int, got Spec("),
        ("run_of(nn.Linear(2, 2))", "model: expected a module as a mapping {type: …}, got Linear"),
        (
            "run_of(hooks={'b': spec(BestHook)(metric='val/loss')})",
            "hooks.b.metric: there is no 'val' to give the metric",
        ),
        ("run_of(hooks={'loger': None})", "did you mean 'logger'?"),
        (
            "run_of(schedules=(Schedule(scheduler=late(StepLR)(step_size=1), every='stpe'),))",
            "schedules[0].every: expected",
        ),
    ],
)
@pytest.mark.parametrize("overrides", [(), ("threads=1",)], ids=repr)
def test_the_run_itself_is_checked(
    tmp_path: Path, catalog: Catalog, text: str, message: str, overrides: tuple[str, ...]
) -> None:
    assert any(message in each for each in mistakes(tmp_path, catalog, f"run = {text}", *overrides))


def test_annotations_of_a_config_are_its_own(tmp_path: Path, catalog: Catalog) -> None:
    run = load(tmp_path, catalog, "def make(size: int = 1) -> Net:\n    return Net(size)\nrun = run_of(spec(make)())")
    assert run.model.target.__annotations__["size"] is int


def test_a_failing_own_module_is_one_mistake_among_others_with_its_line(tmp_path: Path, catalog: Catalog) -> None:
    for name, text, kind in (
        ("own_syntax", "x = 1\ndef f(:\n", "SyntaxError"),
        ("own_raise", "\n1 / 0\n", "ZeroDivision"),
    ):
        (tmp_path / f"{name}.py").write_text(text)
        overrides = (f"imports=[{name}]", f"model={{type: {name}:Net}}", "seed=-1")
        found = mistakes(tmp_path, catalog, "run = run_of()", *overrides)
        assert len(found) == 2
        message = next(each for each in found if each.startswith("model.type"))
        assert f"'{name}:Net' cannot be imported: {kind}" in message
        assert f"({tmp_path / name}.py:2)" in message


def test_modules_beside_a_config_can_be_imported_if_it_has_imports(tmp_path: Path, catalog: Catalog) -> None:
    (tmp_path / "own_model.py").write_text("from torch import nn\nclass Own(nn.Identity): pass\n")
    run = load(tmp_path, catalog, "run = run_of(imports=('own_model',))", "model={type: own_model:Own}")
    assert type(run.model.build()).__name__ == "Own"
    with pytest.raises(ConfigError, match="would import the module 'own_model', which is not allowed here"):
        load(tmp_path, catalog, "run = run_of()", "model={type: own_model:Own}")
