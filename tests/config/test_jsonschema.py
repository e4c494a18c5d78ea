"""The JSON Schema of a run, tried with a real validator: it takes what the check takes, and refuses what the check refuses.

What draft 7 cannot say, so that only the check finds it:

- a whole number written as a float where an int is wanted (``seed: 3.0``): to JSON, 3.0 is an integer;
- a name below no prefix of `imports`, which the config itself gives: any ``module:attribute`` is taken;
- what a reference such as ``${env:SEED}`` stands for;
- rules between parts: a null in `hooks` that removes nothing, a metric without `val`, a scheduler's `metric`;
- required parameters of a component under a parameter without annotation; plain names that `_scope_` gives another meaning;
- texts that must be base64, and items of a set that are no plain values;
- a ChainedScheduler whose optimizer is written out: the check then takes its other parameter for the awaited one.
"""

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.config.test_template import sample

from treenail.adapters.config import Catalog, Document, parse_yaml
from treenail.adapters.config.candidates import Candidates, Match
from treenail.adapters.config.check import Checker
from treenail.adapters.config.jsonschema import json_schema
from treenail.adapters.config.load import RUN
from treenail.adapters.config.schema import RecordOf
from treenail.adapters.documents import parse_value
from treenail.contracts import Run
from treenail.kernel import Adapter, RegistryError

CONFIGS = Path(__file__).parents[2] / "configs"
Tree = dict[str, Any]  # a config as YAML holds it: of any types
Key = str | int


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    catalog = Catalog(described=True)
    catalog.derivation.record(Run)
    return catalog


@pytest.fixture(scope="module")
def schema(catalog: Catalog) -> Tree:
    return json_schema(catalog)


@pytest.fixture(scope="module")
def accepts(schema: Tree) -> Callable[[object], bool]:
    validator = jsonschema.Draft7Validator(schema)
    return lambda tree: bool(validator.is_valid(tree))


def config(name: str = "digits.yaml") -> Tree:
    found: Tree = as_json(parse_yaml((CONFIGS / name).read_text(), name).data)
    return found


def as_json(tree: object) -> Any:
    """Return a tree as an editor hands it to a validator: plain, with texts as keys."""
    if isinstance(tree, Mapping):
        return {str(key): as_json(value) for key, value in tree.items()}
    return [as_json(item) for item in tree] if isinstance(tree, list) else tree


def set_in(tree: object, path: str, value: object) -> Tree:
    """Return a copy with one part replaced."""
    return changed(tree, path, lambda node, key: node.__setitem__(key, value))


def without(tree: object, path: str) -> Tree:
    return changed(tree, path, lambda node, key: node.__delitem__(key))


def changed(tree: object, path: str, change: Callable[[Any, Key], None]) -> Tree:
    found: Any = copy.deepcopy(tree)
    node, keys = found, [int(part) if part.isdecimal() else part for part in path.split(".")]
    for key in keys[:-1]:
        node = node[key]
    change(node, keys[-1])
    return found  # type: ignore[no-any-return]  # the copy of a config


def test_the_schema_is_a_schema_of_draft_7(schema: Tree) -> None:
    jsonschema.Draft7Validator.check_schema(schema)


def test_every_reference_leads_to_a_definition_and_every_definition_is_used(schema: Tree) -> None:
    def references(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            yield from [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for item in node:
                yield from references(item)

    assert {each.removeprefix("#/definitions/") for each in references(schema)} == set(schema["definitions"])


def test_the_schema_is_the_same_each_time_and_small_enough_for_an_editor(catalog: Catalog, schema: Tree) -> None:
    text = json.dumps(schema)
    assert json.dumps(json_schema(catalog)) == text
    assert len(text) < 2_000_000


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_config_is_right(accepts: Callable[[object], bool], path: Path) -> None:
    assert accepts(config(path.name))


RIGHT: dict[str, Tree] = {
    "a module of one's own": set_in(config(), "model", {"type": "parts.models:Mlp", "width": 3}),
    "a default hook's options": set_in(config(), "hooks.logger", {"interval": 3}),
    "a default hook removed": set_in(config(), "hooks.timer", None),
    "a section reset": set_in(config(), "hooks._delete_", True),
    "a component replaced": set_in(config(), "optimizer._delete_", True),
    "an alias": set_in(config(), "train.sampler.type", "RandomSampler"),
    "a sampler of mmengine": set_in(config(), "train.sampler.type", "DefaultSampler"),
    "a sampler of helios": set_in(config(), "train.sampler.type", "ResumableDistributedSampler"),
    "a sampler of SCEPTER": set_in(config(), "train.sampler.type", "EvalDistributedSampler"),
    "a package's own name": set_in(config(), "train.sampler.type", "treenail:random"),
    "a scope": set_in(config(), "_scope_", "treenail"),
    "an int for a float": set_in(config(), "optimizer.lr", 1),
    "a variable for an int": set_in(config(), "seed", "${env:SEED:0}"),
    "a variable in braces": set_in(config(), "train.batch_size", "{{ $SIZE:64 }}"),
    "a reference for a component": set_in(config(), "optimizer", "${base:optimizer}"),
    "a reference for a list": set_in(config(), "schedules", "${base:schedules}"),
    "a reference for a truth value": set_in(config(), "train.drop_last", "${env:DROP}"),
    "a name from a variable": set_in(config(), "optimizer.type", "${env:OPTIMIZER:AdamW}"),
    "one base": {"_base_": "digits.yaml", "seed": 3},
    "several bases": {"_base_": ["a.yaml", "b.yaml"], "optimizer": {"lr": 0.1}},
    "a base, and a part of a part": {
        "_base_": "digits.yaml",
        "train": {"batch_size": 8},
        "hooks": {"best": {"mode": "min"}},
    },
    "modules that register": set_in(set_in(config(), "imports", ["parts"]), "custom_imports", ["parts.register"]),
    "modules that may be absent": set_in(
        config(), "custom_imports", {"imports": ["parts"], "allow_failed_imports": True}
    ),
    "a nested component": set_in(config(), "model.args.2", {"type": "Sequential", "args": [{"type": "ReLU"}]}),
    "a scheduler of schedulers": set_in(
        config(),
        "schedules.0.scheduler",
        {"type": "ChainedScheduler", "schedulers": [{"type": "ExponentialLR", "gamma": 0.9}]},
    ),
    "a device with a number": set_in(config(), "model.args.0.device", "cuda:1"),
    "torch's name of a dtype": set_in(config(), "model.args.0.dtype", "torch.float64"),
    "a tuple": set_in(config(), "model.args.0.kernel_size", [3, 5]),
    "no validation": set_in(config(), "val", None),
}


@pytest.mark.parametrize("tree", RIGHT.values(), ids=RIGHT)
def test_what_a_config_may_say_is_accepted(accepts: Callable[[object], bool], tree: Tree) -> None:
    assert accepts(tree)


SLOTS = ("model", "loss", "optimizer", "loop", "train.dataset", "train.sampler", "hooks.best", "vis.jsonlines")
RECORDS = ("train", "val", "test", "schedules.0")
WRONG: dict[str, Tree] = {
    **{f"an unknown key in {path}": set_in(config(), f"{path}.colour", 1) for path in (*SLOTS, *RECORDS)},
    **{f"an unknown name in {path}": set_in(config(), f"{path}.type", "Nonesuch") for path in SLOTS},
    **{f"no type in {path}": without(config(), f"{path}.type") for path in SLOTS},
    **{f"a number for {path}": set_in(config(), path, 3) for path in (*SLOTS, *RECORDS, "hooks", "vis", "schedules")},
    **{f"another kind of component in {path}": set_in(config(), path, {"type": "accuracy"}) for path in SLOTS},
    **{f"no {key}": without(config(), key) for key in ("model", "optimizer", "train", "loop")},
    "no dataset": without(config(), "train.dataset"),
    "no batch size": without(config(), "val.batch_size"),
    "no scheduler": without(config(), "schedules.0.scheduler"),
    "no T_max": without(config(), "schedules.0.scheduler.T_max"),
    "no out_channels": without(config(), "model.args.0.out_channels"),
    "no epochs": without(config(), "loop.max_epochs"),
    "no split": without(config(), "test.dataset.split"),
    "a typo at the top": set_in(without(config(), "seed"), "sed", 0),
    "a typo of lr": set_in(config(), "optimizer.lrr", 0.1),
    "a typo deep down": set_in(config(), "model.args.3.kernel_sise", 3),
    "a typo in a default hook's options": set_in(config(), "hooks.logger", {"intervall": 3}),
    "a default hook's options for another": set_in(config(), "hooks.mine", {"interval": 3}),
    "a typo in an unused default hook": set_in(config(), "hooks.timer", {"type": "timer", "intervall": 3}),
    "another case": set_in(config(), "optimizer.type", "adamw"),
    "a text for lr": set_in(config(), "optimizer.lr", "fast"),
    "a number in quotes": set_in(config(), "train.batch_size", "64"),
    "a truth value for an int": set_in(config(), "train.batch_size", True),
    "a float for an int": set_in(config(), "model.args.0.kernel_size", 2.5),
    "a word for a truth value": set_in(config(), "train.drop_last", "yes"),
    "null for a number": set_in(config(), "seed", None),
    "null for a component": set_in(config(), "optimizer", None),
    "too small a batch": set_in(config(), "train.batch_size", 0),
    "a seed below nothing": set_in(config(), "seed", -1),
    "no thread": set_in(config(), "threads", 0),
    "no checkpoint to keep": set_in(config(), "checkpoints", {"keep_last": 0}),
    "an unknown choice": set_in(config(), "schedules.0.every", "batch"),
    "an unknown split": set_in(config(), "train.dataset.split", "training"),
    "an unknown mode": set_in(config(), "hooks.best.mode", "maximum"),
    "an unknown device": set_in(config(), "model.args.0.device", "gpu"),
    "an unknown dtype": set_in(config(), "model.args.0.dtype", "float31"),
    "a list of the wrong length": set_in(config(), "model.args.0.kernel_size", [3, 3, 3]),
    "a list for a float": set_in(config(), "optimizer.eps", [1e-8]),
    "three betas": set_in(config(), "optimizer.betas", [0.9, 0.99, 0.999]),
    "a mapping for a list": set_in(config(), "model.args", {"type": "ReLU"}),
    "a list of names for components": set_in(config(), "val.metrics", ["accuracy"]),
    "a name for a component": set_in(config(), "optimizer", "AdamW"),
    "a number as a type": set_in(config(), "optimizer.type", 3),
    "an unknown name of our package": set_in(config(), "train.sampler.type", "treenail:nonesuch"),
    "a nesting too much": set_in(config(), "loss", {"loss": {"type": "cross_entropy"}}),
    "a base, and a typo": {"_base_": "digits.yaml", "optimiser": {"lr": 0.1}},
    "a base, and a typo below": {"_base_": "digits.yaml", "optimizer": {"type": "AdamW", "lrr": 0.1}},
    "a base that is a number": {"_base_": 3},
    "a mark that is no truth value": set_in(config(), "optimizer._delete_", "yes"),
    "a scope that is no name": set_in(config(), "optimizer._scope_", 3),
    "an import that is a number": set_in(config(), "imports", [3]),
}


def test_there_are_mutants_enough() -> None:
    assert len(WRONG) >= 60


@pytest.mark.parametrize("tree", WRONG.values(), ids=WRONG)
def test_a_mistake_is_refused(accepts: Callable[[object], bool], tree: Tree) -> None:
    assert not accepts(tree)


def paths(tree: object, path: tuple[Key, ...] = ()) -> Iterator[tuple[Key, ...]]:
    pairs: list[tuple[Key, object]] = []
    if isinstance(tree, dict):
        pairs = list(tree.items())
    elif isinstance(tree, list):
        pairs = list(enumerate(tree))
    for key, value in pairs:
        yield (*path, key)
        yield from paths(value, (*path, key))


NAMES = ("AdamW", "SGD", "Linear", "Conv2d", "Sequential", "digits", "accuracy", "epochs", "random", "best", "nothing")
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.sampled_from([-0.5, 1e-8, 0.25, 0.9]),
    st.sampled_from(["train", "val/accuracy", "cpu", "step", "mean", "float32", "zeros", "", *NAMES]),
)
MORE_KEYS = ("lr", "p", "seed", "bias", "args", "weight", "metrics", "sampler", "every", "metric", "interval", "colour")
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(MORE_KEYS), inner, max_size=2),
        st.builds(
            lambda name, rest: {"type": name, **rest},
            st.sampled_from(NAMES),
            st.dictionaries(st.sampled_from(MORE_KEYS), inner, max_size=2),
        ),
    ),
    max_leaves=4,
)


GOOD_PARTS: tuple[tuple[str, object], ...] = (
    ("optimizer", {"type": "SGD", "lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("optimizer.betas", [0.8, 0.99]),
    ("loss", {"type": "CrossEntropyLoss", "label_smoothing": 0.1}),
    ("loss.reduction", "sum"),
    ("model.args.0.kernel_size", [3, 3]),
    ("model.args.0.padding", "same"),
    ("model.args.2", {"type": "Sequential", "args": [{"type": "GELU", "approximate": "tanh"}, {"type": "ReLU"}]}),
    ("model.args.8.p", 1),
    ("schedules.0.scheduler", {"type": "ChainedScheduler", "schedulers": [{"type": "ExponentialLR", "gamma": 0.9}]}),
    ("schedules.0.scheduler.optimizer", {"type": "SGD", "params": []}),
    ("schedules", []),
    ("train.sampler", {"type": "ResumableRandomSampler", "seed": 3}),
    ("train.sampler", None),
    ("train.drop_last", True),
    ("val", None),
    ("val.metrics", [{"type": "accuracy", "top_k": 2}]),
    ("hooks.timer", None),
    ("hooks.log", {"type": "logger", "interval": 3}),
    ("vis.jsonlines", None),
    ("checkpoints", {"keep_last": None}),
    ("threads", None),
    ("device", "cuda:1"),
)


@st.composite
def near_configs(draw: st.DrawFn) -> Tree:
    """Draw a tree that differs from a right config in some right places, and in up to two that may be wrong."""
    tree = config()
    for part, value in draw(st.lists(st.sampled_from(GOOD_PARTS), max_size=4)):
        with suppress(AttributeError, LookupError, TypeError):  # an earlier part has put something else there
            tree = set_in(tree, part, copy.deepcopy(value))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2]))):
        places = list(paths(tree))
        path = draw(st.sampled_from(places))
        node: Any = tree
        for key in path[:-1]:
            node = node[key]
        match draw(st.sampled_from(["set", "remove", "add"])):
            case "remove":
                del node[path[-1]]
            case "add" if isinstance(node, dict):
                node[draw(st.sampled_from(MORE_KEYS))] = draw(VALUES)
            case _:
                node[path[-1]] = draw(VALUES)
    return tree


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(tree=near_configs())
@example(tree=config())
def test_the_validator_and_the_check_agree(catalog: Catalog, accepts: Callable[[object], bool], tree: Tree) -> None:
    checker = Checker(Document("drawn", tree), catalog, ())
    checker.convert(tree, RecordOf(RUN), ())
    assert accepts(tree) == (not checker.mistakes), [str(each) for each in checker.mistakes]


SLOTS_OF_A_RUN = {
    "module": "whole_Run.properties.model",
    "loss": "whole_Run.properties.loss",
    "optimizer": "whole_Run.properties.optimizer",
    "loop": "whole_Run.properties.loop",
    "hook": "whole_Run.properties.hooks.additionalProperties",
    "vis": "whole_Run.properties.vis.additionalProperties",
    "dataset": "whole_Data.properties.dataset",
    "sampler": "whole_Data.properties.sampler",
    "metric": "whole_Evaluation.properties.metrics.items",
    "scheduler": "whole_Schedule.properties.scheduler",
}


@pytest.mark.parametrize("port", SLOTS_OF_A_RUN)
def test_every_component_is_right_with_what_it_requires_and_wrong_without_or_with_more(
    catalog: Catalog, schema: Tree, port: str
) -> None:
    slot: Any = schema["definitions"]
    for key in SLOTS_OF_A_RUN[port].split("."):
        slot = slot[key]
    validator = jsonschema.Draft7Validator({"allOf": [slot], "definitions": schema["definitions"]})
    candidates = Candidates(catalog)
    for name, component in candidates.fitting(candidates.slot_of(port)).items():
        _, form = candidates.form(Match(name, port, component))
        kinds = {field.name: field.kind for field in form.fields.values()}
        given = {key: as_json(parse_value(sample(kinds[key]), key).data) for key in form.required}
        assert validator.is_valid({"type": name, **given}), f"{name}: {given}"
        for key in form.required:
            assert not validator.is_valid({"type": name, **given, key + "_": 1}) or form.further, f"{name}: {key}"
            assert not validator.is_valid({"type": name} | {k: v for k, v in given.items() if k != key}), (
                f"{name}: {key}"
            )


def test_the_names_offered_in_a_slot_are_those_that_the_check_takes(catalog: Catalog) -> None:
    candidates = Candidates(catalog)
    for port, slot in [(port, candidates.slot_of(port)) for port in catalog.registries]:
        offered = set(candidates.fitting(slot))
        for name in {*catalog.names(port), *(name for other in catalog.registries for name in catalog.names(other))}:
            assert (name in offered) == is_taken(catalog, name, slot), f"{name} in a slot for {port}"


def is_taken(catalog: Catalog, name: str, slot: Any) -> bool:
    try:
        return not catalog.resolve(name, slot, ()).abstract
    except RegistryError:
        return False


def test_descriptions_defaults_and_limits_come_from_the_signature(schema: Tree) -> None:
    definitions = schema["definitions"]
    rate = definitions["AdamW"]["properties"]["lr"]
    assert rate["default"] == 0.001
    assert rate["description"].startswith("learning rate")
    assert definitions["Run"]["properties"]["seed"]["minimum"] == 0
    assert definitions["Schedule"]["properties"]["every"]["anyOf"][0]["anyOf"][0] == {"enum": ["step", "epoch"]}
    assert definitions["Data"]["properties"]["batch_size"]["description"].startswith("Samples of a batch")
    assert "Implements AdamW" in definitions["AdamW"]["properties"]["type"]["description"]


def test_the_default_hooks_are_offered_though_no_config_names_them(schema: Tree) -> None:
    assert {"timer", "logger", "checkpoint"} <= set(schema["definitions"]["Run"]["properties"]["hooks"]["properties"])


def test_no_default_is_what_json_cannot_hold(schema: Tree) -> None:
    def numbers(node: object) -> Iterator[float]:
        for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from numbers(inner)
        if isinstance(node, float):
            yield node

    assert all(math.isfinite(each) for each in numbers(schema))


def test_one_component_alone(catalog: Catalog) -> None:
    schema = json_schema(catalog, component="adamw")
    validator = jsonschema.Draft7Validator(schema)
    assert validator.is_valid({"type": "AdamW", "lr": 0.1})
    assert not validator.is_valid({"type": "AdamW", "lrr": 0.1})
    assert not validator.is_valid({"lr": 0.1})
    demanding = jsonschema.Draft7Validator(json_schema(catalog, component="Conv2d"))
    assert not demanding.is_valid({"type": "Conv2d", "in_channels": 1})


def test_an_unknown_component_is_refused_with_a_guess(catalog: Catalog) -> None:
    with pytest.raises(RegistryError, match=r"unknown component 'adamx'; did you mean 'Adamax'"):
        json_schema(catalog, component="adamx")


def test_another_package_s_component_is_known_and_two_of_one_name_are_told_apart() -> None:
    target = "treenail.adapters.evaluation:Accuracy"
    ours = Adapter(port="metric", name="accuracy", target=target)
    theirs = Adapter(port="metric", name="accuracy", target="treenail.adapters.evaluation:Accuracy")
    catalog = Catalog([("treenail", ours), ("elsewhere", theirs), ("elsewhere", ours._replace(name="f_score"))])
    catalog.derivation.record(Run)
    offered = jsonschema.Draft7Validator(json_schema(catalog, component="f_score"))
    assert offered.is_valid({"type": "f_score"})
    slot = Candidates(catalog).slot_of("metric")
    assert list(Candidates(catalog).fitting(slot)) == [
        "elsewhere:accuracy",
        "elsewhere:f_score",
        "f_score",
        "treenail:accuracy",
    ]
    assert Candidates(catalog).ambiguous(slot) == ["accuracy"]


def test_given_imports_bound_which_modules_may_be_named(catalog: Catalog) -> None:
    bounded = jsonschema.Draft7Validator(json_schema(catalog, imports=["parts"]))
    for name, right in {"parts:Mlp": True, "parts.models:Mlp": True, "partsx:Mlp": False, "other:Mlp": False}.items():
        assert bounded.is_valid(set_in(config(), "model", {"type": name})) == right
