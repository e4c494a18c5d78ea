"""The examples of easycore's, SCEPTER's and mmengine's documentation, and what went wrong in their code."""

import argparse
import io
import json
from pathlib import Path
from typing import Any

import pytest

from treenail.adapters.trees import (
    CfgNode,
    Config,
    ConfigTree,
    DictAction,
    add_config_arguments,
    config_from_arguments,
)
from treenail.kernel import ConfigError

CN = CfgNode
EASYCORE = """\
MODEL:
  IN_FEATURES: ["res3", "res4", "res5"]
  INPUT_SIZE: (224, 224)
  NUM_CLASSES: 100
NAME: YuxinZhaozyx
"""
OPTIMIZER = {"type": "SGD", "lr": 0.02, "momentum": 0.9, "weight_decay": 0.0001}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files of mmengine's guide, in YAML."""
    monkeypatch.chdir(tmp_path)
    files = {
        "example.yaml": EASYCORE,
        "optimizer_cfg.yaml": "optimizer: {type: SGD, lr: 0.02, momentum: 0.9, weight_decay: 0.0001}\n",
        "runtime_cfg.yaml": "gpu_ids: [0, 1]\n",
        "resnet50.yaml": "_base_: [optimizer_cfg.yaml]\nmodel: {type: ResNet, depth: 50}\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def read(folder: Path, text: str) -> ConfigTree:
    (folder / "own.yaml").write_text(text)
    return Config.fromfile(folder / "own.yaml")


# --- easycore ---


def test_easycore_opens_a_file_or_a_file_object(folder: Path) -> None:
    config = CN.open("example.yaml")
    with open("example.yaml", encoding="utf-8") as file:
        assert CN.open(file) == config
    with open("example.yaml", "rb") as binary:
        assert CN.open(binary) == config  # type: ignore[arg-type]  # declared for texts, as files of bytes are rare
    assert CN.open(folder / "example.yaml") == config == CN.load(EASYCORE)
    assert config.MODEL.IN_FEATURES == ["res3", "res4", "res5"]
    assert config.MODEL.INPUT_SIZE == (224, 224)
    assert isinstance(config.MODEL.INPUT_SIZE, tuple)
    assert (config.MODEL.NUM_CLASSES, config.NAME) == (100, "YuxinZhaozyx")


def test_easycore_from_a_dict_and_empty() -> None:
    config = CN({"MODEL": {"IN_FEATURES": ["res3"], "INPUT_SIZE": (224, 224), "NUM_CLASSES": 100}, "NAME": "Y"})
    assert config.MODEL.INPUT_SIZE == (224, 224)
    config.LICENSE = "MIT"
    config.SOLVER = CN()
    config.SOLVER.LEARNING_RATE = 0.001
    config.SOLVER.BATCH_SIZE = 128
    assert config["SOLVER"] == {"LEARNING_RATE": 0.001, "BATCH_SIZE": 128}
    assert config["LICENSE"] == "MIT"


def test_easycore_merges_and_copies() -> None:
    first, second = CN(), CN()
    first.key1 = 1
    first.key2 = 2
    second.key2 = 3
    second.key3 = {"inner": [1]}
    first.merge(second)
    assert first == {"key1": 1, "key2": 3, "key3": {"inner": [1]}}
    first.key3.inner.append(2)
    assert second.key3.inner == [1]
    other = first.copy()
    other.key3.inner.append(3)
    assert first.key3.inner == [1, 2]
    first.merge({"key3": {"more": 1}})  # a plain dict merges too
    assert first.key3 == {"inner": [1, 2], "more": 1}


def test_easycore_saves_and_dumps(folder: Path) -> None:
    config = CN.open("example.yaml")
    config.save("example-save.yaml")
    with open("example-save-2.yaml", "w", encoding="utf-8") as file:
        config.save(file)
    stream = io.StringIO()
    assert CN.dump(config, stream) is None
    text = CN.dump(config)
    assert text == stream.getvalue() == Path("example-save.yaml").read_text() == Path("example-save-2.yaml").read_text()
    assert "INPUT_SIZE: (224, 224)\n" in text
    assert CN.open("example-save.yaml") == config
    assert "é" in CN(name="é").dump()


def test_easycore_builds_on_another_file(folder: Path) -> None:
    (folder / "example-B.yaml").write_text("A: in example-B.yaml\nB: in example-B.yaml\n")
    (folder / "example-A.yaml").write_text("_base_: ./example-B.yaml\nA: in example-A.yaml\nC: in example-A.yaml\n")
    config = CN.fromfile("./example-A.yaml")
    assert config == {"A": "in example-A.yaml", "B": "in example-B.yaml", "C": "in example-A.yaml"}
    for key in ("__BASE__", "_BASE", "_BASE_RUN"):
        with pytest.raises(ConfigError, match=rf"own\.yaml:1:1: '{key}' names no base here; write _base_: FILE"):
            read(folder, f"{key}: ./example-B.yaml\nA: 1\n")


def test_a_file_that_builds_on_itself_or_on_nothing_is_an_error(folder: Path) -> None:
    (folder / "a.yaml").write_text("_base_: b.yaml\n")
    (folder / "b.yaml").write_text("_base_: a.yaml\n")
    with pytest.raises(ConfigError, match=r"a\.yaml → b\.yaml → a\.yaml"):
        CN.fromfile("a.yaml")
    with pytest.raises(ConfigError, match=r"own\.yaml:1:\d+: _base_.*there is no file.*did you mean 'example\.yaml'"):
        read(folder, "_base_: exmple.yaml\n")


def test_only_unquoted_parentheses_are_tuples() -> None:
    text = """
    plain: (1, (2.5, null), true, 'a, b')
    quoted: "(1, 2)"
    number: "123"
    none: "None"
    list: ["(1, 2)", "7"]
    odd: "{[]:1}"
    block:
      - (3, 4)
    prose: (see below)
    """
    config = CN.load(text)
    assert config.plain == (1, (2.5, None), True, "a, b")
    assert config.odd == "{[]:1}"
    assert (config.quoted, config.number, config.none) == ("(1, 2)", "123", "None")
    assert (config.list, config.block, config.prose) == (["(1, 2)", "7"], [(3, 4)], "(see below)")
    assert CN.load("a: (1, 2)", tuples=False).a == "(1, 2)"


def test_a_file_on_bases_has_tuples_too(folder: Path) -> None:
    config = read(folder, "_base_: example.yaml\nMODEL: {NUM_CLASSES: 10}\n")
    assert config.MODEL == {"IN_FEATURES": ["res3", "res4", "res5"], "INPUT_SIZE": (224, 224), "NUM_CLASSES": 10}
    assert Config.fromfile("example.yaml", tuples=False).MODEL.INPUT_SIZE == "(224, 224)"


def test_reading_runs_no_code() -> None:
    for text in ("a: !!python/object/apply:os.getcwd []", "a: !!python/tuple [1]", "a: !!python/name:os.system"):
        with pytest.raises(ConfigError, match=r"text:1:4: a: .*tag"):
            CN.load(text)


# --- SCEPTER ---


def test_scepter_loads_a_dict_json_and_yaml(folder: Path) -> None:
    assert Config({"NAME": "LocalFs"}).NAME == "LocalFs"
    for suffix in ("json", "yaml", "yml"):
        Path(f"examples.{suffix}").write_text(json.dumps({"NAME": "LocalFs"}))
        assert Config.open(f"examples.{suffix}").NAME == "LocalFs"
    Path("examples.toml").write_text('NAME = "LocalFs"\n')
    assert Config.open("examples.toml").NAME == "LocalFs"


def test_scepter_loads_what_the_command_line_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(description="Argparser for a process")
    parser.add_argument("--stage", dest="stage", help="Running stage!", default="train")
    add_config_arguments(parser)
    arguments = parser.parse_args(["--cfg", "example.yaml", "--cfg-options", "MODEL.NUM_CLASSES=10", "NAME=None"])
    config = config_from_arguments(arguments)
    assert (arguments.stage, config.MODEL.NUM_CLASSES, config.NAME) == ("train", 10, None)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args([])
    assert "--cfg" in capsys.readouterr().err
    optional = argparse.ArgumentParser()
    add_config_arguments(optional, required=False)
    assert config_from_arguments(optional.parse_args([])) == {}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.ini", "a: 1", r"c\.ini: '\.ini' is no format of a config; use one of"),
        ("c.ymal", "a: 1", r"c\.ymal: '\.ymal' is no format of a config; did you mean 'yml'\?"),
        ("c", "a: 1", r"c: 'no suffix' is no format"),
        ("c.py", "a = 1", r"c\.py: a Python config is code"),
        ("c.json", '{"a": 1,}', r"c\.json:1:"),
        ("c.yaml", "a: [1", r"c\.yaml:\d:\d: YAML syntax"),
        ("c.yaml", "a: 1\na: 2", r"c\.yaml:2:1: a: this key occurs twice"),
        ("c.yaml", "- 1", r"c\.yaml:1:1: a config is a mapping, and this is a list"),
        ("c.yaml", "", r"c\.yaml: the file is empty"),
    ],
)
def test_what_cannot_be_read_is_an_error_and_no_empty_config(folder: Path, name: str, text: str, message: str) -> None:
    Path(name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        Config.open(name)
    with pytest.raises(ConfigError, match="there is no such file"):
        Config.open("missing.yaml")


def test_scepters_writes_are_not_lost() -> None:
    config = Config({"A": {"B": 1}, "T": None})
    config.A.B = 5
    config.Z = (1, None)
    assert config.to_dict() == {"A": {"B": 5}, "T": None, "Z": (1, None)}
    assert config.pop("Z") == (1, None)
    assert not config.have("Z")
    assert not hasattr(config, "Z")
    assert Config() == {}  # nothing is left from the one before
    assert not config.have("logger")
    assert Config({"A": {"B": 5}, "T": None}) == config
    assert Config.load("a: 10e-4\nb: ae-b\nc: 1e-4") == {"a": 0.001, "b": "ae-b", "c": 0.0001}


def test_secrets_are_covered_where_a_config_is_shown() -> None:
    config = Config({"APPKEY": 1, "user": {"api_key": "k-1", "SECRET": "s-2"}, "url": "s3://me:pw-3@host/x"})
    for shown in (repr(config), str(config), repr(config.user), config.dump(mask_secrets=True)):
        assert not any(secret in shown for secret in ("k-1", "s-2", "pw-3"))
    assert all(secret in config.dump() for secret in ("k-1", "s-2", "pw-3"))
    assert config.user.api_key == "k-1"


# --- mmengine ---


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.json", '{"test_int": 1, "test_list": [1, 2, 3], "test_dict": {"key1": "value1", "key2": 0.1}}'),
        ("c.yml", 'test_int: 1\ntest_list: [1, 2, 3]\ntest_dict:\n  key1: "value1"\n  key2: 0.1\n'),
    ],
)
def test_mmengine_reads_shows_and_changes_a_file(folder: Path, name: str, text: str) -> None:
    Path(name).write_text(text)
    config = Config.fromfile(name)
    assert str(config) == (
        f"Config (path: {name}): {{'test_int': 1, 'test_list': [1, 2, 3], 'test_dict': {{'key1': 'value1', 'key2': 0.1}}}}"
    )
    assert (config.filename, config.text) == (name, text)
    assert str(config.test_dict) == "{'key1': 'value1', 'key2': 0.1}"
    config.test_int = 2
    assert config["test_int"] == 2
    config["test_list"][1] = 3
    assert str(config["test_list"]) == "[1, 3, 3]"
    assert Config.fromstring(text, Path(name).suffix).test_dict.key2 == 0.1


def test_mmengine_objects_are_put_into_a_config_and_built() -> None:
    config = Config(optimizer={"type": "SGD", "lr": 0.1})
    parameters = iter([1, 2])
    config.optimizer.params = parameters
    arguments = dict(**config.optimizer)
    assert arguments.pop("params") is parameters
    assert arguments == {"type": "SGD", "lr": 0.1}


def test_mmengine_inherits(folder: Path) -> None:
    assert Config.fromfile("resnet50.yaml") == {"optimizer": OPTIMIZER, "model": {"type": "ResNet", "depth": 50}}
    both = "_base_: [optimizer_cfg.yaml, runtime_cfg.yaml]\nmodel: {type: ResNet, depth: 50}\n"
    assert set(read(folder, both)) == {"model", "optimizer", "gpu_ids"}
    changed = read(folder, both + "optimizer: {lr: 0.01}\n")
    assert list(changed.optimizer.items()) == list((OPTIMIZER | {"lr": 0.01}).items())
    assert read(folder, both + "gpu_ids: [0]\n").gpu_ids == [0]
    assert read(folder, both + "optimizer: {_delete_: true, type: SGD, lr: 0.01}\n").optimizer == {
        "type": "SGD",
        "lr": 0.01,
    }
    referring = read(folder, "_base_: [resnet50.yaml]\na: '{{_base_.model}}'\n")
    assert referring.a == {"type": "ResNet", "depth": 50}
    referring.a.type = "MobileNet"
    assert (referring.a.type, referring.model.type) == ("MobileNet", "ResNet")
    assert read(folder, "work_dir: './work_dir/{{fileBasenameNoExtension}}'\n").work_dir == "./work_dir/own"
    (folder / "other.yaml").write_text("optimizer: {lr: 3}\n")
    with pytest.raises(ConfigError, match="two bases set this key"):
        read(folder, "_base_: [optimizer_cfg.yaml, other.yaml]\n")


def test_mmengine_dumps_what_stands_alone(folder: Path) -> None:
    config = Config.fromfile("resnet50.yaml")
    for name in ("dump.yaml", "dump.json"):
        config.dump(name)
        assert Config.fromfile(name) == config == Config.open(name)
        assert list(Config.fromfile(name)) == ["optimizer", "model"]
    config.dump("dump.py")
    assert (
        Path("dump.py").read_text()
        == config.pretty_text
        == (
            "optimizer = dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001)\n"
            "model = dict(type='ResNet', depth=50)\n"
        )
    )
    assert Config({"a": 1, "b": 2}).dump(format="py") == "a = 1\nb = 2\n"
    assert Config.fromstring(config.dump(), ".yaml") == config


def test_python_text_is_python() -> None:
    config = Config(a={"b": [1, (2,)], "c-d": {3: None}}, e=float("inf"), f=())
    names: dict[str, Any] = {}
    exec(config.pretty_text, names)
    del names["__builtins__"]
    assert names == config
    with pytest.raises(ConfigError, match="'a-b' is no name of Python"):
        Config({"a-b": 1}).dump(format="py")


def test_mmengine_merges_options() -> None:
    config = Config(model={"backbone": {"type": "ResNet"}})
    config.merge_from_dict({"model.backbone.depth": 50, "model.backbone.with_cp": True})
    assert config == {"model": {"backbone": {"type": "ResNet", "depth": 50, "with_cp": True}}}
    config = Config(pipeline=[{"type": "LoadImage"}, {"type": "LoadAnnotations"}])
    config.merge_from_dict({"pipeline": {"0": {"type": "SelfLoadImage"}}}, allow_list_keys=True)
    assert config == {"pipeline": [{"type": "SelfLoadImage"}, {"type": "LoadAnnotations"}]}
    config.merge_from_dict({"pipeline.1.color": "bgr", "a.b.c": {"d": 1}, "a.b.e": 2, "a.b.c.f": 3})
    assert config.pipeline[1] == {"type": "LoadAnnotations", "color": "bgr"}
    assert config.a == {"b": {"c": {"d": 1, "f": 3}, "e": 2}}
    classes = Config(classes={0: {"name": "cat"}})
    classes.merge_from_dict({"classes.0.name": "dog"})
    assert classes == {"classes": {0: {"name": "dog"}}}


@pytest.mark.parametrize(
    ("tokens", "changed"),
    [
        (
            ["optimizer.lr=0.1"],
            {"model": {"type": "CustomModel", "in_channels": [1, 2, 3]}, "optimizer": {"type": "SGD", "lr": 0.1}},
        ),
        (
            ["model.in_channels=[1, 1, 1]"],
            {"model": {"type": "CustomModel", "in_channels": [1, 1, 1]}, "optimizer": {"type": "SGD", "lr": 0.01}},
        ),
    ],
)
def test_mmengine_changes_a_config_from_the_command_line(
    folder: Path, tokens: list[str], changed: dict[str, Any]
) -> None:
    Path("example.yaml").write_text(
        "model: {type: CustomModel, in_channels: [1, 2, 3]}\noptimizer: {type: SGD, lr: 0.01}\n"
    )
    parser = argparse.ArgumentParser(description="Train a model")
    parser.add_argument("config", help="train config file path")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction)
    arguments = parser.parse_args(["./example.yaml", "--cfg-options", *tokens])
    config = Config.fromfile(arguments.config)
    assert parser.parse_args(["./example.yaml"]).cfg_options is None
    config.merge_from_dict(arguments.cfg_options)
    assert str(config) == f"Config (path: ./example.yaml): {changed}"
    twice = parser.parse_args(["c", "--cfg-options", "a=1", "b=1", "--cfg-options", "a=2"])
    assert twice.cfg_options == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr.value": 1}, "lr: a mapping cannot be merged into the float 0.1; put '_delete_: true' into the mapping"),
        ({"size.0": 1}, r"size: a mapping cannot be merged into the tuple \(2, 2\)"),
        ({"steps.2": 1}, "steps: this is a list of 2; '2' is not one of its numbers; write 0 to 1"),
        ({"steps.x": 1}, "steps: this is a list of 2; 'x' is not one of its numbers"),
        ({"steps.0.a": 1}, r"steps\[0\]: a mapping cannot be merged into the int 8"),
        ({"none.0": 1}, "none: this is a list of 0; '0' is not one of its numbers; give the whole list"),
        ({"a..b": 1}, r"'a\.\.b' is no path"),
        ({"": 1}, "'' is no path"),
        ({"a": 1, "a.b": 2}, "a.b: another option gives 'a' a value that is no mapping"),
        ({"a.b": 2, "a": 1}, "a: another option leads into this value"),
        ({"a": {"_delete_": "yes"}}, "a._delete_: expected true or false, not 'yes'"),
    ],
)
def test_a_merge_that_leads_nowhere_changes_nothing(options: dict[str, Any], message: str) -> None:
    config = Config(lr=0.1, size=(2, 2), steps=[8, 11], none=[])
    with pytest.raises(ConfigError, match=f"^{message}"):
        config.merge_from_dict({"new": 1} | options)
    assert config == {"lr": 0.1, "size": (2, 2), "steps": [8, 11], "none": []}


def test_merging_follows_mmengines_rules() -> None:
    config = Config(a={"b": 1, "c": {"d": 2}}, l=[{"x": 1}], s=3)
    part = config.a
    config.merge({"a": {"c": {"_delete_": True, "e": {"_delete_": True, "f": 4}}}, "s": {"_delete_": True, "t": 5}})
    assert config == {"a": {"b": 1, "c": {"e": {"f": 4}}}, "l": [{"x": 1}], "s": {"t": 5}}
    assert config.a is part  # merged in place
    config.merge({"a": 6, "n": {"_delete_": True, "m": {"_delete_": False}}})
    assert config.to_dict() == {"a": 6, "l": [{"x": 1}], "s": {"t": 5}, "n": {"m": {}}}
    with pytest.raises(ConfigError, match="l: a mapping cannot be merged into a list"):
        config.merge({"l": {"0": {"y": 1}}})
    config.merge({"l": {"0": {"y": 1}}}, allow_list_keys=True)
    assert config.l == [{"x": 1, "y": 1}]
    other = {"_delete_": True, "l": {"z": 1}}
    config.merge(other)
    assert config == {"l": {"z": 1}}
    assert other == {"_delete_": True, "l": {"z": 1}}
    config.merge(config)
    assert config == {"l": {"z": 1}}
