"""Whatever a file holds, reading it ends soon, in data or in an error of ours."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from time import process_time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tests.documents.plain import plain
from treenail.adapters.documents import (
    Document,
    InvalidConfigError,
    parse_json,
    parse_toml,
    parse_yaml,
    read_document,
    read_text,
)
from treenail.kernel import ConfigError, TreenailError

CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
SECONDS = 60  # of CPU: what is linear takes one, what is quadratic takes hours

Parser = Callable[[str, str], Document]


def bomb(levels: int) -> str:
    lines = ["x0: &x0 [1,1,1,1,1,1,1,1,1,1]"]
    lines += [f"x{level}: &x{level} [{','.join([f'*x{level - 1}'] * 10)}]" for level in range(1, levels)]
    return "\n".join(lines)


LIMITS: list[tuple[str, Parser, str, str]] = [
    ("nested", parse_yaml, "[" * 200, "x:1:101: this is nested too deeply, more than 100 levels"),
    ("nested", parse_json, "[" * 100_000, "x:1:101: this is nested too deeply"),
    ("nested", parse_toml, f"a = {'[' * 100_000}", "x:1:105: this is nested too deeply"),
    ("nested name", parse_toml, "a." * 500_000 + "a = 1", "x:1:2: this is nested too deeply"),
    ("nested tables", parse_toml, "\n".join(f"[{'.'.join('a' * (n + 1))}]" for n in range(101)), "x:101:"),
    (
        "nested aliases",
        parse_yaml,
        "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 200)),
        "x:10",
    ),
    ("alias in itself", parse_yaml, "a: &x [1, *x]", "x:1:11: a[1]: the alias *x is a part of what it names"),
    ("alias bomb", parse_yaml, bomb(30), "the file expands to more than 100,000 values"),
    ("values", parse_yaml, "[" + "1," * 100_001 + "]", "x:1:200000: the file expands to more than 100,000 values"),
    ("values", parse_json, "[" + "1," * 100_001 + "1]", "x:1:200000: the file expands to more than 100,000 values"),
    ("values", parse_toml, "a = [" + "1," * 100_001 + "]", "the file expands to more than 100,000 values"),
    ("long", parse_yaml, f"a: {'x' * 1_000_001}", "x:1:4: a: this text is longer than 1,000,000 characters"),
    ("long", parse_json, f'["{"x" * 1_000_001}"]', "x:1:2: [0]: this text is longer than 1,000,000 characters"),
    ("long", parse_toml, f'a = "{"x" * 1_000_001}"', "x:1:5: a: this text is longer than 1,000,000 characters"),
    ("digits", parse_yaml, f"a: {'9' * 4301}", "x:1:4: a: this number has more than 4,300 digits"),
    ("digits", parse_yaml, f"a: 0x{'f' * 4302}", "x:1:4: a: this number has more than 4,300 digits"),
    ("digits", parse_json, f"[{'9' * 4301}]", "x:1:2: [0]: this number has more than 4,300 digits"),
    ("mistakes", parse_yaml, "- !x a\n" * 5000, "there are more than 1,000 mistakes"),
    ("mistakes", parse_json, "[" + "1e999," * 5000 + "1]", "there are more than 1,000 mistakes"),
    *((("control", parse, "a\x07: 1", "x:1:2: unacceptable character U+0007")) for parse in (parse_yaml, parse_json)),
    *(
        (("NUL", parse, "\n\0", "x:2:1: unacceptable character U+0000"))
        for parse in (parse_yaml, parse_json, parse_toml)
    ),
    *((("surrogate", parse, "a \ud800", "x:1:3: unacceptable character U+D800")) for parse in (parse_yaml, parse_toml)),
    *(
        (("BOM", parse, "\ufeffa", "x:1:1: the file begins with a byte order mark"))
        for parse in (parse_yaml, parse_json)
    ),
    ("escaped NUL", parse_yaml, r'a: "\0"', "x:1:4: a: this text holds NUL"),
    ("escaped surrogate", parse_yaml, r'a: "\udc00"', "x:1:4: a: this text holds half a surrogate pair"),
]


@pytest.mark.parametrize(("parse", "text", "message"), [case[1:] for case in LIMITS], ids=[case[0] for case in LIMITS])
def test_a_limit_is_a_mistake_in_bounded_time(parse: Parser, text: str, message: str) -> None:
    begin = process_time()
    with pytest.raises(InvalidConfigError) as caught:
        parse(text, "x")
    assert process_time() - begin < SECONDS
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_yaml, "[" * 100 + "]" * 100),
        (parse_json, "[" * 100 + "]" * 100),
        (parse_yaml, "[" + "1," * 99_999 + "]"),
        (parse_json, "[" + "1," * 99_998 + "1]"),
        (parse_yaml, f"a: {'x' * 1_000_000}"),
        (parse_yaml, f"a: {'9' * 4300}"),
        (parse_yaml, bomb(4)),
        (parse_toml, f"a = {'[' * 99}{']' * 99}"),
    ],
)
def test_what_just_keeps_a_limit_is_read(parse: Parser, text: str) -> None:
    assert parse(text, "x").data


def test_an_alias_bomb_takes_no_memory() -> None:
    parse_yaml(bomb(2), "x")  # imports what it needs
    tracemalloc.start()
    with pytest.raises(InvalidConfigError):
        parse_yaml(bomb(60), "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_yaml, "a: " + "|" * 500_000),
        (parse_yaml, "a: " + "| #" * 200_000),
        (parse_yaml, "a: " + "&-" * 300_000),
        (parse_yaml, "a: " + "x' \"" * 100_000),
        (parse_yaml, "a: (" + "'\"(" * 100_000 + ")"),
        (parse_yaml, f"a: 1.{'1' * 500_000}x"),
        (parse_json, "[" + '"\\"' * 300_000),
        (parse_toml, '\\"""\n' * 100_000),
        (parse_toml, '\\"' * 300_000),
        (parse_toml, "a = " + "'" * 500_000),
        (parse_toml, "a = 1." + '"' * 500_000),
    ],
    ids=range(11),
)
def test_what_invites_to_look_again_and_again_takes_linear_time(parse: Parser, text: str) -> None:
    begin = process_time()
    with pytest.raises(ConfigError):
        parse_toml(text, "x") if parse is parse_toml else parse(text + "\n[", "x")
    assert process_time() - begin < SECONDS


FILES = [
    ("big.yaml", b"#" * 2_000_001, "the file is larger than 2,000,000 bytes"),
    ("latin.yaml", "a: é".encode("latin-1"), "the file is not UTF-8 text: unexpected end of data at byte 3"),
    ("wide.yaml", "a: 1".encode("utf-16"), "the file is not UTF-8 text: it is UTF-16; save it as UTF-8"),
    ("mark.json", b"\xef\xbb\xbf{}", "mark.json:1:1: the file begins with a byte order mark (BOM)"),
    ("empty.toml", b"", "the file is empty"),
    ("run.ini", b"a=1", "a config file ends in .yaml, .yml, .json, .toml, not in '.ini'"),
    ("run.yamll", b"a: 1", "not in '.yamll'; did you mean '.yaml'?"),
]


@pytest.mark.parametrize(("name", "content", "message"), FILES, ids=[name for name, _, _ in FILES])
def test_a_file_that_cannot_be_a_config_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_document(tmp_path / name)
    assert message in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for name, message in {
        "pipe.yaml": "this is not a regular file",
        "none.yaml": "there is no such file",
        ".": "this is a directory",
        "a\0b.yaml": "no file can have this name",
    }.items():
        with pytest.raises(ConfigError, match=message):
            read_text(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"), [("a.yaml", "a: [1]"), ("a.YML", "a: [1]"), ("a.json", '{"a": [1]}'), ("a.toml", "a = [1]")]
)
def test_the_suffix_says_the_format(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    document = read_document(tmp_path / name)
    assert plain(document.data) == {"a": [1]}
    assert document.locate(("a", 0)).startswith(f"{tmp_path / name}:1:")


def read(parse: Parser, text: str) -> None:
    """Read a text; fails on a foreign exception, an error without a place, and a hang."""
    begin = process_time()
    message = "x"
    try:
        parse(text, "x")
    except TreenailError as error:
        message = str(error)
    assert message.startswith("x")
    assert process_time() - begin < SECONDS


@settings(deadline=None)
@given(st.sampled_from([parse_yaml, parse_json, parse_toml]), st.text(max_size=80))
def test_arbitrary_text_ends_in_data_or_in_an_error_of_ours(parse: Parser, text: str) -> None:
    read(parse, text)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """Draw a config of ours with some of its text deleted, doubled, moved or replaced."""
    text = draw(st.sampled_from([path.read_text(encoding="utf-8") for path in CONFIGS]))
    for _ in range(draw(st.integers(1, 6))):
        begin = draw(st.integers(0, len(text)))
        end = min(len(text), begin + draw(st.integers(0, 30)))
        new = draw(
            st.sampled_from(
                ["", text[begin:end] * 2, "\n", "  ", "\t", ": ", "- ", "{", "]", "'", '"', "&a ", "*a", "!x "]
            )
        )
        text = text[:begin] + new + text[end:]
    return text


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(damaged())
def test_a_damaged_config_ends_in_data_or_in_an_error_of_ours(text: str) -> None:
    read(parse_yaml, text)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["x.yaml", "x.json", "x.toml"]), st.binary(max_size=60))
def test_arbitrary_bytes_end_in_data_or_in_an_error_of_ours(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    message = str(path)
    try:
        read_document(path)
    except TreenailError as error:
        message = str(error)
    assert message.startswith(str(path))


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab :#-'\"\n,é")
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc:- ") | st.integers(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(trees.filter(lambda tree: tree != ""), st.booleans())
def test_what_ruamel_writes_is_read_as_ruamel_reads_it(
    tmp_path_factory: pytest.TempPathFactory, tree: object, flow: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "tree.yaml"
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = flow
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(tree, file)
    try:
        expected = YAML(typ="safe", pure=True).load(path)
    except YAMLError:
        return  # ruamel.yaml cannot read all that it writes
    assert plain(read_document(path).data) == expected
