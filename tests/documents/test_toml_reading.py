"""TOML as data with places: tomllib decides what is right, and every key and value has its own place."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.documents.plain import plain, whole
from treenail.adapters.documents import InvalidConfigError, parse_toml
from treenail.kernel import ConfigError

TEXT = """\
a = 1
b.c = "x" # after
'quoted "key"' = '''
text''''
[t]
d = [1, {x = 2.5, y.z = []},
  3]
[[l]]
q = 1979-05-27 07:32:00
[[l]]
[l.m."n o"]
r = 07:32:00
"""


def test_every_part_has_its_place() -> None:
    document = parse_toml(TEXT, "run.toml")
    places: dict[tuple[str | int, ...], tuple[str, str]] = {
        ("a",): ("1:5", "1:1"),
        ("b",): ("2:1", "2:1"),
        ("b", "c"): ("2:7", "2:3"),
        ('quoted "key"',): ("3:18", "3:1"),
        ("t",): ("5:2", "5:2"),
        ("t", "d"): ("6:5", "6:1"),
        ("t", "d", 0): ("6:6", "6:6"),
        ("t", "d", 1): ("6:9", "6:9"),
        ("t", "d", 1, "x"): ("6:14", "6:10"),
        ("t", "d", 1, "y"): ("6:19", "6:19"),
        ("t", "d", 1, "y", "z"): ("6:25", "6:21"),
        ("t", "d", 2): ("7:3", "7:3"),
        ("l",): ("8:3", "8:3"),
        ("l", 0): ("8:1", "8:1"),
        ("l", 0, "q"): ("9:5", "9:1"),
        ("l", 1): ("10:1", "10:1"),
        ("l", 1, "m", "n o", "r"): ("12:5", "12:1"),
    }
    found = {path: (document.locate(path), document.locate(path, key=True)) for path in places}
    assert found == {path: (f"run.toml:{value}", f"run.toml:{key}") for path, (value, key) in places.items()}


def test_dates_and_times_are_text_as_they_were_written() -> None:
    data = plain(
        parse_toml(
            "a = 1979-05-27 07:32:00 # c\nb = [1979-05-27,07:32:00.5]\nc={d=1979-05-27T00:32:00-07:00}", "x"
        ).data
    )
    assert data == {
        "a": "1979-05-27 07:32:00",
        "b": ["1979-05-27", "07:32:00.5"],
        "c": {"d": "1979-05-27T00:32:00-07:00"},
    }


REFUSED = [
    ("a = ", "x:1:5: TOML syntax: invalid value"),
    ("a = 1\na = 2", "x:2:6: TOML syntax: cannot overwrite a value"),
    ("a = 'x", "x:1:7: TOML syntax: expected "),
    ("b = 1\na = 1e999", "x:2:5: a: 1e999 is too large for a float"),
    ("a = [1, 1e999]", "x:1:9: a[1]: 1e999 is too large"),
    (f"b = 1\na = {'9' * 5000}", "x:2:5: this number has more than 4,300 digits"),
    (f"a = 0x{'f' * 5000}", "x:1:5: a: this number has more than 4,300 digits"),
    ('a = "\\u0000"', "x:1:5: a: this text holds NUL"),
    ('"\\u0000" = 1', "x:1:1: this text holds NUL"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_refused_is_told_with_its_place(text: str, message: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        parse_toml(text, "x")
    (mistake,) = caught.value.mistakes
    assert str(mistake).startswith(message)


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n"])
def test_a_file_without_content_is_empty(text: str) -> None:
    with pytest.raises(ConfigError, match="the file is empty"):
        parse_toml(text, "x")


PIECES = [
    *("a", "b", "c", ".", " = ", "=", "1", "-2.5", "true", "'x'", '"y\\n"', '"a.b"', "[", "]", "[[", "]]", "{", "}"),
    *(
        ", ",
        ",",
        "\n",
        " ",
        "# c\n",
        '"""',
        "'''",
        '""',
        "\\",
        "1979-05-27",
        " 07:32:00",
        "inf",
        "nan",
        "0x1F",
        "\t",
        "é",
    ),
    *("\n[a]\n", "\n[a.b]\n", "\n[[c]]\n", "\na.b = ", "\nc = [", "\nb = {", '"""x""""', "\n'''y\n'''' = 1"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=24).map("".join))
def test_what_tomllib_takes_is_taken_with_all_places_and_nothing_else(text: str) -> None:
    try:
        expected = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(ConfigError):
            parse_toml(text, "x")
        return
    if not expected:
        with pytest.raises(ConfigError, match="empty"):
            parse_toml(text, "x")
        return
    document = parse_toml(text, "x")
    whole(document)  # fails where a place is missing
    assert _like(plain(document.data), expected)


def _like(found: object, expected: object) -> bool:
    if isinstance(expected, dict) and isinstance(found, dict):
        return list(found) == list(expected) and all(_like(found[key], expected[key]) for key in found)
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(map(_like, found, expected))
    if isinstance(expected, str | int | float):
        return repr(found) == repr(expected)
    return isinstance(found, str) and str(tomllib.loads(f"a={found}")["a"]) == str(expected)  # a date as it was written
