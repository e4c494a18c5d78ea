"""YAML as data with places: what scalars mean, where things stand, what is refused, and that libyaml changes nothing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.documents.plain import plain, whole
from treenail.adapters.documents import InvalidConfigError, Map, parse_yaml
from treenail.kernel import ConfigError, TreenailError

CONFIGS = Path(__file__).parents[2] / "configs"

SCALARS: list[tuple[str, object]] = [
    *((text, None) for text in ("null", "Null", "NULL", "~", "")),
    *((text, True) for text in ("true", "True", "TRUE")),
    *((text, False) for text in ("false", "False", "FALSE")),
    *((text, text) for text in ("yes", "no", "on", "off", "Y", "n", "tRUE", "nuLL", "=")),
    *(("0", 0), ("+1", 1), ("-12", -12), ("012", 12), ("0o17", 15), ("0x1F", 31), ("0b101", 5), ("1_000", 1000)),
    *(("2e-3", 2e-3), ("1e-4", 1e-4), ("10e-4", 10e-4), ("3e4", 3e4), ("1e5", 1e5), ("1E+2", 1e2)),
    *((".5", 0.5), ("5.", 5.0), (".5e3", 500.0), ("-0.0", -0.0), ("1_0.5_0", 10.5), ("-0x1f", -31)),
    *((".inf", float("inf")), ("-.INF", float("-inf")), ("+.Inf", float("inf")), (".nan", float("nan"))),
    *(
        (text, text)
        for text in ("2020-01-01", "2001-12-14t21:59:43.10-05:00", "1:30", "1.2.3", "1e", "0o8", "+_", "0x_")
    ),
    *((text, text) for text in (".", "-x", "+", "-_1", "1,000", "inf", "nan", "(1, 2)", "/a/b", "a#b", "a:b")),
    *(
        ("'1'", "1"),
        ('"null"', "null"),
        ("''", ""),
        ("'it''s'", "it's"),
        (r'"\u00e9\n"', "é\n"),
        (r'"\ud83d\ude00"', "😀"),
    ),
    *(("!!str 1", "1"), ("!!int '3'", 3), ("!!float 1", 1.0), ("!!bool true", True), ("!!null ''", None)),
]


@pytest.mark.parametrize(("text", "value"), SCALARS, ids=[text for text, _ in SCALARS])
def test_a_scalar_means_what_the_core_schema_says(text: str, value: object) -> None:
    data = parse_yaml(f"k: {text}", "x").data
    assert isinstance(data, Map)
    assert (type(data["k"]), repr(data["k"])) == (type(value), repr(value))


TUPLES: list[tuple[str, object]] = [
    ("(224, 224)", (224, 224)),
    ("(1,)", (1,)),
    ("()", ()),
    ("( )", ()),
    ("((1, 2.5), (a b, 'c, d', null), ())", ((1, 2.5), ("a b", "c, d", None), ())),
    ("(1)", "(1)"),
    ("(word)", "(word)"),
    ("(1, 2) and more", "(1, 2) and more"),
    ("(1, 2) (3, 4)", "(1, 2) (3, 4)"),
    ("(one (two), three)", "(one (two), three)"),
    ("'(1, 2)'", "(1, 2)"),
    ("1e-3", 1e-3),
]


@pytest.mark.parametrize(("text", "value"), TUPLES, ids=[text for text, _ in TUPLES])
def test_a_tuple_is_read_where_it_is_asked_for(text: str, value: object) -> None:
    assert plain(parse_yaml(f"k: {text}", "x", tuples=True).data) == {"k": value}
    assert not isinstance(parse_yaml(text, "x").data, tuple)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[(1, 2)]", "x:1:2: [0]: the parentheses of this tuple do not match; inside [] or {}"),
        ("k: (1,, 2)", "x:1:4: k: an item of this tuple is missing"),
        ("k: (,)", "an item of this tuple is missing"),
        ("k: (1, 1e999)", "x:1:4: k: 1e999 is too large for a float"),
        (f"k: {'(' * 150}{',)' * 150}", "nested too deeply"),
    ],
)
def test_a_tuple_that_cannot_be_meant_is_a_mistake(text: str, message: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        parse_yaml(text, "x", tuples=True)
    assert message in str(caught.value)


def test_every_part_has_its_place() -> None:
    text = "a: 1\nb:\n  - x\n  - {c: 'y',\n     d: }\n-1: &n [2]\ne: *n\n"
    document = parse_yaml(text, "run.yaml")
    places = {
        ("a",): ("run.yaml:1:4", "run.yaml:1:1"),
        ("b",): ("run.yaml:3:3", "run.yaml:2:1"),
        ("b", 0): ("run.yaml:3:5", "run.yaml:3:5"),
        ("b", 1): ("run.yaml:4:5", "run.yaml:4:5"),
        ("b", 1, "c"): ("run.yaml:4:9", "run.yaml:4:6"),
        ("b", 1, "d"): ("run.yaml:5:6", "run.yaml:5:6"),  # nothing is written there: the place of its key
        (-1,): ("run.yaml:6:5", "run.yaml:6:1"),
        (-1, 0): ("run.yaml:6:9", "run.yaml:6:9"),
        ("e",): ("run.yaml:6:5", "run.yaml:7:1"),  # the value stands where the anchor is
        ("e", 0): ("run.yaml:6:9", "run.yaml:6:9"),
    }
    assert {path: (document.locate(path), document.locate(path, key=True)) for path in places} == places


def test_an_alias_is_a_copy() -> None:
    data = parse_yaml("a: &x {k: [1]}\nb: *x\n", "x").data
    assert isinstance(data, Map)
    assert data["a"] == data["b"]
    first, second = data["a"], data["b"]
    assert isinstance(first, Map)
    assert isinstance(second, Map)
    assert first is not second
    assert first["k"] is not second["k"]
    assert first.marks is not second.marks


REFUSED = [
    ("a: 1\na: 2\na: 3", ["x:2:1: a: this key occurs twice, first in line 1", "x:3:1: a: this key occurs twice"]),
    ("1: a\n0x1: b", ["x:2:1: [1]: this key occurs twice, first in line 1"]),
    ("true: a\n1.5: b\n~: c\n.nan: d\n[1]: e\n{}: f", [f"x:{line}:1: a key must be a word" for line in range(1, 7)]),
    ("a: !!int x\nb: !!map [1]\nc: !!seq {}", ["x:1:4: a: the tag !!int does not", "x:2:4: b: the", "x:3:4: c: the"]),
    (
        "a: !env HOME\nb: !!binary eA==",
        ["x:1:4: a: the tag !env is not allowed, tags can name code", "x:2:4: b: the tag"],
    ),
    ("{<<: {a: 1}}", ["x:1:2: merge keys (<<) are not supported; write the fields out"]),
    ("a: *b", ["x:1:4: a: the alias *b names nothing"]),
    ("# c\n%YAML 1.1\n---\na: 1", ["x:2:1: the directives %YAML and %TAG are not supported"]),
    ("%YAML 1.22\n---\na: 1", ["x:1:1: the directives %YAML and %TAG"]),
    ("%TAG ! tag:yaml.org,2002:\n---\na: !str 1", ["x:1:1: the directives %YAML and %TAG"]),
    ("a: 1\n---\nb: 2", ["x:2:1: another document begins here; a config file holds one"]),
    ("a: 1\n...\nb: 2", ["x:3:1: "]),
    ("a: [1, 2", ["x:1:9: YAML syntax: expected ',' or ']', but got '<stream end>'; the bracket of line 1, column 4"]),
    ("a:\n  b: 'c\nd: 1\n", ["x:2:6: YAML syntax: this quote is not closed"]),
    ("a:\n\tb: 1", ["x:2:1: YAML syntax: a tab stands where"]),
    ("a:\n  b: 1\n c: 2", ["x:3:2: YAML syntax: "]),
    ("a: 1\na: 2\nb: [", ["x:2:1: a: this key occurs twice", "x:3:5: YAML syntax: "]),
    ('a: "\\UFFFFFFFF"', ["x:1:1: YAML syntax: after this, an escape in double quotes names no character"]),
]


@pytest.mark.parametrize(("text", "messages"), REFUSED, ids=[text for text, _ in REFUSED])
def test_what_is_refused_is_told_with_its_place_and_all_at_once(text: str, messages: list[str]) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        parse_yaml(text, "x")
    found = [str(mistake) for mistake in caught.value.mistakes]
    assert len(found) == len(messages), found
    for mistake, message in zip(found, messages, strict=True):
        assert mistake.startswith(message)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---", "---\n...\n"])
def test_a_file_without_content_is_empty(text: str) -> None:
    with pytest.raises(ConfigError, match="the file is empty; `treenail template run`"):
        parse_yaml(text, "x")


@pytest.mark.parametrize(
    ("text", "data"), [("3", 3), ("[1]", [1]), ("null", None), ("a\r\n", "a"), ("- a\r- b", ["a", "b"])]
)
def test_any_value_may_be_the_root_and_any_line_end_ends_a_line(text: str, data: object) -> None:
    assert plain(parse_yaml(text, "x").data) == data


@contextmanager
def without_libyaml() -> Iterator[None]:
    """Make the compiled parser as good as not installed."""
    before = sys.modules.get("_ruamel_yaml")
    sys.modules["_ruamel_yaml"] = None  # type: ignore[assignment]  # how Python itself notes that a module is not there
    try:
        yield
    finally:
        if before is None:
            del sys.modules["_ruamel_yaml"]
        else:
            sys.modules["_ruamel_yaml"] = before


def outcome(text: str, *, tuples: bool) -> object:
    try:
        return whole(parse_yaml(text, "x", tuples=tuples))
    except TreenailError as error:
        return type(error), str(error)


PIECES = [
    *(
        "a",
        "b: ",
        "- ",
        "? ",
        ": ",
        "\n",
        "\n  ",
        "\n    ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        ",",
        "'x'",
        '"y"',
        "&a ",
        "*a ",
        "*a",
    ),
    *("!!str ", "!t ", "#c", " # c\n", "|\n", "> \n", "|-\n  ", "|+\n", "1", "~", "-", "?", ":", " ", "%", "@", "`"),
    *(
        "---\n",
        "...\n",
        "\t",
        "\\",
        "'",
        '"',
        "<<: ",
        "é",
        "=",
        "!",
        "x y",
        "0",
        ": {",
        "- {a: 1}\n",
        "\nb:\n",
        "x: 1\n",
    ),
    *(
        "\n- ",
        ": [",
        "''",
        "://",
        "a:b",
        "a#b",
        "\n\n",
        ">-\n   ",
        "|2\n",
        "]\n",
        "}\n",
        "- - ",
        r'"\u0041"',
        "(1, 2)",
        "(",
    ),
    *(
        "1e5",
        ".inf",
        "\r\n",
        "? a\n: b\n",
        "!!int 3",
        "\u2028",
        "\x85",
        "\ufeff",
        "\x07",
        r'"\ud800"',
        "1e999",
        "%YAML 1.2\n",
    ),
]
yaml_like = st.lists(st.sampled_from(PIECES), max_size=16).map("".join)


@settings(max_examples=250, deadline=None)
@given(st.one_of(yaml_like, st.text(max_size=40)), st.booleans())
def test_a_text_means_the_same_with_and_without_libyaml(text: str, tuples: bool) -> None:
    pytest.importorskip("_ruamel_yaml", reason="ruamel.yaml.clib is not installed, so that there is nothing to compare")
    fast = outcome(text, tuples=tuples)
    with without_libyaml():
        assert outcome(text, tuples=tuples) == fast


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.name)
def test_our_configs_mean_the_same_with_and_without_libyaml(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    fast = outcome(text, tuples=False)
    with without_libyaml():
        assert outcome(text, tuples=False) == fast
