"""What an object store answered, as errors of ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from treenail.adapters.files.paths import told
from treenail.kernel import FileError, FileMissingError, TreenailError

_SIGNATURES = re.compile(
    r"(X-Amz-(?:Signature|Credential|Security-Token)=|X-Goog-(?:Signature|Credential)=|[?&]sig=|Bearer )[^&\s\",]+"
)
_ELEMENTS = re.compile(
    r"<(AWSAccessKeyId|SignatureProvided|StringToSign\w*|CanonicalRequest\w*|AuthenticationErrorDetail)>.*?</\1>",
    re.DOTALL,
)

_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "FilesystemNotFound"}
_HIDDEN = "ResourceNotFound"  # Azure's word for a container of others, and for an account that is none
_CREDENTIALS = "check the credentials: their variables, profile, or the machine's role"
# Code of the store's answer → (what is wrong, what to do). Codes: "Error responses" of the Amazon S3 API reference,
# "Status and error codes" of Azure Storage.
_CODES = {
    **dict.fromkeys(_NO_BUCKET, ("there is no such bucket", "create it, or correct its name in the URI")),
    _HIDDEN: (
        "there is no such bucket that these credentials may see",
        "check the credentials, and its name in the URI",
    ),
    "ExpiredToken": ("the credentials have expired", "renew them; a session token ends with its session"),
    "TokenRefreshRequired": ("the credentials have expired", "renew them; a session token ends with its session"),
    "InvalidToken": ("the session token is not valid", _CREDENTIALS),
    "InvalidAccessKeyId": ("the store does not know the access key", _CREDENTIALS),
    "SignatureDoesNotMatch": ("the secret key does not fit the access key", _CREDENTIALS),
    "AuthenticationFailed": ("the store does not accept the credentials", _CREDENTIALS),
    "RequestTimeTooSkewed": ("this machine's clock differs from the store's", "set the clock"),
    "AccessDenied": ("access is denied", "these credentials need a policy that allows it on this path"),
    "AllAccessDisabled": ("access is denied", "these credentials need a policy that allows it on this path"),
    "AuthorizationFailure": ("access is denied", "these credentials need a role that allows it on this path"),
    "AuthorizationPermissionMismatch": (
        "access is denied",
        "these credentials need a role that allows it on this path",
    ),
    "AuthorizationHeaderMalformed": ("the bucket lies in another region", "set the option 'region'"),
    "IllegalLocationConstraintException": ("the bucket lies in another region", "set the option 'region'"),
    "PermanentRedirect": ("the bucket lies in another region", "set the options 'region' or 'endpoint'"),
    "QuotaExceeded": ("no space is left", "remove files, or ask for a larger quota"),
    "XMinioStorageFull": ("no space is left", "remove files, or ask for more disks"),
    "InsufficientStorage": ("no space is left", "remove files, or ask for a larger quota"),
    "EntityTooLarge": ("the file is too large for the store", "raise the option 'part_size'"),
    "SlowDown": ("the store asks for fewer requests", "lower 'concurrency', or raise 'retries'"),
    "NotImplemented": ("the store does not know this request", "use another operation, or another store"),
}
_STATUS = {
    "301": _CODES["PermanentRedirect"],
    "307": _CODES["PermanentRedirect"],
    "401": _CODES["AuthenticationFailed"],
    "403": _CODES["AccessDenied"],
    "429": _CODES["SlowDown"],
    "501": _CODES["NotImplemented"],
    "507": _CODES["InsufficientStorage"],
}
_CONNECTION = (  # what the HTTP client's own description holds
    ("dns error", "the endpoint has no address", "correct the option 'endpoint'"),
    (
        "InvalidCertificate",
        "the endpoint's certificate is not trusted",
        "give the option 'ca_file', or correct the endpoint's name",
    ),
    ("InvalidMessage", "the endpoint does not speak TLS", "write http:// with the option 'allow_http'"),
    ("ConnectionRefused", "nothing listens at the endpoint", "correct the option 'endpoint', or start the store"),
    ("TimedOut", "the store does not answer in time", "check the network, or raise the option 'timeout'"),
    ("timeout", "the store does not answer in time", "check the network, or raise the option 'timeout'"),
    ("kind: Connect", "the endpoint cannot be reached", "check the network and the option 'endpoint'"),
    ("error sending request", "the connection broke", "check the network, or raise the option 'retries'"),
    ("kind: Body", "the connection broke", "check the network, or raise the option 'retries'"),
)


@contextmanager
def explained(operation: str, where: str, secrets: Callable[[], Iterable[str]]) -> Iterator[None]:
    """Turn what the library raises in the block into errors of ours; no credential is left in them, nor in their causes.

    Args:
        operation: What is done, for the message: "read".
        where: URI of the file.
        secrets: Gives the texts that must not be shown.

    Raises:
        FileMissingError: There is no such file; of a bucket that is missing, only where the store says so.
        FileError: Everything else.
    """
    try:
        yield
    except TreenailError:
        raise
    except Exception as error:
        text = _cleaned(error, secrets())
        error.args = (text,)  # it will be shown as the cause
        if isinstance(error, FileNotFoundError) and code_of(text) not in {*_NO_BUCKET, _HIDDEN}:
            raise FileMissingError(f"cannot {operation}: there is no such file", where=where) from error
        what, mend = _explain(error, text)
        raise FileError(f"cannot {operation}: {what}", where=where, mend=mend) from error


def is_denied(error: FileError) -> bool:
    """Return whether the store refused for want of permission."""
    return " 403 " in str(error.__cause__) or code_of(str(error.__cause__)) == "AccessDenied"


def code_of(text: str) -> str:
    """Return the store's own code in an answer, or the HTTP status, or ""."""
    found = re.search(r"<Code>(\w+)</Code>", text) or re.search(r"status code: (\d+)", text)
    return found[1] if found else ""


def _explain(error: Exception, text: str) -> tuple[str, str | None]:
    if type(error).__name__ == "InvalidPathError":
        key = re.search(r'[pP]ath:? "(.*?)"[:, ]', text, re.DOTALL)
        what = f"a key there names no file: {key[1]!r}" if key else "a key there names no file"
        return what, "rename or delete that object with the store's own tools"
    code = code_of(text)
    status = re.search(r"status code: (\d+)", text)
    known = _CODES.get(code) or (_STATUS.get(status[1]) if status else None)
    if "Received redirect" in text:
        known = _CODES["PermanentRedirect"]
    if known is not None:
        said = re.search(r"<Message>\s*([^\n<]*)", text)  # Azure adds lines with the request's number and the time
        detail = f"{code}: {said[1].strip()}" if said and code != "SignatureDoesNotMatch" else code
        return f"{known[0]} ({detail})" if detail else known[0], known[1]
    inner = text.partition("inner:")[2] or text  # what goes before tells of limits: "retry_timeout"
    for sign, what, mend in _CONNECTION if status is None else ():
        if sign in inner:
            return what, mend
    return _short(text), None


def _cleaned(error: Exception, secrets: Iterable[str]) -> str:
    """Return what an error says, without credentials."""
    return _ELEMENTS.sub(r"<\1>***</\1>", _SIGNATURES.sub(r"\1***", told(error, secrets)))


def _short(text: str) -> str:
    """Return what an error says, without the library's dump of its own structures."""
    head = " ".join(text.partition("Debug source")[0].split())
    return head if len(head) <= 500 else f"{head[:500]} …"
