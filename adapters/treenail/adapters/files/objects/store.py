"""Where an object store lies, and with whose credentials it is used."""

from __future__ import annotations

import configparser
import os
import socket
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from urllib.parse import urlsplit

from treenail.adapters.files.objects.azure import AccountKey, checked_key, connection
from treenail.adapters.files.paths import redacted, scheme_of
from treenail.kernel import FileError

S3_SCHEMES = ("s3", "s3a", "oss", "minio", "ceph")
GCS_SCHEMES = ("gs", "gcs")
AZURE_SCHEMES = ("az", "azure", "abfs", "abfss", "adl")
_OTHERS_OF_AZURE = {  # variables that are no credentials
    *("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_CONFIG_DIR"),
    *("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_METADATA_PATIENCE = 1.0  # seconds to wait for the service that gives a cloud machine its role
_SIGN_IN = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile, or read with anonymous=True"


class Options(NamedTuple):
    """The options of `ObjectFiles` that say where and how to connect; see there."""

    endpoint: str | None
    region: str | None
    account: str | None
    profile: str | None
    access_key_variable: str | None
    secret_key_variable: str | None
    token_variable: str | None
    anonymous: bool
    virtual_hosted: bool | None
    allow_http: bool
    ca_file: str | None
    timeout: float
    retries: int


class Root(NamedTuple):
    """A root's URI, taken apart.

    Args:
        scheme: One of those above.
        bucket: Name of the bucket or container.
        account: Azure's storage account, where the URI names it.
        prefix: Key below which the files lie, without a slash at its end.
    """

    scheme: str
    bucket: str
    account: str | None
    prefix: str


class Opened(NamedTuple):
    """A store that can be used, the texts that must never be shown, and what signs URLs where the library does not."""

    store: object
    secrets: tuple[str, ...]
    signer: AccountKey | None = None


def split_root(uri: str) -> Root:
    """Take a root's URI apart.

    Raises:
        FileError: The scheme is unknown, no bucket is named, or the URI holds credentials.
    """
    scheme = scheme_of(uri)
    if scheme not in (*S3_SCHEMES, *GCS_SCHEMES, *AZURE_SCHEMES):
        raise FileError("this is no URI of an object store", where=redacted(uri), mend="write s3://bucket/prefix")
    authority, _, prefix = uri[len(scheme) + 3 :].partition("/")
    container, at, host = authority.rpartition("@")
    if scheme in AZURE_SCHEMES and at and ":" not in container:
        bucket, account = container, host.partition(".")[0]
    elif at or ":" in authority:
        raise FileError(
            "a URI of an object store names a bucket, no credentials and no port",
            where=redacted(uri),
            mend="give credentials by environment variables or a profile, and a host by the option 'endpoint'",
        )
    else:
        bucket, account = authority, None
    if not bucket:
        raise FileError("no bucket is named", where=redacted(uri), mend=f"write {scheme}://bucket/prefix")
    return Root(scheme, bucket, account, prefix.rstrip("/"))


def check_endpoint(endpoint: str, where: str, *, allow_http: bool) -> str:
    """Return an endpoint's URL that may be used.

    Raises:
        FileError: It is no URL, holds credentials, or leads over the network without TLS.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc or parts.query:
        raise FileError(
            f"{redacted(endpoint)!r} is no endpoint", where=where, mend="write https://host or https://host:port"
        )
    on_this_machine = parts.hostname in {"localhost", "::1"} or parts.hostname.startswith("127.")
    if parts.scheme == "http" and not on_this_machine and not allow_http:
        raise FileError(
            f"the endpoint {endpoint} has no TLS", where=where, mend="write https://, or set the option 'allow_http'"
        )
    return endpoint.rstrip("/")


def open_store(library: ModuleType, root: Root, options: Options, where: str) -> Opened:
    """Make the library's store for a root; nothing is asked of it yet.

    Raises:
        FileError: No credentials are found, or an option does not fit.
    """
    if root.scheme in S3_SCHEMES:
        return _s3(library, root, options, where)
    return (_gcs if root.scheme in GCS_SCHEMES else _azure)(library, root, options, where)


def _s3(library: ModuleType, root: Root, options: Options, where: str) -> Opened:
    profile = _Profile(options.profile or os.environ.get("AWS_PROFILE"), where)
    virtual = root.scheme == "oss" if options.virtual_hosted is None else options.virtual_hosted
    config: dict[str, object] = {"disable_bulk_delete": True, "virtual_hosted_style_request": virtual}
    endpoint = options.endpoint or _environment(
        *(("OSS_ENDPOINT",) if root.scheme == "oss" else ()),
        *("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    )
    endpoint = endpoint or profile.get("endpoint_url")
    if endpoint:
        endpoint = check_endpoint(endpoint, where, allow_http=options.allow_http)
        # The library expects the bucket in the host's name where it is addressed so.
        config["endpoint"] = endpoint.replace("://", f"://{root.bucket}.", 1) if virtual else endpoint
    elif root.scheme in {"oss", "minio", "ceph"}:
        raise FileError(
            f"{root.scheme}:// needs an endpoint", where=where, mend="set the option 'endpoint' or AWS_ENDPOINT_URL"
        )
    if region := options.region or _environment("AWS_REGION", "AWS_DEFAULT_REGION") or profile.get("region"):
        config["region"] = region
    if options.anonymous:
        store = library._store.S3Store(
            root.bucket, config=config | {"skip_signature": True}, **_client(options, endpoint)
        )
        return Opened(store, ())
    keys = _s3_keys(root, options, profile, where)
    if keys is None:  # the library asks the cloud for them
        return Opened(library._store.S3Store(root.bucket, config=config, **_client(options, endpoint)), ())
    # Given so, and not as its configuration, none of the environment's takes part.
    access, secret, token = keys
    credential = {"access_key_id": access, "secret_access_key": secret, "token": token, "expires_at": None}
    store = library._store.S3Store(
        root.bucket, config=config, credential_provider=lambda: credential, **_client(options, endpoint)
    )
    return Opened(store, tuple(text for text in keys if text))


def _s3_keys(root: Root, options: Options, profile: _Profile, where: str) -> tuple[str, str, str | None] | None:
    if options.access_key_variable or options.secret_key_variable:
        return (
            _named(options.access_key_variable, "access_key_variable", where),
            _named(options.secret_key_variable, "secret_key_variable", where),
            _named(options.token_variable, "token_variable", where) if options.token_variable else None,
        )
    if options.profile:
        return profile.keys(required=True)
    if root.scheme == "oss" and (access := _environment("OSS_ACCESS_KEY_ID")):
        return (
            access,
            _named("OSS_ACCESS_KEY_SECRET", "", where),
            _environment("OSS_SESSION_TOKEN", "OSS_SECURITY_TOKEN"),
        )
    if access := _environment("AWS_ACCESS_KEY_ID"):
        return access, _named("AWS_SECRET_ACCESS_KEY", "", where), _environment("AWS_SESSION_TOKEN", "AWS_TOKEN")
    if keys := profile.keys(required="AWS_PROFILE" in os.environ):
        return keys
    asks = (
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    )
    if not _environment(*asks):
        disabled = os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
        service = _environment("AWS_METADATA_ENDPOINT") or "http://169.254.169.254"
        if disabled or not _answers(service):
            raise FileError("no credentials are found", where=where, mend=_SIGN_IN)
    return None


def _gcs(library: ModuleType, root: Root, options: Options, where: str) -> Opened:
    config: dict[str, object] = {}
    secrets: tuple[str, ...] = ()
    endpoint = options.endpoint or _environment("STORAGE_EMULATOR_HOST")
    if endpoint:
        endpoint = check_endpoint(endpoint, where, allow_http=options.allow_http)
        config["base_url"] = endpoint
    given = {"service_account_key": options.secret_key_variable, "bearer_token": options.token_variable}
    default = Path.home() / ".config" / "gcloud" / "application_default_credentials.json"
    if options.anonymous:
        config["skip_signature"] = True
    elif any(given.values()):
        config |= {key: _named(name, key, where) for key, name in given.items() if name}
        secrets = tuple(str(config[key]) for key, name in given.items() if name)
    elif not (
        any(name.startswith(("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_APPLICATION", "GOOGLE_BEARER")) for name in os.environ)
        or default.exists()
        or _answers(f"http://{os.environ.get('GCE_METADATA_HOST', 'metadata.google.internal')}")
    ):
        mend = "set GOOGLE_APPLICATION_CREDENTIALS, or read with anonymous=True"
        raise FileError("no credentials are found", where=where, mend=mend)
    secrets += tuple(filter(None, (_environment("GOOGLE_BEARER_TOKEN"), _environment("GOOGLE_SERVICE_ACCOUNT_KEY"))))
    return Opened(library._store.GCSStore(root.bucket, config=config, **_client(options, endpoint)), secrets)


def _azure(library: ModuleType, root: Root, options: Options, where: str) -> Opened:
    account = options.account or root.account or _environment("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT")
    string = connection(os.environ.get("AZURE_STORAGE_CONNECTION_STRING", ""), account)
    account = account or string.get("AccountName")
    if not account:
        mend = "set the option 'account' or AZURE_STORAGE_ACCOUNT_NAME"
        raise FileError("no storage account is named", where=where, mend=mend)
    config: dict[str, object] = {"account_name": account}
    endpoint = (
        options.endpoint or _environment("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT") or string.get("BlobEndpoint")
    )
    if endpoint:
        endpoint = config["endpoint"] = check_endpoint(endpoint, where, allow_http=options.allow_http)
    client = _client(options, endpoint)
    if options.anonymous:
        store = library._store.AzureStore(root.bucket, config=config | {"skip_signature": True}, **client)
        return Opened(store, ())
    hidden = (
        *("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY", "AZURE_STORAGE_KEY"),
        *("AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_TOKEN"),
        *("AZURE_CLIENT_SECRET", "AZURE_STORAGE_CLIENT_SECRET", "AZURE_STORAGE_CONNECTION_STRING"),
    )
    secrets = tuple(os.environ[name] for name in hidden if os.environ.get(name))
    key, token = _azure_secrets(options, string, where)
    if key is None and token is None:
        if not (
            any(name.startswith("AZURE_") and name not in _OTHERS_OF_AZURE for name in os.environ)
            or _answers(_environment("IDENTITY_ENDPOINT", "MSI_ENDPOINT") or "http://169.254.169.254")
        ):
            mend = "set AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or read with anonymous=True"
            raise FileError("no credentials are found", where=where, mend=mend)
        return Opened(library._store.AzureStore(root.bucket, config=config, **client), secrets)
    # Given so, and not as its configuration, none of the environment's takes part.
    secret = {"sas_token": token} if key is None else {"access_key": checked_key(key, where)}
    credential = {**secret, "expires_at": None}
    store = library._store.AzureStore(root.bucket, config=config, credential_provider=lambda: credential, **client)
    secrets = tuple(filter(None, (key, token, *secrets)))
    if key is None:
        return Opened(store, secrets)
    place = endpoint or f"https://{account}.blob.core.windows.net"
    return Opened(store, secrets, AccountKey(account, key, place, root.bucket))


def _azure_secrets(options: Options, string: Mapping[str, str], where: str) -> tuple[str | None, str | None]:
    """Return the account's key and the SAS, of which at most one counts: the first; none where the library finds others."""
    if options.secret_key_variable:
        return _named(options.secret_key_variable, "secret_key_variable", where), None
    if options.token_variable:
        return None, _named(options.token_variable, "token_variable", where)
    if _environment("AZURE_STORAGE_TOKEN", "AZURE_CREDENTIAL_TYPE"):
        return None, None
    names = "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY", "AZURE_STORAGE_KEY"
    if key := _environment(*names) or string.get("AccountKey"):
        return key, None
    return None, _environment("AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN") or string.get("SharedAccessSignature")


def _client(options: Options, endpoint: str | None) -> dict[str, object]:
    """Return how the library connects, and how often and long it tries again."""
    patience = timedelta(seconds=options.timeout)
    client: dict[str, object] = {
        "connect_timeout": min(patience, timedelta(seconds=5)),
        "read_timeout": patience,
        "timeout": timedelta(days=1),  # of a whole request: a large file over a slow line is no error
        "allow_http": endpoint is not None and endpoint.startswith("http://"),
    }
    if options.ca_file is not None:
        try:
            client["root_certificate"] = Path(options.ca_file).read_bytes()
        except OSError as error:
            raise FileError(f"cannot read the certificate: {error.strerror}", where=options.ca_file) from error
    return {"client_options": client, "retry_config": {"max_retries": options.retries, "retry_timeout": patience}}


class _Profile:
    """A section of the files that the AWS command line keeps its settings in.

    Source: "Configuration and credential file settings", AWS CLI user guide.
    """

    def __init__(self, name: str | None, where: str) -> None:
        self._name = name or "default"
        self._where = where
        config = _sections("AWS_CONFIG_FILE", "config", where)
        keys = _sections("AWS_SHARED_CREDENTIALS_FILE", "credentials", where)
        section = self._name if self._name == "default" else f"profile {self._name}"
        self._values = {**config.get(section, {}), **keys.get(self._name, {})}
        if name and not self._values:
            raise FileError(f"there is no profile '{name}'", where=where, mend=f"aws configure --profile {name}")

    def get(self, key: str) -> str | None:
        return self._values.get(key)

    def keys(self, *, required: bool) -> tuple[str, str, str | None] | None:
        access, secret = self.get("aws_access_key_id"), self.get("aws_secret_access_key")
        if access and secret:
            return access, secret, self.get("aws_session_token")
        if required:
            raise FileError(
                f"the profile '{self._name}' holds no keys",
                where=self._where,
                mend=f"put them into the environment: aws configure export-credentials --profile {self._name} --format env",
            )
        return None


def _sections(variable: str, name: str, where: str) -> Mapping[str, Mapping[str, str]]:
    parser = configparser.RawConfigParser()
    path = Path(os.environ.get(variable) or Path.home() / ".aws" / name)
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError):
        # The parser's own message would show lines that may hold keys.
        raise FileError(f"{path} is not readable as a file of profiles", where=where, mend="correct it") from None
    return {section: dict(parser[section]) for section in parser.sections()}


def _environment(*names: str) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _named(variable: str | None, option: str, where: str) -> str:
    if not variable:
        raise FileError(f"the option '{option}' is missing", where=where, mend="name both keys' variables, or neither")
    value = os.environ.get(variable)
    if not value:
        raise FileError(f"the environment has no {variable}", where=where, mend=f"export {variable}=…")
    return value


def _answers(url: str) -> bool:
    """Return whether something listens at a URL; without waiting long: outside a cloud nothing does."""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port or 80), timeout=_METADATA_PATIENCE).close()
    except OSError:
        return False
    return True
