"""Configs written out: whole, readable, loading to what they were; and without their secrets where people see them."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.documents.plain import plain
from treenail.adapters.documents import (
    Document,
    Format,
    InvalidConfigError,
    Map,
    describe_document,
    dump_document,
    is_secret,
    load_document,
    mask,
    parse_document,
)
from treenail.adapters.documents.references import References, Spent
from treenail.adapters.documents.secrets import mask_text
from treenail.kernel import ConfigError

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"


def load(tmp_path: Path, text: str, environment: Mapping[str, str] | None = None) -> Document:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return load_document(path, environment=environment or {})


def reload(text: str, form: Format, environment: Mapping[str, str] | None = None) -> object:
    document = parse_document(text, "dumped", form)
    references = References(Path("dumped"), environment or {}, None, "a dump has no bases", Spent())
    found, _ = references.resolve(document.data, document.mark)
    assert not references.mistakes
    return plain(found)


def test_a_dump_reads_as_a_person_would_write_it() -> None:
    written = [line.split(" #")[0] for line in DIGITS.read_text(encoding="utf-8").splitlines()]
    expected = [line.replace("2e-3", "0.002") for line in written if line and not line.startswith("#")]
    assert dump_document(load_document(DIGITS, environment={})).splitlines() == expected


@pytest.mark.parametrize("form", ["yaml", "json", "toml"])
def test_the_digits_come_back_from_every_format(form: Format) -> None:
    document = load_document(DIGITS, environment={})
    assert reload(dump_document(document, form), form) == plain(document.data)


def test_long_leaves_are_blocks(tmp_path: Path) -> None:
    document = load(
        tmp_path, json.dumps({"a": {f"key_{n}": "x" * 20 for n in range(6)}, "b": list(range(100)), "c": {}})
    )
    text = dump_document(document)
    assert max(map(len, text.splitlines())) < 120
    assert "  key_0: xxxx" in text
    assert "  - 99" in text
    assert "c: {}" in text


def test_a_dump_stands_alone_and_keeps_references_to_the_environment(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("name: über\nworkers: ${env:WORKERS:4}\nplain: $${x}\n", encoding="utf-8")
    environment = {"ROOT": "/data"}
    document = load(tmp_path, "_base_: base.yaml\nroot: '${env:ROOT}/${base:name}'\nstem: ${file:stem}\n", environment)
    assert dump_document(document) == (
        "name: über\n"
        'workers: "${env:WORKERS:4}"\n'
        'plain: "$${x}"\n'
        'root: "${env:ROOT}/über"\n'
        "stem: run\n"
    )  # fmt: skip
    forms: tuple[Format, ...] = ("yaml", "json", "toml")
    for there in forms:
        assert reload(dump_document(document, there), there, environment) == plain(document.data)
        assert reload(dump_document(document, there), there, {"ROOT": "/x", "WORKERS": "2"}) == {
            **cast(Map, document.data),  # a file with keys is a Map
            "workers": 2,
            "root": "/x/über",
        }


@pytest.mark.parametrize(
    "text", ["null", "yes", "No", "1e3", "1_0", "~", " leading", "#", "a #b", "a: b", "- a", "?", "=", "<<"]
)
def test_texts_that_look_like_something_else_are_quoted(tmp_path: Path, text: str) -> None:
    document = Document("x", Map({"a": text, "b": [text]}))
    assert reload(dump_document(document), "yaml") == {"a": text, "b": [text]}
    assert f'a: "{text}"' in dump_document(document)


def test_numbers_are_numbers_for_readers_of_yaml_1_1_too() -> None:
    text = dump_document(
        Document("x", Map({"a": 1e-5, "b": 1e22, "c": math.inf, "d": -math.inf, "e": math.nan, "f": 2.0}))
    )
    assert text == "a: 1.0e-05\nb: 1.0e+22\nc: .inf\nd: -.inf\ne: .nan\nf: 2.0\n"


def test_tuples_become_lists() -> None:
    assert (
        dump_document(Document("x", Map({"size": (224, (1, "a"))})), "json")
        == json.dumps({"size": [224, [1, "a"]]}, indent=2) + "\n"
    )


@pytest.mark.parametrize(
    ("form", "text", "where", "message"),
    [
        ("toml", "a: [1, null]", "1:8", "TOML has no null"),
        ("toml", "a: {1: x}", "1:8", "quote 1"),
        ("json", "a: {1: x}", "1:8", "quote 1"),
        ("json", "a: .nan", "1:4", "JSON has no nan"),
        ("toml", "[1]", "1:1", "a TOML file is a mapping"),
        ("toml", "{}", "1:1", "and not empty"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_with_its_place(
    tmp_path: Path, form: Format, text: str, where: str, message: str
) -> None:
    with pytest.raises(InvalidConfigError, match=message) as caught:
        dump_document(load(tmp_path, text + "\n"), form)
    assert caught.value.mistakes[0].where == f"{tmp_path}/run.yaml:{where}"


def test_only_composed_plain_data_is_dumped() -> None:
    with pytest.raises(InvalidConfigError, match="load_document"):
        dump_document(Document("x", Map({"_base_": "a.yaml"})))
    with pytest.raises(InvalidConfigError, match="cannot hold a complex"):
        dump_document(Document("x", Map({"a": 1j})))
    with pytest.raises(ConfigError, match="no format 'ini'"):
        dump_document(Document("x", Map({})), cast(Format, "ini"))  # what an unchecked caller may do


TEXTS = """no|1e3|~|| leading|trailing |#|:|a: b|a\nb|\n|\t|{{_base_.x}}|$${|${env:X}|'|"|\\|- |? x|%|@x|`|!!int 1|&a|*a|0x1F|.5|
|1_000|\x85|\u2028|\x7f|\U0001f600|--- a|...|{{ '{{' }}|${{fileStem}}|(1, 2)|a b:c d/e|[|a,b|<<|=|2020-01-01|.inf"""
NASTY = st.one_of(
    st.sampled_from([*TEXTS.split("|"), "|", "x" * 3000]),
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=30),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), NASTY)


def trees(
    scalars: st.SearchStrategy[object], keys: st.SearchStrategy[str | int]
) -> st.SearchStrategy[dict[str | int, object]]:
    usable = keys.filter(lambda key: key not in ("_base_", "_delete_"))
    inner = st.recursive(
        scalars, lambda part: st.lists(part, max_size=4) | st.dictionaries(usable, part, max_size=4), max_leaves=20
    )
    return st.dictionaries(usable, inner, max_size=5)


@settings(max_examples=150, deadline=None)
@given(trees(SCALARS, st.one_of(NASTY, st.integers())))
@example({"k" * 1500: {"a": [1]}, "x": [{"k" * 1500: "v"}]})
@example({"a": [[[[]], {}]], "b": [{"c": [{"d": {"e": [1]}}]}]})
def test_any_tree_comes_back_from_yaml(tree: dict[str | int, object]) -> None:
    text = dump_document(Document("x", tree))
    found = reload(text, "yaml")
    assert repr(found) == repr(tree)  # types and the order of keys too


@settings(max_examples=80, deadline=None)
@given(trees(SCALARS.filter(lambda value: not (isinstance(value, float) and math.isinf(value))), NASTY))
def test_any_tree_comes_back_from_json(tree: dict[str | int, object]) -> None:
    assert repr(reload(dump_document(Document("x", tree), "json"), "json")) == repr(tree)


@settings(max_examples=80, deadline=None)
@given(
    trees(st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), NASTY), NASTY).filter(
        len
    )
)
def test_any_tree_comes_back_from_toml(tree: dict[str | int, object]) -> None:
    text = dump_document(Document("x", tree), "toml")
    assert reload(text, "toml") == tree  # tables come after plain values, whatever the order was


SECRETS = """password DB_PASSWORD dbpassword passwd client-secret token hf_token HFToken apiKey api-key accesskey secret
aws_secret_access_key private_key credentials Authorization"""


@pytest.mark.parametrize("name", SECRETS.split())
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "max_tokens",
        "num_tokens",
        "token_dim",
        "tokenizer",
        "pad_token",
        "cls_token",
        "key",
        "monkey",
        "passes",
        "author",
    ],
)
def test_names_that_are_none(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("s3://key:secret@host/b", "s3://***@host/b"),
        ("s3://KEY:SE/CRET+x@host/b", "s3://***@host/b"),
        ("https://token@host:80/p?q=1", "https://***@host:80/p?q=1"),
        ("http://host:8080/a@b", "http://host:8080/a@b"),
        (
            "https://h/p?X-Amz-Signature=ab12&x=1&X-Amz-Credential=c",
            "https://h/p?X-Amz-Signature=***&x=1&X-Amz-Credential=***",
        ),
        ("https://a.blob/c?sv=2020&sig=abc%3D", "https://a.blob/c?sv=2020&sig=***"),
        ("https://h/?access_token=abc", "https://h/?access_token=***"),
        ("two s3://a:b@c and gs://d:e@f", "two s3://***@c and gs://***@f"),
        ("a@b.c no url", "a@b.c no url"),
    ],
)
def test_urls_lose_what_opens_them(text: str, masked: str) -> None:
    assert mask_text(text) == masked


def test_masking_covers_everything_below_a_secret_key_in_a_copy() -> None:
    tree: dict[str, object] = {
        "credentials": {"user": "u", "pin": 12, "on": True, "none": None},
        "tokens": [{"token": "t"}],
    }
    assert mask(tree) == {
        "credentials": {"user": "***", "pin": "***", "on": True, "none": None},
        "tokens": [{"token": "***"}],
    }
    assert tree["tokens"] == [{"token": "t"}]


def test_the_address_of_a_webhook_is_a_secret() -> None:
    url = "https://chat.example.org/in/T0/sesame"
    tree = {"notify": {"webhook": {"url": url, "style": "slack"}}, "mine": {"webhook_url": url}, "alertWebhookUrl": url}
    assert mask(tree) == {
        "notify": {"webhook": {"url": "***", "style": "slack"}},
        "mine": {"webhook_url": "***"},
        "alertWebhookUrl": "***",
    }


def test_a_masked_dump_and_the_description_show_no_secret(tmp_path: Path) -> None:
    text = (
        "password: hunter2\nurl: s3://k:hunter2@h/b\napi_key: ${env:API_KEY}\ntoken: ${env:TOKEN:hunter2}\n"
        "header: 'x ${env:DB_PASSWORD}'\nsecret: 'a${env:X:}hunter2'\nlr: 0.1\n"
    )
    document = load(tmp_path, text, {"API_KEY": "hunter2", "DB_PASSWORD": "hunter2"})
    dumped, described = dump_document(document, mask_secrets=True), describe_document(document)
    assert "hunter2" in dump_document(document)
    assert "hunter2" not in dumped + described
    assert 'api_key: "${env:API_KEY}"' in dumped
    assert 'token: "${env:TOKEN:***}"' in dumped
    assert described.startswith(f"Config (path: {tmp_path}/run.yaml): {{'password': '***', 'url': 's3://***@h/b', ")
    assert "'lr': 0.1" in described
    assert "\n" not in described


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@ss:abc@h/x", "https://***@h/x"),
        ("https://u:p@h/x@y", "https://***@h/x@y"),
        ("https://h:80/x@y", "https://h:80/x@y"),
    ],
)
def test_a_password_with_an_at_sign_is_covered_whole(url: str, shown: str) -> None:
    assert mask({"endpoint": url}) == {"endpoint": shown}
