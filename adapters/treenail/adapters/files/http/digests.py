"""Digests that servers send along with content, and their verification."""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode
from collections.abc import Callable
from typing import NamedTuple

# The strongest first; what RFC 9530 calls insecure still finds what went wrong on the way.
_ALGORITHMS = {"sha-512": "sha512", "sha-256": "sha256", "sha": "sha1", "md5": "md5"}
_MEMBER = re.compile(r"\s*([A-Za-z0-9.*_-]+)\s*=\s*:?([A-Za-z0-9+/]+=*):?\s*(?:;.*)?")


class Expected(NamedTuple):
    """What bytes must hash to.

    Args:
        algorithm: As `hashlib` calls it.
        digest: The bytes of the hash.
    """

    algorithm: str
    digest: bytes

    def hasher(self) -> Hasher:
        """Begin to hash."""
        return Hasher(self)


class Hasher:
    """Hashes bytes as they come, and compares at the end."""

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._hash = hashlib.new(expected.algorithm, usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        """Take further bytes."""
        self._hash.update(chunk)

    def complaint(self) -> str | None:
        """Return what is wrong with the bytes taken, None if they are right."""
        if self._hash.digest() == self._expected.digest:
            return None
        return f"the bytes' {self._expected.algorithm} is {self._hash.hexdigest()}, not {self._expected.digest.hex()}"


def strongest(header: Callable[[str], str | None], *, message: bool, file: bool) -> Expected | None:
    """Return the strongest digest that an answer's headers give, None without one that is known.

    Of the file as a whole speak Repr-Digest (RFC 9530) and Digest (RFC 3230), of the body of the message Content-Digest
    (RFC 9530) and Content-MD5 (RFC 1864).

    Args:
        header: Gives a header's value.
        message: Those of the body of the message will do.
        file: Those of the whole file will do.
    """
    names = [*(("Content-Digest",) if message else ()), *(("Repr-Digest", "Digest") if file else ())]
    found = [each for name in names for each in _parsed(header(name) or "")]
    # Some servers send the whole file's Content-MD5 along with a part of it.
    if file and message and (digest := _decoded("md5", (header("Content-MD5") or "").strip())):
        found.append(digest)
    order = list(_ALGORITHMS.values())
    return min(found, key=lambda expected: order.index(expected.algorithm), default=None)


def _parsed(header: str) -> list[Expected]:
    members = (_MEMBER.fullmatch(member) for member in header.split(","))
    decoded = (_decoded(member[1].lower(), member[2]) for member in members if member is not None)
    return [expected for expected in decoded if expected is not None]


def _decoded(name: str, text: str) -> Expected | None:
    """Return a digest, None where its algorithm is unknown or its length is another's (RFC 9530 lets us ignore it)."""
    algorithm = _ALGORITHMS.get(name)
    if algorithm is None or not text:
        return None
    try:
        digest = b64decode(text, validate=True)
    except binascii.Error:
        return None
    length = hashlib.new(algorithm, usedforsecurity=False).digest_size
    return Expected(algorithm, digest) if len(digest) == length else None
