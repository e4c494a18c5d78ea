"""What a URL is made of, where redirects may lead, and which addresses are whose."""

import traceback
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from treenail.adapters.files.http import HttpFiles
from treenail.adapters.files.http.urls import follow, parse_root, parse_url, reach_of
from treenail.contracts.laws._file_model import NAMES
from treenail.kernel import FileError

PIN = "ab" * 32


@pytest.mark.parametrize(
    ("uri", "root", "path"),
    [
        ("https://host", "https://host", ""),
        ("HTTPS://host/", "https://host", ""),
        ("https://host/a/b.bin", "https://host", "a/b.bin"),
        ("http://host:8080/a%20b/%C3%BC", "http://host:8080", "a b/ü"),
        ("https://me:pw@host/a?sig=a%2Fb/c&x=1", "https://me:pw@host?sig=a%2Fb/c&x=1", "a"),
        (f"https://host/a#sha256={PIN}", f"https://host#sha256={PIN}", "a"),
        (f"https://host/a?q#sha256={PIN}", f"https://host?q#sha256={PIN}", "a"),
        ("https://host/api/group%2Fname/raw/file", "https://host/api/group%2Fname", "raw/file"),
        ("https://host/a//b", "https://host/a/", "b"),
        ("https://host/latin%FC/b", "https://host/latin%FC", "b"),
    ],
)
def test_a_uri_is_split_into_root_and_path(uri: str, root: str, path: str) -> None:
    assert HttpFiles.split_uri(uri) == (root, path)


@pytest.mark.parametrize("name", ["a%2Fb", "a%00", "latin%FC"])
def test_names_that_no_path_can_have_are_refused(name: str) -> None:
    with pytest.raises(FileError, match="the file's name"):
        HttpFiles.split_uri(f"https://host/d/{name}")


@given(st.sampled_from(NAMES) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
@example("a?b#c")
@settings(deadline=None)
def test_root_and_path_ask_for_the_uri_that_was_split(name: str) -> None:
    encoded = quote(name, safe="")
    if "/" in name or name in {".", ".."}:
        return
    root, path = HttpFiles.split_uri(f"https://host/x/{encoded}?q=1")
    asked = parse_root(root).url.below(path)
    assert (path, asked.path, asked.query) == (f"x/{name}", f"/x/{encoded}", "q=1")


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://host/a",
        "https://",
        "https:///a",
        "http://host:99999/",
        "http://host:0/",
        "http://[::1",
        "http://a b/c",
        "host/a",
    ],
)
def test_what_is_no_url_of_http_is_refused(uri: str) -> None:
    with pytest.raises(FileError, match="not an http or https URL"):
        HttpFiles(uri)


def test_a_malformed_password_is_not_shown() -> None:
    with pytest.raises(FileError) as caught:
        HttpFiles("http://me:geh/eim@host/file")
    shown = "".join(traceback.format_exception(caught.value))
    assert "geh" not in shown.replace('"http://me:geh/eim@host/file"', "")  # this test's own line


@pytest.mark.parametrize("uri", ["https://host/%2e%2e/etc", "https://host/a/../b", "https://host/./a"])
def test_climbing_urls_are_refused(uri: str) -> None:
    with pytest.raises(FileError, match=r"'\.' or '\.\.'"):
        HttpFiles.split_uri(uri)


@pytest.mark.parametrize("fragment", ["sha256=12", "top", f"md5={PIN}", f"sha256={PIN}0"])
def test_an_unknown_fragment_is_refused(fragment: str) -> None:
    with pytest.raises(FileError, match="fragment"):
        HttpFiles(f"https://host/#{fragment}")


def test_a_name_of_any_language_is_encoded() -> None:
    url = parse_url("https://bücher.example/ü b?ß=1")
    assert (url.host, url.target) == ("xn--bcher-kva.example", "/%C3%BC%20b?%C3%9F=1")


@pytest.mark.parametrize(
    ("start", "location", "target"),
    [
        ("http://a/x/y?q", "z", "http://a/x/z"),
        ("http://a/x/y", "/z", "http://a/z"),
        ("http://a/x", "https://b/z?new", "https://b/z"),
        ("http://a/x", "http://me:pw@b:81/z", "http://b:81/z"),
        ("https://a/x", "//b/z", "https://b/z"),
    ],
)
def test_redirects_lead_on(start: str, location: str, target: str) -> None:
    assert follow(parse_url(start), location).shown == target


@pytest.mark.parametrize(
    "location",
    [None, "", "http://b/x", "file:///etc/passwd", "ftp://b/x", "data:text/plain,x", "//[", "javascript:x"],
)
def test_redirects_elsewhere_are_refused(location: str | None) -> None:
    with pytest.raises(FileError, match="redirects"):
        follow(parse_url("https://a/x"), location)


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("93.184.216.34", "public"),
        ("2606:4700::1111", "public"),
        ("10.1.2.3", "private"),
        ("192.168.0.1", "private"),
        ("100.64.0.1", "private"),
        ("224.0.0.1", "private"),
        ("fd00::1", "private"),
        ("169.254.169.254", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("127.0.0.1", "loopback"),
        ("127.8.8.8", "loopback"),
        ("0.0.0.0", "loopback"),
        ("::1", "loopback"),
        ("::", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:10.0.0.1", "private"),
        ("::ffff:169.254.169.254", "link-local"),
    ],
)
def test_an_address_belongs_to_somebody(address: str, reach: str) -> None:
    assert reach_of(address) == reach
