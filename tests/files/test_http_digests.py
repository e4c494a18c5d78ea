"""Digests that servers send: the strongest is chosen, others and garbage are left alone."""

import hashlib
from base64 import b64encode

import pytest

from treenail.adapters.files.http.digests import strongest

DATA = b"content"


def encoded(algorithm: str, data: bytes = DATA) -> str:
    return b64encode(hashlib.new(algorithm, data).digest()).decode()


@pytest.mark.parametrize(
    ("headers", "algorithm"),
    [
        ({"Repr-Digest": f"sha-256=:{encoded('sha256')}:"}, "sha256"),
        ({"Repr-Digest": f"unixsum=:AAAA:, sha-256=:{encoded('sha256')}:, sha-512=:{encoded('sha512')}:"}, "sha512"),
        ({"Content-Digest": f"sha-256=:{encoded('sha256')}:;q=1"}, "sha256"),
        ({"Digest": f"md5={encoded('md5')},SHA-256={encoded('sha256')}"}, "sha256"),
        ({"Digest": f"SHA={encoded('sha1')}"}, "sha1"),
        ({"Content-MD5": encoded("md5")}, "md5"),
        ({"Content-MD5": encoded("md5"), "Repr-Digest": f"sha-256=:{encoded('sha256')}:"}, "sha256"),
    ],
)
def test_the_strongest_is_verified(headers: dict[str, str], algorithm: str) -> None:
    expected = strongest(headers.get, message=True, file=True)
    assert expected is not None
    assert expected.algorithm == algorithm
    for data, right in ((DATA, True), (DATA + b"x", False), (b"", False)):
        hasher = expected.hasher()
        hasher.update(data[:3])
        hasher.update(data[3:])
        assert (hasher.complaint() is None) == right


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Repr-Digest": ""},
        {"Repr-Digest": "sha-256"},
        {"Repr-Digest": "sha-256=:!!!:"},
        {"Repr-Digest": "sha-256=:QUJD:"},  # three bytes are no SHA-256
        {"Content-MD5": "garbage"},
        {"Digest": "unixcksum=30637"},
    ],
)
def test_what_is_no_known_digest_is_left_alone(headers: dict[str, str]) -> None:
    assert strongest(headers.get, message=True, file=True) is None


def test_a_digest_speaks_of_the_message_or_of_the_file() -> None:
    of_file = {"Repr-Digest": f"sha-256=:{encoded('sha256')}:"}
    of_message = {"Content-Digest": f"sha-256=:{encoded('sha256')}:"}
    either = {"Content-MD5": encoded("md5")}  # servers differ in what they mean by it where a part is sent
    assert strongest(of_file.get, message=True, file=False) is None
    assert strongest(of_message.get, message=False, file=True) is None
    assert strongest(of_message.get, message=True, file=False) is not None
    assert strongest(either.get, message=True, file=False) is None
