"""A config as a mapping with attributes: two views of one store, frozen for good, merged and copied."""

import copy
import json
import pickle
import types
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treenail.adapters.trees import (
    AttributeAccessError,
    CfgNode,
    Config,
    ConfigDict,
    ConfigList,
    ConfigTree,
    FrozenConfigError,
    MissingEntryError,
)
from treenail.kernel import ConfigError

Point = namedtuple("Point", "x y")  # untyped on purpose: any named tuple


def sample() -> ConfigTree:
    return ConfigTree(
        {
            "model": {"type": "ResNet", "depth": 50, "stages": [1, 2, {"width": 64}]},
            "pipeline": [{"type": "Load"}, ({"type": "Flip"}, 0.5), [3, 1, 2]],
            "size": (224, 224),
            "lr": 0.1,
            "": "empty",
            7: "seven",
        }
    )


# --- two views of one store ---


def test_attributes_and_items_are_one() -> None:
    config = sample()
    config.lr = 0.2
    config["model"]["depth"] = 18
    config.model.stages[2].width = 32
    assert (config["lr"], config.model.depth, config["model"]["stages"][2]["width"]) == (0.2, 18, 32)
    del config.lr
    assert "lr" not in config
    assert not hasattr(config, "lr")


def test_mappings_become_trees_wherever_they_are() -> None:
    config = ConfigTree()
    config.direct = {"a": {"b": 1}}
    config["list"] = [{"a": 1}, [{"b": 2}]]
    config.tuple = ({"a": 1}, [{"b": ({"c": 3},)}])
    config.list.append({"d": 4})
    config.list[0:0] = [OrderedDict(e=5)]
    config.update(proxy=types.MappingProxyType({"f": 6}))
    config.setdefault("default", {}).g = 7
    assert config.direct.a.b == 1
    assert (config.list[0].e, config.list[1].a, config.list[2][0].b, config.list[3].d) == (5, 1, 2, 4)
    assert (config.tuple[0].a, config.tuple[1][0].b[0].c) == (1, 3)
    assert (config.proxy.f, config.default.g) == (6, 7)
    assert isinstance(config.list[2][0], ConfigTree)


def test_the_callers_objects_are_not_changed_and_not_shared() -> None:
    given_ = {"a": {"b": [1, {"c": 2}]}}
    config = ConfigTree(given_)
    config.a.b[1].c = 3
    config.a.b.append(4)
    given_["a"]["b"][0] = 9
    assert given_ == {"a": {"b": [9, {"c": 2}]}}
    assert config == {"a": {"b": [1, {"c": 3}, 4]}}
    assert type(given_["a"]) is dict


def test_other_objects_are_kept_as_they_are() -> None:
    generator, point, numbers = (n for n in range(3)), Point({"a": 1}, 2), {1, 2}
    config = ConfigTree({"module": json, "params": generator, "point": point, "set": numbers})
    assert config.module is json
    assert config.params is generator
    assert config.point is point
    assert config.set is numbers
    assert list(config.copy().params) == [0, 1, 2]  # a copy shares what cannot be copied


def test_keys_that_are_no_attributes_are_items() -> None:
    config = ConfigTree({"items": 1, "copy": 2, "freeze": 3, "a-b": 4, "class": 5, 0: 6})
    assert [config[key] for key in config] == [1, 2, 3, 4, 5, 6]
    assert dict(config.items())["items"] == 1
    config["items"] = 10
    for name in ("items", "copy", "freeze", "__class__", "_content"):
        with pytest.raises(AttributeAccessError, match=rf"'{name}' is a part of every config.*write tree\['{name}'\]"):
            setattr(config, name, 0)
        with pytest.raises(AttributeAccessError, match="is a part of every config"):
            delattr(config, name)
    assert config["items"] == 10


def test_names_of_the_source_do_not_hide_entries() -> None:
    config = ConfigTree({"a": 1})
    assert (config.filename, config.text) == (None, None)
    config.text, config.filename = "an entry", "x.jpg"
    assert (config.text, config["filename"]) == ("an entry", "x.jpg")
    assert config == {"a": 1, "text": "an entry", "filename": "x.jpg"}


def test_what_is_missing_is_named_with_its_place_and_a_suggestion() -> None:
    config = sample()
    with pytest.raises(AttributeError, match=r"^model: there is no entry 'dept'; did you mean 'depth'\?$"):
        _ = config.model.dept
    with pytest.raises(KeyError, match=r"^pipeline\[1\]\[0\]: there is no entry 'typ'; did you mean 'type'\?$"):
        _ = config.pipeline[1][0]["typ"]
    with pytest.raises(AttributeAccessError, match="did you mean 'freeze'"):
        config.freez()
    for act in (lambda: config["x"], lambda: config.x, lambda: config.pop("x"), lambda: delattr(config, "x")):
        with pytest.raises(ConfigError, match="there is no entry"):
            act()
    assert config.pop("x", 3) == 3
    with pytest.raises(MissingEntryError):
        ConfigTree().popitem()


def test_have_and_get_follow_paths() -> None:
    config = ConfigTree({"a": {"b": [{"c": None}, (5, {"d": 6})], "x.y": 1}, "k.l": 2, 3: {4: 5}})
    for path, value in (("a.b.0.c", None), ("a.b.1.1.d", 6), ("k.l", 2), ("3.4", 5), (3, {4: 5})):
        assert config.have(path)
        assert config.get(path, "default") == value
    for path in ("a.b.2", "a.c", "a.b.0.c.d", "a.b.-1", "", "a.", "k", 4):
        assert not config.have(path)
        assert config.get(path) is None
        assert config.get(path, "default") == "default"
    assert "a.b" not in config  # `in` is that of a dict


@pytest.mark.parametrize("keyword", ["cfg_dict", "init_dict", "cfg_file", "cfg_text", "filename", "parser_ins", "load"])
def test_arguments_of_other_systems_do_not_become_entries(keyword: str) -> None:
    with pytest.raises(ConfigError, match=f"'{keyword}' is no argument here and would become an entry; write "):
        ConfigTree(**{keyword: 1})
    assert ConfigTree({keyword: 1})[keyword] == 1


@pytest.mark.parametrize("entries", [5, "text", [1, 2], [("a", 1, 2)]])
def test_what_is_no_mapping_is_refused(entries: Any) -> None:
    with pytest.raises(ConfigError, match="entries are a mapping or pairs, not a"):
        ConfigTree(entries)


def test_keys_are_words_or_whole_numbers() -> None:
    for key in (None, 1.5, (1, 2)):
        with pytest.raises(ConfigError, match="a key must be a word or a whole number"):
            ConfigTree()[key] = 1
        with pytest.raises(ConfigError, match="a key must be a word or a whole number"):
            ConfigTree({"a": [{key: 1}]})


def test_what_holds_itself_is_refused() -> None:
    around: dict[str, Any] = {}
    around["inner"] = [around]
    for act in (lambda: ConfigTree(around), lambda: ConfigTree().update(x=around), lambda: ConfigTree().merge(around)):
        with pytest.raises(ConfigError, match="nested more than 200 levels deep, or holds itself"):
            act()
    config = ConfigTree(a=1)
    config.me = config  # a config in itself is a copy
    assert config == {"a": 1, "me": {"a": 1}}


def test_a_part_lives_in_one_place() -> None:
    config, solver = ConfigTree(a={"b": 1}), ConfigTree()
    config.solver = solver
    solver.lr = 0.1
    assert config.solver is solver
    config.other = config.a
    config.other.b = 2
    assert (config.a.b, config.other.b) == (1, 2)
    part = config.pop("a")
    config.again = part
    part.b = 3
    assert config.again.b == 3
    config.again = config.again
    assert config.again is part


# --- as a dict ---


def test_python_takes_it_for_a_dict() -> None:
    config, plain = sample(), sample().to_dict()
    assert type(plain) is dict
    assert type(plain["pipeline"]) is list
    assert type(plain["pipeline"][1][0]) is dict
    assert isinstance(config, dict)
    assert isinstance(config.pipeline, list)
    assert config == plain
    assert plain == config
    assert not (config != plain)  # noqa: SIM202  # __ne__ is what is tested
    assert config != {}
    assert config != 5
    assert config.pipeline == plain["pipeline"]
    assert plain["pipeline"] == config.pipeline
    as_tuple: object = tuple(plain["pipeline"])
    assert config.pipeline != as_tuple
    assert dict(config) == plain
    assert {**config} == plain
    assert list(config) == list(plain)
    assert list(reversed(config)) == list(reversed(plain))
    assert config | {"lr": 1} == plain | {"lr": 1}
    assert {"lr": 1, "z": 2} | config == {"lr": 1, "z": 2} | plain
    assert json.loads(json.dumps(config.pipeline)) == json.loads(json.dumps(plain["pipeline"]))
    assert json.dumps(config) == json.dumps(plain)
    assert json.dumps(config, indent=1) == json.dumps(plain, indent=1)
    assert json.dumps(ConfigTree(a={})) == '{"a": {}}'
    assert msgspec.json.encode(config.model) == msgspec.json.encode(plain["model"])
    assert msgspec.convert(config.model.stages[2], dict[str, int]) == {"width": 64}
    assert dict(**config.model) == plain["model"]
    assert repr(ConfigTree(a={"b": [1, (2,)]})) == "{'a': {'b': [1, (2,)]}}"
    assert {"lr", "model"} <= set(dir(config))
    assert ConfigTree.fromkeys("ab", 1) == {"a": 1, "b": 1}
    with pytest.raises(TypeError, match="unhashable"):
        hash(config)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_copies_and_pickles_keep_everything(protocol: int) -> None:
    config = sample()
    config.model.freeze()
    for other in (
        copy.copy(config),
        copy.deepcopy(config),
        pickle.loads(pickle.dumps(config, protocol)),
        config.copy(),
    ):
        assert type(other) is ConfigTree
        assert other == config
        assert isinstance(other.pipeline[0], ConfigTree)
        assert isinstance(other.pipeline, ConfigList)
        assert other.model.is_frozen()
        assert not other.is_frozen()
        other.pipeline[1][0].type = "other"
        other.pipeline[2].append(9)
    assert config == sample()
    assert copy.copy(config.pipeline) == config.pipeline.copy() == pickle.loads(pickle.dumps(config.pipeline, protocol))


def test_copies_of_frozen_ones_are_frozen_unless_asked_otherwise() -> None:
    config = sample()
    config.freeze()
    assert config.copy().is_frozen()
    assert config.deep_copy().is_frozen()
    assert config.pipeline[0].copy().is_frozen()
    assert not config.copy(frozen=False).is_frozen()
    assert not (config | {"a": 1}).is_frozen()
    assert sample().copy(frozen=True).is_frozen()
    thawed = config.copy(frozen=False)
    thawed.pipeline.append(1)
    thawed.model.depth = 1
    assert config == sample()
    held = sample()
    held.objects = {1, 2}
    assert held.copy()["objects"] is held["objects"]
    assert held.deep_copy()["objects"] is not held["objects"]


# --- lists ---


@given(
    st.lists(st.integers(), max_size=6),
    st.sampled_from(
        ["append", "insert", "extend", "pop", "remove", "sort", "reverse", "clear", "set", "cut", "put", "+=", "*="]
    ),
    st.integers(-3, 3),
)
def test_a_list_does_what_a_list_does(items: list[int], method: str, number: int) -> None:
    acts: dict[str, Callable[[Any], Any]] = {
        "append": lambda it: it.append(number),
        "insert": lambda it: it.insert(number, 5),
        "extend": lambda it: it.extend([number, 6]),
        "pop": lambda it: it.pop(number),
        "remove": lambda it: it.remove(number),
        "sort": lambda it: it.sort(key=abs, reverse=True),
        "reverse": lambda it: it.reverse(),
        "clear": lambda it: it.clear(),
        "set": lambda it: it.__setitem__(number, 7),
        "cut": lambda it: it.__delitem__(slice(number, None, 2)),
        "put": lambda it: it.__setitem__(slice(number, None), [8, 9]),
        "+=": lambda it: it.__iadd__((number,)),
        "*=": lambda it: it.__imul__(number),
    }
    config, model = ConfigTree(it=items), list(items)
    outcomes: list[Any] = []
    for each in (config.it, model):
        try:
            outcomes.append(acts[method](each))
        except (IndexError, ValueError) as error:
            outcomes.append(type(error))
    assert outcomes[0] == outcomes[1]
    assert config.it == model
    assert [*reversed(config.it)] == model[::-1]
    assert ([*config.it, 1], [1, *config.it], config.it * 2) == ([*model, 1], [1, *model], model * 2)
    assert json.dumps(config) == json.dumps({"it": model})
    assert (7 in config.it, config.it.count(7), len(config.it)) == (7 in model, model.count(7), len(model))


# --- freezing ---

FROZEN: dict[str, Callable[[ConfigTree], Any]] = {
    "an item": lambda config: config.__setitem__("lr", 1),
    "a new item": lambda config: config.__setitem__("new", 1),
    "an attribute": lambda config: setattr(config, "lr", 1),
    "a nested attribute": lambda config: setattr(config.model, "depth", 1),
    "the same value": lambda config: setattr(config, "model", config.model),
    "update": lambda config: config.update(lr=1),
    "setdefault": lambda config: config.setdefault("new", 1),
    "pop": lambda config: config.pop("lr"),
    "popitem": lambda config: config.popitem(),
    "del": lambda config: config.__delitem__("lr"),
    "del of an attribute": lambda config: delattr(config, "lr"),
    "clear": lambda config: config.clear(),
    "|=": lambda config: config.__ior__({"lr": 1}),
    "merge": lambda config: config.merge({"lr": 1}),
    "an empty merge": lambda config: config.merge({}),
    "merge_from_dict": lambda config: config.merge_from_dict({"pipeline.0.type": 1}),
    "__init__": lambda config: config.__init__({"lr": 1}),  # type: ignore[misc]  # called as one should not
    "an item of a list": lambda config: config.pipeline.__setitem__(0, 1),
    "a slice of a list": lambda config: config.pipeline.__setitem__(slice(None), []),
    "append": lambda config: config.pipeline.append(1),
    "extend": lambda config: config.pipeline.extend([1]),
    "insert": lambda config: config.pipeline.insert(0, 1),
    "list.pop": lambda config: config.pipeline.pop(),
    "remove": lambda config: config.pipeline[2].remove(3),
    "list.clear": lambda config: config.pipeline.clear(),
    "del of a list's item": lambda config: config.pipeline.__delitem__(0),
    "sort": lambda config: config.pipeline[2].sort(),
    "reverse": lambda config: config.pipeline.reverse(),
    "+=": lambda config: config.pipeline.__iadd__([1]),
    "*=": lambda config: config.pipeline.__imul__(2),
    "list.__init__": lambda config: config.pipeline.__init__([1], ConfigTree),
    "a tree in a list": lambda config: setattr(config.pipeline[0], "type", 1),
    "a tree in a tuple": lambda config: setattr(config.pipeline[1][0], "type", 1),
    "a list in a tree in a list": lambda config: config.model.stages[2].__setitem__("width", 1),
    "unfreezing a part": lambda config: config.model.freeze(False),
}


@pytest.mark.parametrize("change", FROZEN.values(), ids=FROZEN)
def test_a_frozen_config_refuses(change: Callable[[ConfigTree], Any]) -> None:
    config = sample()
    config.freeze()
    with pytest.raises(FrozenConfigError, match="frozen"):
        change(config)
    assert config == sample()
    assert config.to_dict() == sample().to_dict()
    config.freeze(False)
    change(config)


BYPASSES: dict[str, Callable[[ConfigTree], Any]] = {
    "dict.__setitem__": lambda config: dict.__setitem__(config, "lr", 1),
    "dict.update": lambda config: dict.update(config, lr=1, new=2),
    "dict.pop": lambda config: dict.pop(config, "lr"),
    "dict.clear": dict.clear,
    "dict.__init__": lambda config: dict.__init__(config, {"lr": 1}),
    "dict.__ior__": lambda config: dict.__ior__(config, {"lr": 1}),
    "list.append": lambda config: list.append(config.pipeline, 1),
    "list.__setitem__": lambda config: list.__setitem__(config.pipeline, 0, 1),
    "list.sort": lambda config: list.sort(config.pipeline[2]),
    "list.clear": lambda config: list.clear(config.model.stages),
}


@pytest.mark.parametrize("bypass", BYPASSES.values(), ids=BYPASSES)
def test_methods_of_dict_and_list_do_not_reach_the_entries(bypass: Callable[[ConfigTree], Any]) -> None:
    config, shown = sample(), repr(sample())
    config.freeze()
    bypass(config)
    assert config == sample()
    assert [*config.pipeline] == [*sample().pipeline]
    assert (config.lr, config["lr"], "new" in config, len(config)) == (0.1, 0.1, False, 6)
    assert repr(config) == shown
    assert dict(config) == {**config} == sample().to_dict() == config.copy() == config.deep_copy()


def test_objects_have_no_attributes_beside_the_entries() -> None:
    config = sample()
    config.freeze()
    for name in ("lr", "new"):
        with pytest.raises(AttributeError):
            object.__setattr__(config, name, 1)
    with pytest.raises(TypeError):
        vars(config)
    with pytest.raises(AttributeError):
        config.pipeline.new = 1
    assert config == sample()


def test_the_message_says_where() -> None:
    config = sample()
    config.freeze()
    places: dict[str, Callable[[], object]] = {
        "lr": lambda: setattr(config, "lr", 1),
        "model.depth": lambda: setattr(config.model, "depth", 1),
        r"pipeline\[1\]\[0\].type": lambda: setattr(config.pipeline[1][0], "type", 1),
        r"pipeline\[2\]\[1\]": lambda: config.pipeline[2].__setitem__(1, 1),
        r"pipeline\[2\]": config.pipeline[2].sort,
        r"model.stages\[2\].\[7\]|model.stages\[2\]\[7\]": lambda: config.model.stages[2].__setitem__(7, 1),
    }
    for place, act in places.items():
        with pytest.raises(
            FrozenConfigError, match=rf"^(?:{place}): the config is frozen; unfreeze the whole, or change"
        ):
            act()


def test_a_part_can_be_frozen_alone_and_stays_so() -> None:
    config = sample()
    config.model.freeze()
    config.lr = 1
    with pytest.raises(FrozenConfigError):
        config.merge({"new": 2, "model": {"depth": 1}})
    assert "new" not in config  # all or nothing
    assert (config.is_frozen(), config.model.is_frozen(), config.pipeline[0].is_frozen()) == (False, True, False)
    part = config.pop("model")
    assert part.is_frozen()
    config.freeze()
    assert config.pipeline[1][0].is_frozen()
    config.freeze(False)
    assert not config.pipeline[1][0].is_frozen()


def test_what_was_taken_out_before_freezing_is_free_and_what_is_in_is_not() -> None:
    config = sample()
    inside, taken = config.pipeline, config.pipeline.pop(0)
    config.freeze()
    taken.type = "free"
    with pytest.raises(FrozenConfigError):
        inside.append(1)
    config.freeze(False)
    replaced = config.model
    config.model = 1
    config.freeze()
    replaced.depth = 1
    assert config.model == 1


def test_the_names_of_other_systems_are_the_same_class() -> None:
    assert CfgNode is Config is ConfigDict is ConfigTree
