"""JSON as data with places: what is right is what Python's json takes, and what is wrong says what and where."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.documents.plain import plain
from treenail.adapters.documents import InvalidConfigError, parse_json
from treenail.kernel import ConfigError, TreenailError


def test_every_part_has_its_place() -> None:
    document = parse_json('{"a": 1,\n "b": [true, {"c": null}],\n "d": {} }', "run.json")
    places = {
        ("a",): ("run.json:1:7", "run.json:1:2"),
        ("b",): ("run.json:2:7", "run.json:2:2"),
        ("b", 0): ("run.json:2:8", "run.json:2:8"),
        ("b", 1): ("run.json:2:14", "run.json:2:14"),
        ("b", 1, "c"): ("run.json:2:20", "run.json:2:15"),
        ("d",): ("run.json:3:7", "run.json:3:2"),
    }
    assert {path: (document.locate(path), document.locate(path, key=True)) for path in places} == places


REFUSED = [
    ('{"a": 1,}', "x:1:8: JSON syntax: JSON has no comma before '}'; remove it"),
    ("[1,\n]", "x:1:3: JSON syntax: JSON has no comma before ']'; remove it"),
    ('{"a": 1 // c\n}', "x:1:9: JSON syntax: JSON has no comments"),
    ("# c\n{}", "x:1:1: JSON syntax: JSON has no comments"),
    ("[1, /* c */ 2]", "x:1:5: JSON syntax: JSON has no comments"),
    ("{'a': 1}", "x:1:2: JSON syntax: JSON has no single quotes; write double quotes"),
    ("{a: 1}", "x:1:2: JSON syntax: a key in double quotes is expected here, not 'a'"),
    ("[NaN]", "x:1:2: JSON syntax: JSON has no 'NaN'; write null"),
    ("[-Infinity]", "x:1:2: JSON syntax: JSON has no '-Infinity'"),
    ("[True]", "x:1:2: JSON syntax: 'True' is not a value of JSON; write true"),
    ("[01]", "x:1:2: JSON syntax: '01' is not a value"),
    ("[+1]", "x:1:2: JSON syntax: '+1' is not a value"),
    ("[.5]", "x:1:2: JSON syntax: '.5' is not a value"),
    ("[1 2]", "x:1:4: JSON syntax: ',' or ']' is expected here, not '2'"),
    ('{"a" 1}', "x:1:6: JSON syntax: ':' after the key is expected here, not '1'"),
    ("1 2", "x:1:3: JSON syntax: the end of the file is expected here, not '2'"),
    ("[", "x:1:2: JSON syntax: the file ends where a value is expected"),
    ('["a\nb"]', "x:1:2: JSON syntax: this string is not closed in its line"),
    ('["a\tb"]', "x:1:4: JSON syntax: a tab in a string is written"),
    ('["abc', "x:1:2: JSON syntax: this string is not closed"),
    (r'["\x"]', "x:1:3: JSON syntax: this is no escape of JSON"),
    (r'["\ud800"]', "x:1:2: [0]: this text holds half a surrogate pair"),
    ('{"a": 1,\n"a": 2}', "x:2:1: a: this key occurs twice, first in line 1"),
    ("[1e999]", "x:1:2: [0]: 1e999 is too large for a float"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[text for text, _ in REFUSED])
def test_what_is_refused_says_which_and_where(text: str, message: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        parse_json(text, "x")
    (mistake,) = caught.value.mistakes
    assert str(mistake).startswith(message)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        parse_json('{"a": 1, "a": 1e999,\n "b": "\\u0000", "c": [}', "x")
    assert [mistake.where for mistake in caught.value.mistakes] == ["x:1:10", "x:1:15", "x:2:7", "x:2:23"]


def test_a_file_without_content_is_empty() -> None:
    with pytest.raises(ConfigError, match="the file is empty"):
        parse_json(" \n", "x")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def attempt(text: str) -> tuple[object, str]:
    """Return what is read, and the error's message or an empty text."""
    try:
        return plain(parse_json(text, "x").data), ""
    except TreenailError as error:
        return None, str(error)


@given(values, st.booleans(), st.sampled_from([None, 2]))
def test_what_python_writes_is_read_back(value: object, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    read, refused = attempt(text)
    told = ("NUL", "unacceptable character", "byte order mark", "surrogate")  # what no config may hold
    assert any(part in refused for part in told) if refused else read == value


def reject(word: str) -> None:
    raise ValueError(word)


@given(st.text(alphabet="[]{},:\"\\ \n0123456789.eE+-truefalsn/'u", max_size=24))
def test_what_python_takes_is_taken_and_nothing_else(text: str) -> None:
    try:
        expected = json.loads(text, parse_constant=reject)
    except ValueError:
        expected = reject
    found, refused = attempt(text)
    if refused:
        told = ("occurs twice", "too large for a float", "surrogate", "NUL")
        assert expected is reject or any(part in refused for part in told)
    else:
        assert found == expected
