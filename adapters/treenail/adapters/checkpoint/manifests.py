"""A manifest as text that tells whether it is whole."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import msgspec

from treenail.adapters.checkpoint.errors import UnsuitableError
from treenail.contracts import FORMAT_VERSION, Manifest
from treenail.kernel import CheckpointError

_BLANK: Final = b"0" * 64  # where its digest will stand, while it is hashed


class _Seal(msgspec.Struct):
    """What every format from the second on begins with."""

    format_version: int
    sha256: str | None = None


def encode_manifest(manifest: Manifest) -> tuple[bytes, Manifest]:
    """Return the text of a manifest, and the manifest with the digest of it."""
    blank = msgspec.structs.replace(manifest, sha256=_BLANK.decode())
    content = msgspec.json.format(msgspec.json.encode(blank))
    digest = sha256(content).hexdigest()
    # The first one: the field stands before all that a run may say.
    return content.replace(_BLANK, digest.encode(), 1), msgspec.structs.replace(manifest, sha256=digest)


def decode_manifest(content: bytes, where: str) -> Manifest:
    """Read the text of a manifest and compare it with its digest.

    Raises:
        CheckpointError: It is damaged.
        UnsuitableError: It has another format.
    """
    try:
        seal = msgspec.json.decode(content, type=_Seal)
        if seal.sha256 is not None:
            digest = seal.sha256.encode()
            if len(digest) != len(_BLANK) or sha256(content.replace(digest, _BLANK, 1)).hexdigest() != seal.sha256:
                raise CheckpointError("the manifest is damaged: its checksum is not its own", where=where)
        if seal.format_version == FORMAT_VERSION:
            return msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"the manifest cannot be read: {error}", where=where) from error
    later = seal.format_version > FORMAT_VERSION
    raise UnsuitableError(
        f"the checkpoint has format {seal.format_version}, this treenail reads {FORMAT_VERSION}",
        where=where,
        mend="upgrade treenail" if later else "go on with the treenail that wrote it",
    )
