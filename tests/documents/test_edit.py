"""Edits of files by `treenail config set`: what was meant changes, every other character stays."""

import difflib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.documents.plain import plain
from treenail.adapters.documents import Edit, InvalidConfigError, edit_document, read_document, replace_text
from treenail.kernel import ConfigError, FileError

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"

Edited = Callable[..., str]


@pytest.fixture
def edited(tmp_path: Path) -> Edited:
    def edit(text: str, *edits: Edit, suffix: str = ".yaml") -> str:
        path = tmp_path / f"run{suffix}"
        path.write_bytes(text.encode())
        return edit_document(path, edits)

    return edit


def changed_lines(new: str) -> list[str]:
    old = DIGITS.read_text(encoding="utf-8")
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm="")
    return [line for line in lines if line[0] in "+-" and not line.startswith(("+++", "---"))]


@pytest.mark.parametrize(
    ("edit", "lines"),
    [
        (
            Edit(("optimizer", "lr"), 3e-4),
            [
                "-optimizer: {type: AdamW, lr: 2e-3, weight_decay: 0.01}",
                "+optimizer: {type: AdamW, lr: 0.0003, weight_decay: 0.01}",
            ],
        ),
        (
            Edit(("threads",), 4),
            [
                "-threads: 1 # a small model is fastest so, and its results do not depend on the machine's cores",
                "+threads: 4 # a small model is fastest so, and its results do not depend on the machine's cores",
            ],
        ),
        (Edit(("model", "args", 2, "type"), "GELU"), ["-    - {type: ReLU}", "+    - {type: GELU}"]),
        (
            Edit(("schedules", 0, "scheduler", "T_max"), 10),
            [
                "-  - scheduler: {type: CosineAnnealingLR, T_max: 300} # 15 epochs of 20 steps",
                "+  - scheduler: {type: CosineAnnealingLR, T_max: 10} # 15 epochs of 20 steps",
            ],
        ),
        (Edit(("hooks", "ema"), {"type": "ema"}, "add"), ["+  ema: {type: ema}"]),
        (Edit(("hooks", "ema", "decay"), 0.9), ["+  ema: {decay: 0.9}"]),
        (Edit(("model", "args", 10), {"type": "ReLU"}, "add"), ["+    - {type: ReLU}"]),
        (Edit(("hooks", "best"), action="remove"), ["-  best: {type: best, metric: val/accuracy, mode: max}"]),
        (Edit(("model", "args", 7), action="remove"), ["-    - {type: Flatten}"]),
        (Edit(("loop", "type"), action="remove"), ["-loop: {type: epochs, max_epochs: 15}", "+loop: {max_epochs: 15}"]),
        (
            Edit(("val", "metrics", 1), {"type": "f1"}, "add"),
            ["-  metrics: [{type: accuracy}]", "+  metrics: [{type: accuracy}, {type: f1}]"],
        ),
        (Edit(("new", "deep", "key"), [1, 2]), ["+new:", "+  deep:", "+    key: [1, 2]"]),
    ],
)
def test_one_edit_of_the_digits_is_a_small_difference(edit: Edit, lines: list[str]) -> None:
    new = edit_document(DIGITS, [edit])
    assert sorted(changed_lines(new)) == sorted(lines)


def test_edits_follow_each_other_and_none_changes_nothing() -> None:
    assert edit_document(DIGITS, []) == DIGITS.read_text(encoding="utf-8")
    new = edit_document(DIGITS, [Edit(("a", "b"), 1), Edit(("a", "b"), action="remove"), Edit(("a",), action="remove")])
    assert new == DIGITS.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "edit", "expected"),
    [
        ("a:   'x'   # why\n", Edit(("a",), "y"), "a:   y   # why\n"),
        ("a: x # why\nb: 1\n", Edit(("a",), {"c": {"d": 1}, "e": [{"f": 1}, 2]}), None),
        ("a: # why\n  b: 1\nc: 2\n", Edit(("a",), 3), "a: 3 # why\nc: 2\n"),
        ("a: # why\n  b: 1\nc: 2\n", Edit(("a",), {"x": {"y": 1}}), "a: # why\n  x: {y: 1}\nc: 2\n"),
        ("a:\nb: 1\n", Edit(("a", "c"), 1), "a: {c: 1}\nb: 1\n"),
        ("a:\nb: 1\n", Edit(("a",), 2), "a: 2\nb: 1\n"),
        ("a: ~", Edit(("a",), "~"), 'a: "~"'),
        ("a: 1", Edit(("b",), 2), "a: 1\nb: 2"),
        ("a: 1\r\nb: 2\r\n", Edit(("c", "d"), 3), "a: 1\r\nb: 2\r\nc: {d: 3}\r\n"),
        ("a: |\n  x\n  y\n# next\nb: 1\n", Edit(("a",), "z"), "a: z\n# next\nb: 1\n"),
        ("a: >-\n  x\n\n# next\nb: 1\n", Edit(("a",), action="remove"), "\n# next\nb: 1\n"),
        (
            "a:\n  b: 1 # 1\n\n  # 2\n  c: 2\n# end\n",
            Edit(("a", "d"), 3),
            "a:\n  b: 1 # 1\n\n  # 2\n  c: 2\n  d: 3\n# end\n",
        ),
        ("a:\n- 1\n- 2\nb: 1\n", Edit(("a", 2), 3, "add"), "a:\n- 1\n- 2\n- 3\nb: 1\n"),
        ("a:\n- 1\n- 2\nb: 1\n", Edit(("a", 0), action="remove"), "a:\n- 2\nb: 1\n"),
        ("a:\n-   1 # x\n", Edit(("a", 0), 2), "a:\n-   2 # x\n"),
        ("a:\n-\n- 1\n", Edit(("a", 0, "x"), 2), None),
        ("a:\n- x: 1\n  y: 2\n", Edit(("a", 0, "x"), action="remove"), "a:\n- y: 2\n"),
        ("a:\n- x: 1\n  y: 2\n", Edit(("a", 0, "y"), action="remove"), "a:\n- x: 1\n"),
        ("a:\n- x: 1\n  y: 2\n", Edit(("a", 0, "z"), 3), "a:\n- x: 1\n  y: 2\n  z: 3\n"),
        ("a:\n- x: 1\n  y: 2\n", Edit(("a", 0), action="remove"), "a: []\n"),
        ("- - 1\n  - 2\n- 3\n", Edit((0, 0), action="remove"), "- - 2\n- 3\n"),
        ("a: {}\n", Edit(("a", "b"), 1), "a: {b: 1}\n"),
        ("a: { }\n", Edit(("a", "b"), 1), None),
        ("a: [1,2]\n", Edit(("a", 2), 3, "add"), "a: [1,2,3]\n"),
        ("a: {b: 1, c: 2} # x\n", Edit(("a", "c"), action="remove"), "a: {b: 1} # x\n"),
        ("a: {b: 1}\n", Edit(("a", "b"), action="remove"), "a: {}\n"),
        ("a: {\n  b: 1, # one\n  c: 2 # two\n}\n", Edit(("a", "d"), 3), None),
        ("'a b': 1\n1: x\n", Edit((1,), "y"), "'a b': 1\n1: y\n"),
        ('"a: b": 1 # x\n', Edit(("a: b",), 2), '"a: b": 2 # x\n'),
        ("a: 1\n", Edit(("a",), action="remove"), "{}\n"),
        ("{a: 1}\n", Edit(("b",), {"c": [1]}), "{a: 1, b: {c: [1]}}\n"),
        ("é: ü # ö\nb: 1\n", Edit(("b",), "ä"), "é: ü # ö\nb: ä\n"),
        ("a: 1\n", Edit(("b",), "${env:X:1}"), 'a: 1\nb: "${env:X:1}"\n'),
        ("---\na: 1\n...\n", Edit(("b",), 2), "---\na: 1\nb: 2\n...\n"),
    ],
)
def test_layouts_of_yaml(edited: Edited, text: str, edit: Edit, expected: str | None) -> None:
    new = edited(text, edit)  # whose data has been compared with what is meant
    if expected is not None:
        assert new == expected
    comments = [line.partition("#")[2] for line in text.splitlines() if "#" in line]
    assert all(comment in new for comment in comments)


JSON = '{\n\t"a": [1, 2],\n\t"b": {"c": "\\u00e9"},\n\t"d": 1\n}\n'


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (Edit(("d",), {"x": None}), JSON.replace('"d": 1', '"d": {"x": null}')),
        (Edit(("a", 0), 5), JSON.replace("[1,", "[5,")),
        (Edit(("a", 2), 3, "add"), JSON.replace("[1, 2]", "[1, 2, 3]")),
        (Edit(("e", "f"), "é"), JSON.replace('"d": 1', '"d": 1,\n\t"e": {"f": "\\u00e9"}')),
        (Edit(("b", "e"), True), JSON.replace('"\\u00e9"', '"\\u00e9", "e": true')),
        (Edit(("d",), action="remove"), JSON.replace(',\n\t"d": 1', "")),
        (Edit(("a",), action="remove"), JSON.replace('"a": [1, 2],\n\t', "")),
    ],
)
def test_json_keeps_its_indentation(edited: Edited, edit: Edit, expected: str) -> None:
    new = edited(JSON, edit, suffix=".json")
    assert new == expected
    json.loads(new)


TOML = """\
# settings
seed = 0 # why

[optimizer] # the usual
type = "AdamW"
lr = 2e-3   # small

[[hooks]]
type = "ema"
"""


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (Edit(("seed",), 1), TOML.replace("seed = 0", "seed = 1")),
        (Edit(("optimizer", "lr"), 0.1), TOML.replace("2e-3", "0.1")),
        (Edit(("optimizer", "type"), action="remove"), TOML.replace('type = "AdamW"\n', "")),
        (Edit(("hooks", 0, "decay"), 0.5), TOML + "decay = 0.5\n"),
    ],
)
def test_toml_keeps_its_comments(edited: Edited, edit: Edit, expected: str) -> None:
    assert edited(TOML, edit, suffix=".toml") == expected


@pytest.mark.parametrize(
    "edit", [Edit(("a", "b"), {"c": [1, {"d": 2}]}), Edit(("hooks", 1), {"type": "x"}, "add"), Edit(("x",), [])]
)
def test_toml_takes_new_tables(edited: Edited, edit: Edit) -> None:
    assert "# the usual" in edited(TOML, edit, suffix=".toml")


@pytest.mark.parametrize(
    ("edit", "where", "message"),
    [
        (
            Edit(("optimizer", "tpye"), action="remove"),
            "21:12",
            "there is no 'tpye' in 'optimizer'; did you mean 'type'?",
        ),
        (Edit(("optimizer", "lr", "x"), 1), "21:30", "'optimizer.lr' is neither a mapping nor a list"),
        (Edit(("optimizer", "lr"), 1, "add"), "21:30", "there already; leave out the +"),
        (
            Edit(("model", "args", 10), {}),
            "9:5",
            "'model.args' is a list of 10; '10' is not one of its numbers; +model.args[10]",
        ),
        (Edit(("model", "args", 11), {}, "add"), "9:5", "is a list of 10"),
        (Edit(("model", "args", -1), {}), "9:5", "is a list of 10"),
        (Edit(("model", "args", "first"), {}), "9:5", "'first' is not one of its numbers"),
        (Edit(("new", 0), 1), "3:1", "there is no list for the number 0"),
        (Edit((), 1), "3:1", "name a key"),
        (Edit(("seed",)), "3:7", "a removal has no value"),
        (Edit(("seed",), 1, "remove"), "3:7", "a removal has no value"),
    ],
)
def test_an_edit_that_leads_to_nothing_says_where(edit: Edit, where: str, message: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        edit_document(DIGITS, [edit])
    (mistake,) = caught.value.mistakes
    assert mistake.where == f"{DIGITS}:{where}"
    assert message in mistake.message


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("a: &x {b: 1}\nc: *x\n", Edit(("c", "b"), 2)),
        ("a: &x {b: 1}\nc: *x\n", Edit(("a",), 2)),
        ("a: |+\n  x\n\n", Edit(("b",), 2)),
        ("a: {b, c: 1}\n", Edit(("a", "b"), 2)),
    ],
)
def test_what_cannot_be_edited_alone_is_refused(edited: Edited, text: str, edit: Edit) -> None:
    with pytest.raises(ConfigError, match="without touching other parts of the file; edit it by hand"):
        edited(text, edit)


@pytest.mark.parametrize(
    ("suffix", "value", "message"),
    [
        (".toml", {"b": [None]}, "TOML has no null"),
        (".toml", {1: "x"}, "a key of TOML is a text; quote 1"),
        (".json", float("nan"), "JSON has no nan"),
        (".yaml", [1j], "YAML cannot hold a complex"),
    ],
)
def test_a_value_that_the_format_cannot_hold_is_refused(
    edited: Edited, suffix: str, value: object, message: str
) -> None:
    text = {".toml": "a = 1\n", ".json": '{"a": 1}', ".yaml": "a: 1\n"}[suffix]
    with pytest.raises(InvalidConfigError, match=message) as caught:
        edited(text, Edit(("a",), value), suffix=suffix)
    assert caught.value.mistakes[0].path == "a"


def test_toml_whose_tables_would_have_to_be_rewritten_is_refused(edited: Edited) -> None:
    for edit in (Edit(("hooks", 0), 1), Edit(("hooks", 1), "x", "add")):
        with pytest.raises(ConfigError, match="without touching other parts"):
            edited(TOML, edit, suffix=".toml")


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "a: !!python/name:os.system x\n", "a: [\n", ""])
def test_a_wrong_file_is_not_edited(edited: Edited, text: str) -> None:
    with pytest.raises(ConfigError):
        edited(text, Edit(("a",), 3))


KEYS = st.sampled_from(["a", "b", "c d", "e:f", "${env:X}", "1"])
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.sampled_from(["x", "", "# no", "a: b", "\n"]),
    ),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(KEYS, part, max_size=3),
    max_leaves=8,
)


def places(tree: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    parts = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    return [found for part, inner in parts for found in ((*path, part), *places(inner, (*path, part)))]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), tree=st.dictionaries(KEYS, VALUES, min_size=1), suffix=st.sampled_from([".yaml", ".json"]))
def test_any_place_can_be_set_and_removed(
    tmp_path: Path, data: st.DataObject, tree: dict[str, Any], suffix: str
) -> None:
    from treenail.adapters.documents.emit import yaml_text

    path = tmp_path / f"any{suffix}"
    finite = suffix == ".yaml" or "inf" not in repr(tree)
    path.write_text(json.dumps(tree, indent=2) if suffix == ".json" and finite else yaml_text(tree), encoding="utf-8")
    if not finite:
        path = path.rename(path.with_suffix(".yaml"))
    where = data.draw(st.sampled_from(places(tree)))
    value = data.draw(VALUES.filter(lambda value: "inf" not in repr(value)))
    path.write_text(edit_document(path, [Edit(where, value)]), encoding="utf-8", newline="")
    found: Any = plain(read_document(path).data)
    for part in where:
        found = found[part]
    assert repr(found) == repr(value)
    removed = edit_document(path, [Edit(where, action="remove")])
    path.write_text(removed, encoding="utf-8", newline="")
    rest: Any = plain(read_document(path).data)
    for part in where[:-1]:
        rest = rest[part]
    before: Any = tree
    for part in where[:-1]:
        before = before[part]
    assert len(rest) == len(before) - 1


def test_a_text_is_replaced_whole_with_its_mode_and_through_a_link(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("a: 1\n")
    path.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to(path)
    replace_text(link, "a: ä\r\n")
    assert path.read_bytes() == "a: ä\r\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link.yaml", "run.yaml"]
    replace_text(tmp_path / "new.yaml", "b: 1\n")
    assert (tmp_path / "new.yaml").read_text() == "b: 1\n"


def test_a_failed_replacement_leaves_the_old_text_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").mkdir()
    with pytest.raises(FileError, match=r"run\.yaml: the file cannot be written"):
        replace_text(tmp_path / "run.yaml", "a: 1\n")
    assert os.listdir(tmp_path) == ["run.yaml"]
    with pytest.raises(FileError):
        replace_text(tmp_path / "no" / "run.yaml", "a: 1\n")
