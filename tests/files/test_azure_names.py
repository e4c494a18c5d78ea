"""Azure's connection strings, keys and order of names, which need no server."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treenail.adapters.files.objects import ObjectFiles
from treenail.adapters.files.objects.azure import AccountKey, connection, in_order_of_bytes
from treenail.kernel import FileError

_PATHS = st.text("a/\u00fc\ud7ff\ue000\uffff\U00010000\U0010ffff", min_size=1, max_size=6)


@given(st.sets(_PATHS, max_size=40))
def test_names_in_the_order_of_utf_16_are_put_in_that_of_utf_8(paths: set[str]) -> None:
    found = [{"path": path} for path in sorted(paths, key=lambda path: path.encode("utf-16-be"))]
    assert [each["path"] for each in in_order_of_bytes(found)] == sorted(paths, key=str.encode)


@given(st.sets(_PATHS, max_size=40))
def test_names_in_the_order_of_utf_8_stay_so(paths: set[str]) -> None:
    found = [{"path": path} for path in sorted(paths, key=str.encode)]
    assert [each["path"] for each in in_order_of_bytes(found)] == [each["path"] for each in found]


def test_names_that_need_not_wait_come_at_once() -> None:
    asked = list[str]()

    def listed() -> Iterator[dict[str, str]]:
        for path in ("a", "b\U00010000", "c", "d"):
            asked.append(path)
            yield {"path": path}

    found = in_order_of_bytes(listed())
    assert next(found)["path"] == "a"
    assert asked == ["a"]
    assert next(found)["path"] == "b\U00010000"
    assert asked[-1] == "c"


@pytest.mark.parametrize(
    ("text", "account", "endpoint"),
    [
        ("AccountName=me;AccountKey=a2V5==;EndpointSuffix=core.windows.net", "me", "https://me.blob.core.windows.net"),
        (
            "DefaultEndpointsProtocol=https;AccountName=me;EndpointSuffix=core.example",
            None,
            "https://me.blob.core.example",
        ),
        ("BlobEndpoint=https://me.blob.core.windows.net/;SharedAccessSignature=sv=1&sig=x%3D", "me", None),
        ("AccountName=me;BlobEndpoint=http://127.0.0.1:1/me;EndpointSuffix=x", None, "http://127.0.0.1:1/me"),
    ],
)
def test_a_connection_string_is_taken_apart(text: str, account: str | None, endpoint: str | None) -> None:
    parts = connection(text, account)
    assert parts["AccountName"] == "me"
    assert parts["BlobEndpoint"] == (endpoint or "https://me.blob.core.windows.net/")
    assert parts.get("AccountKey") in {None, "a2V5=="}
    assert parts.get("SharedAccessSignature") in {None, "sv=1&sig=x%3D"}
    assert connection(text, "another") == {}


def test_a_key_is_not_shown() -> None:
    assert "secret" not in f"{AccountKey('me', 'secret', 'https://me.blob.core.windows.net', 'data')!r}"


def test_no_connection_string_says_nothing() -> None:
    assert not any(connection("", None).get(name) for name in ("AccountName", "AccountKey", "BlobEndpoint"))


def test_a_url_is_signed_with_the_name_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tuple(os.environ):
        if name.startswith("AZURE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    files = ObjectFiles("abfss://data@me.dfs.core.windows.net/run")
    assert files.sign("a b/ü").startswith("https://me.blob.core.windows.net/data/run/a%20b/%C3%BC?sp=r&")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "no key")
    with pytest.raises(FileError, match="not base64"):
        ObjectFiles("az://data/run", account="me").sign("x")
