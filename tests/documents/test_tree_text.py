"""Configs as text: options of a command line, what is written and read back, what differs from another file."""

import argparse
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from treenail.adapters.trees import Config, ConfigTree, DictAction, OverrideAction
from treenail.adapters.trees.merge import difference
from treenail.kernel import ConfigError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a file that builds on another."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "optimizer_cfg.yaml").write_text(
        "optimizer: {type: SGD, lr: 0.02, momentum: 0.9, weight_decay: 0.0001}\n"
    )
    (tmp_path / "resnet50.yaml").write_text("_base_: [optimizer_cfg.yaml]\nmodel: {type: ResNet, depth: 50}\n")
    return tmp_path


# --- overrides by argparse ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("1", 1),
        ("-3", -3),
        ("1e-4", 1e-4),
        ("true", True),
        ("False", False),
        ("None", None),
        ("inf", float("inf")),
        ("adam", "adam"),
        ("", ""),
        ("a=b", "a=b"),
        ("'1'", "1"),
        ('"a,b"', "a,b"),
        ("it's", "it's"),
        ("ReLU(inplace)", "ReLU(inplace)"),
        ("a,b", ["a", "b"]),
        ("8,11", [8, 11]),
        ("[a,b]", ["a", "b"]),
        ("[1, 1, 1]", [1, 1, 1]),
        ("8,", [8]),
        ("[]", []),
        ("()", ()),
        ("[(a,b),(c,d)]", [("a", "b"), ("c", "d")]),
        ("((1,2),(3,4))", ((1, 2), (3, 4))),
        ("(1)", (1,)),
        ("(1,2),[3]", [(1, 2), [3]]),
        ("[ 'a b' , \"c\", d e ]", ["a b", "c", "d e"]),
        ("[None, 1.5, true, x]", [None, 1.5, True, "x"]),
    ],
)
def test_an_option_is_one_of_seven_types(text: str, value: Any) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=DictAction)
    found = parser.parse_args(["--cfg-options", f"key={text}", "other=1"]).cfg_options
    assert found == {"key": value, "other": 1}
    assert type(found["key"]) is type(value)


@pytest.mark.parametrize(
    "text", ["key", "=1", "key=[1", "key=a,1]", "key=[1,)", "key=(1 [2])", "key=[,1]", "key=" + "[" * 5000]
)
def test_a_wrong_option_ends_the_script_with_a_message(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=OverrideAction)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--cfg-options", text])
    assert "argument --cfg-options: '" in capsys.readouterr().err


# --- round trips ---

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
TUPLES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab: #,()'1", max_size=5),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
).filter(lambda value: isinstance(value, tuple))
TREES = st.dictionaries(
    st.text(max_size=5) | st.integers(),
    st.recursive(
        SCALARS | TUPLES | st.sampled_from(["(1, 2)", "()", "1_000", "0x1F", ".inf", "~", "true", "a: b", "- a", "[1"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


def alike(one: Any, other: Any) -> bool:
    """Return whether values and types agree, at every depth."""
    if isinstance(one, dict):
        return (
            isinstance(other, dict) and one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
        )
    if isinstance(one, list | tuple):
        kind = tuple if isinstance(one, tuple) else list
        return isinstance(other, kind) and len(one) == len(other) and all(map(alike, one, other))
    return type(one) is type(other) and bool(one == other)


def test_texts_like_tuples_and_numbers_stay_texts() -> None:
    texts = [
        "(1, 2)",
        "()",
        "(a, b",
        "1_000",
        "0x1F",
        "1e3",
        "+1",
        ".5",
        "~",
        "null",
        "True",
        "a: b",
        "- a",
        "[1",
        "",
        " x ",
    ]
    entries = {"list": texts, "mapping": {text: text for text in texts}}
    assert ConfigTree.load(ConfigTree(entries).dump()) == entries


@given(TREES)
@example({"a": ("x: y", "it's", " #", "1", "")})
@example({"a": "(1, 2)", "b": [(1,)], "c": {"d": ()}})
def test_what_is_written_as_yaml_is_read_back_with_its_types(entries: dict[Any, Any]) -> None:
    config = ConfigTree(entries)
    try:
        text = config.dump()
    except ConfigError:
        return  # said so, and nothing was written: see the test of what YAML cannot say
    assert alike(entries, ConfigTree.load(text).to_dict())
    assert list(ConfigTree.load(text)) == list(entries)


@given(TREES)
def test_only_strange_texts_cannot_be_written(entries: dict[Any, Any]) -> None:
    def printable(value: Any) -> bool:
        if isinstance(value, dict):
            return all(printable(key) and printable(inner) for key, inner in value.items())
        if isinstance(value, list):
            return all(map(printable, value))
        return not isinstance(value, tuple) and (not isinstance(value, str) or value.isprintable())

    if printable(entries):
        assert ConfigTree(entries).dump()


@pytest.mark.parametrize(
    ("entries", "format_", "message"),
    [
        ({"a": [{"b": {1, 2}}]}, "yaml", r"^a\[0\]\.b: a set cannot be written to a file"),
        ({"a": (1, {"b": 2})}, "yaml", r"^a\[1\]: \{'b': 2\} cannot be written inside a tuple"),
        ({"a": ("x'\"",)}, "yaml", r"^a\[0\]: .* cannot be written inside a tuple"),
        ({3: 1}, "json", r"^\[3\]: a key of JSON is a text; use '3', or YAML"),
        ({"a": float("nan")}, "json", "^a: JSON has no nan; write YAML"),
        ({"a": 1}, "toml", "not written as TOML"),
        ({"a": 1}, "yml2", "'yml2' is no format of a config; did you mean 'yml'"),
    ],
)
def test_what_a_format_cannot_say_is_not_written(
    tmp_path: Path, entries: dict[Any, Any], format_: str, message: str
) -> None:
    target = tmp_path / "out"
    with pytest.raises(ConfigError, match=message):
        ConfigTree(entries).dump(target, format=format_)
    assert not target.exists()


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no/c\.yaml: the file cannot be written"):
        ConfigTree().save(tmp_path / "no" / "c.yaml")


@given(TREES, TREES)
def test_a_difference_says_everything(entries: dict[Any, Any], base: dict[Any, Any]) -> None:
    merged = ConfigTree(base)
    merged.merge(difference(entries, base))
    assert alike(entries, merged.to_dict())


def test_only_the_difference_is_saved(folder: Path) -> None:
    (folder / "sub").mkdir()
    config = Config.fromfile("resnet50.yaml")
    del config.optimizer.momentum
    config.model.depth = 18
    config.gpu_ids = []
    config.size = (224, (1,))
    config.save_difference("sub/own.yaml", "resnet50.yaml")
    assert Config.open("sub/own.yaml") == {
        "_base_": "../resnet50.yaml",
        "optimizer": {"_delete_": True, "type": "SGD", "lr": 0.02, "weight_decay": 0.0001},
        "model": {"depth": 18},
        "gpu_ids": [],
        "size": (224, (1,)),
    }
    assert Config.fromfile("sub/own.yaml") == config
    config.fresh = {}
    del config.model
    with pytest.raises(ConfigError, match=r"resnet50\.yaml: the base has an entry 'model' that this config has not"):
        config.save_difference("other.yaml", "resnet50.yaml")
    for value, place in (("${env:HOME}", "a.b"), ((1, ("{{x}}",)), r"a\.b\[1\]\[0\]")):
        with pytest.raises(ConfigError, match=rf"^{place}: .* begin a reference"):
            Config({"a": {"b": value}} | Config.fromfile("resnet50.yaml")).save_difference("o.yaml", "resnet50.yaml")
    assert not Path("o.yaml").exists()
